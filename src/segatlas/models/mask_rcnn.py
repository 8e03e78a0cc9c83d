"""Mask R-CNN: a box, a class and a mask for each object, in two stages.

Papers: He et al. 2017, "Mask R-CNN", https://arxiv.org/abs/1703.06870; on a feature pyramid Lin et al. 2017,
https://arxiv.org/abs/1612.03144. Version 2 of torchvision: Li et al. 2021, https://arxiv.org/abs/2111.11429.

Idea: a small network proposes boxes that may hold an object, on every level of a pyramid. What the pyramid shows inside
a box is read on a grid of 7x7 cells and gives class and a better box; inside the better box 14x14 cells give a mask for
each class, of which that of the class is taken. Masks of classes do not compete.

    image (N, C, H, W) -> encoder -> pyramid (N, D, h_i, w_i), 4 levels and one pooled
    pyramid -> proposal head: scores (N, A, h_i, w_i), deltas (N, 4 A, h_i, w_i) -> the best boxes (P, 4)
    7x7 in these -> box head: classes (P, K + 1), deltas (P, 4 K) -> detections by score and overlap
    14x14 in these -> mask head: logits (D, K, 28, 28) -> the one of the class (D, 28, 28)

Letters: N batch, C image channels, K classes, H W image, D pyramid width, A anchors of a cell, P proposals of an image.

How ours differs: nothing in the numbers. torchvision, Detectron2 and MMDetection differ in roundings, norms and limits,
which are fields. "No object" is the last class everywhere, and it has no box of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.fpn import FPN
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.two_stage import TwoStageConfig, TwoStages, with_pooled_level
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.ops.matching import true_objects
from segatlas.structures import DetectedMasks, Inputs, InstancesTarget, image_of

V2 = {
    "round_anchors": True,
    "rpn_convs": 2,
    "norm": True,
    "box_convs": 4,
    "box_layers": 1,
    "aligned": False,
    "sampling": 2,
    "least_sides": (1e-3, 1e-2),
    "proposal_rank": "both",
}
"""Fields of torchvision's second version."""

V1 = {**V2, "rpn_convs": 1, "norm": False, "box_convs": 0, "box_layers": 2}
"""Fields of its first."""


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig(TwoStageConfig):
    """Settings of a Mask R-CNN, besides those of `TwoStageConfig`.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder and its options.
    levels: how many of the encoder's last maps the pyramid takes.
    bgr: the encoder was trained on channels in the order blue, green, red, so the image's are turned round for it.
    padding: images grow right and bottom to multiples of so many pixels.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50")
    levels: int = 4
    bgr: bool = False
    padding: int = 32

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=1, in_channels=1, levels=1, padding=1, neck_channels=1, rpn_convs=0)


class MaskRCNN(nn.Module):
    """Encoder, pyramid, two stages."""

    def __init__(self, config: MaskRCNNConfig):
        super().__init__()
        self.config = config
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        strides = self.encoder.strides[-config.levels :]
        self.neck = FPN(self.encoder.channels[-config.levels :], config.neck_channels, norm=config.norm)
        init_weights(self.neck)
        self.stages = TwoStages(config, config.num_classes, (*strides, 2 * strides[-1]))

    def pyramid(self, inputs: Tensor | Inputs) -> tuple[list[Tensor], tuple[int, int]]:
        """Map a normalised image (N, C, H, W) to the pyramid (N, D, h_i, w_i), and say how large the canvas is."""
        image = image_of(inputs)
        x = pad_to_multiple(image.flip(1) if self.config.bgr else image, self.config.padding)
        features = self.encoder(x)[-self.config.levels :]
        return with_pooled_level(self.neck(features)), (x.shape[-2], x.shape[-1])

    def forward(
        self,
        inputs: Tensor | Inputs,
        targets: Sequence[InstancesTarget] | None = None,
        sizes: Sequence[Sequence[int]] | None = None,
    ) -> DetectedMasks:
        """Find the objects of normalised images (N, C, H, W); with their truths, what losses are taken of.

        Args:
            inputs: the images.
            targets: of each, while training; None = detect.
            sizes: (H, W) of each image before it was padded to the batch; None = as large as the batch.
        """
        image = image_of(inputs)
        size = (image.shape[-2], image.shape[-1])
        maps, canvas = self.pyramid(inputs)
        if targets is None:
            return DetectedMasks(**self.stages(maps, size), canvas=canvas)
        objects = [true_objects(target, image.device) for target in targets]
        raw = self.stages.train_on(maps, size, objects, sizes or [size] * len(targets))
        return DetectedMasks(boxes=(), scores=(), labels=(), mask_logits=(), canvas=canvas, raw=raw)

    def on_proposals(self, inputs: Tensor | Inputs, proposals: Sequence[Tensor]) -> DetectedMasks:
        """Detect inside given boxes (P, 4) of each image, in pixels of the canvas, in place of the network's own."""
        image = image_of(inputs)
        maps, canvas = self.pyramid(inputs)
        found: dict[str, Any] = self.stages(maps, (image.shape[-2], image.shape[-1]), proposals)
        return DetectedMasks(**found, canvas=canvas)


ARCHITECTURE = Architecture(
    name="mask_rcnn",
    title="Mask R-CNN",
    paper="https://arxiv.org/abs/1703.06870",
    tasks=("instance",),
    output=DetectedMasks,
    config=MaskRCNNConfig,
    build=MaskRCNN,
    needs=Needs(targets=("InstancesTarget",), targets_in_forward=True, losses=("two_stage",)),
    variants={
        "mask_rcnn_r50": {"encoder": "resnet50"},
        "mask_rcnn_r101": {"encoder": "resnet101"},
        "mask_rcnn_r50_tv": {"encoder": "resnet50", **V1},
        "mask_rcnn_r50_v2": {"encoder": "resnet50", **V2},
    },
    tiny={
        "encoder": "resnet18_w8",
        "neck_channels": 8,
        "anchor_sizes": (8, 16, 32, 64, 128),
        "box_channels": 16,
        "mask_convs": 1,
        "mask_channels": 8,
        "proposals": (64, 16),
        "train_proposals": (64, 32),
        "top": 8,
    },
    exports_dynamic=False,
    not_dynamic_because="how many boxes are proposed and kept follows from the image",
)
