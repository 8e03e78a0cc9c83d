"""Large images by windows: joining the windows' logits to one class map, without the network."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.foreign import mmseg
from benchmarks.material import CLASSES, HEIGHT, STRIDE, WIDTH, label_like_logits, street_labels
from benchmarks.rows import SEED, Call, Equality, Peer, Row, Target

CROP, STEP = 1024, 768
SMALL = 32
MARK = 0.001
"""An image's first channel holds the column times this, so that a window tells where it lies."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """logits: (1, K, h, w) of each window by its left border. image: (1, 3, H, W). crop, step: pixels."""

    logits: dict[int, Tensor]
    image: Tensor
    crop: int
    step: int


def make_windows(small: bool) -> Windows:
    height, width, crop, step = (128, 256, 128, 96) if small else (HEIGHT, WIDTH, CROP, STEP)
    whole = label_like_logits(street_labels()[:height, :width], CLASSES)
    generator = torch.Generator().manual_seed(SEED)
    logits = {}
    for left in (0, step, width - crop):
        part = whole[..., left // STRIDE : (left + crop) // STRIDE]
        logits[left] = part + 0.3 * torch.randn(part.shape, generator=generator)
    image = torch.zeros(1, 3, height, width)
    image[:, 0] = MARK * torch.arange(width)
    return Windows(logits=logits, image=image, crop=crop, step=step)


def logits_of(given: Windows, windows: Tensor) -> Tensor:
    """Return what a network would say to windows (N, 3, h, w)."""
    lefts = (windows[:, 0, 0, 0] / MARK).round().int().tolist()
    return given.logits[lefts[0]] if len(lefts) == 1 else torch.cat([given.logits[left] for left in lefts])


class Said(nn.Module):
    """A network of ours that gives the windows' logits as they are, and zeros for any other image."""

    def __init__(self, given: Windows):
        super().__init__()
        self.given = given
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        from segatlas.structures import SemanticLogits

        canvas = (x.shape[-2], x.shape[-1])
        if canvas != (self.given.crop, self.given.crop):
            return SemanticLogits(x.new_zeros(len(x), CLASSES, canvas[0] // STRIDE, canvas[1] // STRIDE), canvas=canvas)
        return SemanticLogits(logits_of(self.given, x), canvas=canvas)


def ours(given: Windows) -> Call:
    """Return the Predictor's own way from an image to its class map; normalising windows is in its time."""
    from segatlas.build.network import create_model
    from segatlas.build.saving import make_card
    from segatlas.checkpoint.preprocessing import Preprocessing
    from segatlas.inference import Predictor

    card = make_card(
        create_model("unet", num_classes=CLASSES, width=4),
        classes=[f"class {index}" for index in range(CLASSES)],
        preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, max_value=1.0),  # the windows keep their marks
    )
    overlap = 1 - given.step / given.crop
    predictor = Predictor(Said(given), card, device="cpu", window=given.crop, overlap=overlap)
    predictor.output(torch.zeros(1, 3, SMALL, SMALL))  # makes what a Predictor makes at its first image
    image = given.image[0].permute(1, 2, 0).contiguous().numpy()
    return lambda: torch.from_numpy(predictor.predict(image).semantic).unsqueeze(0)


def mmseg_own(given: Windows) -> Call:
    """Call mmseg's own slide inference and post-processing with a network that gives the windows' logits."""
    segmentors = mmseg("mmseg.models.segmentors")
    sample = mmseg("mmseg.structures").SegDataSample
    size = tuple(given.image.shape[-2:])
    stand_in = SimpleNamespace(
        test_cfg=SimpleNamespace(stride=(given.step, given.step), crop_size=(given.crop, given.crop)),
        out_channels=CLASSES,
        align_corners=False,
        encode_decode=lambda window, metas: upsampled(given, window),
    )

    def call() -> Tensor:
        metas = [{"ori_shape": size, "img_shape": size, "pad_shape": size, "padding_size": [0] * 4}]
        logits = segmentors.EncoderDecoder.slide_inference(stand_in, given.image, metas)
        results = segmentors.BaseSegmentor.postprocess_result(stand_in, logits, [sample(metainfo=metas[0])])
        labels: Tensor = results[0].pred_sem_seg.data
        return labels

    return torch.inference_mode()(call)


def upsampled(given: Windows, window: Tensor) -> Tensor:
    return F.interpolate(logits_of(given, window), window.shape[-2:], mode="bilinear", align_corners=False)


def mmseg_steps(given: Windows) -> Call:
    """Do what mmseg does: add each window padded to the whole, divide by the count, resize, take the best."""

    def call() -> Tensor:
        height, width = given.image.shape[-2:]
        total = torch.zeros(1, CLASSES, height, width)
        count = torch.zeros(1, 1, height, width)
        for left in given.logits:
            right = width - left - given.crop
            total = total + F.pad(upsampled(given, given.image[..., left : left + given.crop]), (left, right))
            count[..., left : left + given.crop] += 1
        mean = total / count
        return F.interpolate(mean, (height, width), mode="bilinear", align_corners=False).argmax(1)

    return torch.inference_mode()(call)


def same_map(given: Windows, own: Tensor, other: Tensor) -> Equality:
    count = int((own.long() != other.long()).sum())
    return Equality(
        holds=count == 0, text="identical maps" if count == 0 else f"{count} of {own.numel()} pixels differ"
    )


TARGET = Target(time=4, memory=1 / 20)
ROWS = (
    Row(
        key="window",
        group="window",
        part=f"joining windows, {CLASSES} classes",
        inputs=f"{WIDTH // STEP + 1} windows of {CROP}, every {STEP} pixels, {HEIGHT} x {WIDTH}",
        material=make_windows,
        ours=ours,
        peers={
            "mmseg slide_inference": Peer(make=mmseg_own, target=TARGET),
            "mmseg's steps": Peer(make=mmseg_steps, target=TARGET),
        },
        equal=same_map,
    ),
)
