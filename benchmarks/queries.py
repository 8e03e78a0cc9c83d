"""Whole networks of queries at 800 x 1333, from a normalised image to segments, with the peers' steps behind theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.foreign import mmseg, transformers
from benchmarks.networks import predictor_of, settle
from benchmarks.plain_transformers import Theirs, imported, without_downloads
from benchmarks.rows import SEED, Call, Equality, Peer, Row, Target

HEIGHT, WIDTH, MULTIPLE = 800, 1333, 32
CLASSES, THINGS = 133, 80
SCORE, OVERLAP, MASK = 0.02, 0.005, 0.02
"""Thresholds that random weights pass, on both sides; MASK of transformers, whose masks are weighed by their scores."""
SAME = 0.999
"""Fraction of pixels with the same class, at least: a cell on the border of a mask may fall to either side of it."""
ASKED = Target(time=1.2, memory=1.0)


@dataclass(frozen=True, kw_only=True)
class Padded:
    """A normalised image (1, 3, H, W), grown right and bottom to a multiple, and its own size."""

    image: torch.Tensor
    size: tuple[int, int]


def make_image(small: bool) -> Padded:
    """Make noise with a coarse structure."""
    size = (96, 125) if small else (HEIGHT, WIDTH)
    draw = torch.Generator().manual_seed(SEED)
    coarse = torch.randn(1, 3, 12, 20, generator=draw)
    image = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    grown = (-size[1] % MULTIPLE, -size[0] % MULTIPLE)
    return Padded(image=torch.nn.functional.pad(image, (0, grown[0], 0, grown[1])), size=size)


# ---- theirs
@cache
def mmdet_r50() -> Theirs:
    """Build MMDetection's Mask2Former on ResNet-50."""
    folder = Path(mmseg("mmdet").__file__).parent / ".mim" / "configs"
    mmseg("mmdet.models")
    name = "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic"
    settings = mmseg("mmengine").Config.fromfile(str(folder / f"{name}.py"))
    mmseg("mmengine.registry").init_default_scope("mmdet")
    without_downloads(settings.model)
    text = settings.pretty_text
    settings.model.test_cfg.update(object_mask_thr=SCORE, iou_thr=OVERLAP, instance_on=False)
    torch.manual_seed(SEED)
    net = settle(mmseg("mmdet.registry").MODELS.build(settings.model), SEED)

    def save(net: Any, folder: Path) -> Path:
        torch.save({"meta": {"cfg": text}, "state_dict": net.state_dict()}, folder / "peer.pth")
        return folder / "peer.pth"

    return Theirs(net=net, save=save)


def of_mmdet(given: Padded) -> Call:
    """Return MMDetection's call: its classes (H, W)."""
    net: Any = mmdet_r50().net
    sample, (height, width) = mmseg("mmdet.structures").DetDataSample, given.image.shape[-2:]
    shapes = {"ori_shape": given.size, "img_shape": given.size, "scale_factor": (1.0, 1.0)}
    shapes |= {"pad_shape": (height, width), "batch_input_shape": (height, width)}

    @torch.inference_mode()
    def call() -> np.ndarray:
        found = net.predict(given.image, [sample(metainfo=dict(shapes))])[0].pred_panoptic_seg.sem_seg[0]
        classes: np.ndarray = found.numpy() % 1000
        return classes

    return call


@cache
def transformers_swin_t() -> Theirs:
    """Build transformers' Mask2Former on Swin-T."""
    module = transformers()
    torch.manual_seed(SEED)
    config = module.Mask2FormerConfig(num_labels=CLASSES)
    net = settle(module.Mask2FormerForUniversalSegmentation(config), SEED)

    def save(net: Any, folder: Path) -> Path:
        net.save_pretrained(folder)
        return folder

    return Theirs(net=net, save=save)


def of_transformers(given: Padded) -> Call:
    """Return transformers' call: its classes (H, W), of what it makes of the padded image."""
    net: Any = transformers_swin_t().net
    processor = transformers().Mask2FormerImageProcessor()
    size = (given.image.shape[-2], given.image.shape[-1])
    asked = {"threshold": SCORE, "mask_threshold": MASK, "overlap_mask_area_threshold": OVERLAP}
    stuff = set(range(THINGS, CLASSES))

    @torch.inference_mode()
    def call() -> np.ndarray:
        (found,) = processor.post_process_panoptic_segmentation(
            net(pixel_values=given.image), target_sizes=[size], label_ids_to_fuse=stuff, **asked
        )
        ids = found["segmentation"].numpy().astype(int)
        classes = np.full(int(ids.max()) + 2, CLASSES)
        for one in found["segments_info"]:
            classes[one["id"]] = one["label_id"]
        return classes[ids][: given.size[0], : given.size[1]]

    return call


# ---- ours
@cache
def ours_of(theirs: Callable[[], Theirs]) -> torch.nn.Module:
    """Return our network with the peer's weights."""
    return imported(theirs).eval()


def ours(theirs: Callable[[], Theirs], whole: bool, given: Padded) -> Call:
    """Return our call: classes (H, W).

    whole: over the padded image, as transformers makes them, cut afterwards.
    """
    from segatlas.config.objects import MASK2FORMER, TRANSFORMERS_MASK2FORMER
    from segatlas.ops.query_masks import MaskSteps
    from segatlas.postprocess.query_masks import segments_of

    rule = TRANSFORMERS_MASK2FORMER if whole else MASK2FORMER
    rule = replace(rule, queries=replace(rule.queries, segment_score=SCORE, segment_overlap=OVERLAP))
    rule = replace(rule, mask_threshold=MASK) if whole else rule
    run = predictor_of(partial(ours_of, theirs), "fp32").output
    size = (given.image.shape[-2], given.image.shape[-1]) if whole else given.size
    things = tuple(index < THINGS for index in range(CLASSES))
    first = (384, 384) if whole else (given.image.shape[-2], given.image.shape[-1])

    @torch.inference_mode()
    def call() -> np.ndarray:
        output = run(given.image)
        steps = MaskSteps(first=first, canvas=output.canvas, crop=size, size=size, probabilities=whole)
        found = segments_of(output.class_logits[0], output.mask_logits[0], steps, rule, things)
        classes = np.array([CLASSES, *(one.class_index for one in found.segments)])[found.ids]
        return classes[: given.size[0], : given.size[1]]

    return call


def same_classes(given: Padded, own: np.ndarray, other: np.ndarray) -> Equality:
    """Compare the classes of segments, pixel by pixel."""
    fraction = float((own == other).mean())
    return Equality(
        holds=fraction >= SAME, text=f"{100 * fraction:.3f} % of pixels, {len(np.unique(own))} classes (random weights)"
    )


def row(key: str, title: str, peer: str, theirs: Callable[[], Theirs], call: Callable[[Padded], Call]) -> Row:
    """Return the row of a peer."""
    return Row(
        key=key,
        group="queries",
        part=title,
        inputs=f"1 x 3 x {HEIGHT} x {WIDTH} to segments, {CLASSES} classes",
        material=make_image,
        ours=partial(ours, theirs, peer == "transformers"),
        peers={f"{peer} eager": Peer(make=call, target=ASKED)},
        equal=same_classes,
        threads=(2,),
    )


ROWS = (
    row("mask2former_r50_mmdet", "Mask2Former R50", "mmdet", mmdet_r50, of_mmdet),
    row("mask2former_swin_t_transformers", "Mask2Former Swin-T", "transformers", transformers_swin_t, of_transformers),
)
