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

from dataclasses import dataclass

from segatlas.models.architecture import Architecture
from segatlas.models.needs import Needs
from segatlas.models.two_stage import TINY, TwoStageNetwork, TwoStageNetworkConfig
from segatlas.structures import DetectedMasks

V2 = {
    "round_anchors": True,
    "measured_strides": True,
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
class MaskRCNNConfig(TwoStageNetworkConfig):
    """Settings of a Mask R-CNN: those of its frame."""


class MaskRCNN(TwoStageNetwork):
    """Encoder, pyramid, two stages, and nothing besides."""

    def __init__(self, config: MaskRCNNConfig):
        super().__init__(config, config.num_classes)


ARCHITECTURE = Architecture(
    name="mask_rcnn",
    title="Mask R-CNN",
    paper="https://arxiv.org/abs/1703.06870",
    tasks=("instance",),
    output=DetectedMasks,
    config=MaskRCNNConfig,
    build=MaskRCNN,
    needs=Needs(
        targets=("InstancesTarget",), targets_in_forward=True, losses=("two_stage",), further_losses=("box_masks",)
    ),
    variants={
        "mask_rcnn_r50": {"encoder": "resnet50"},
        "mask_rcnn_r101": {"encoder": "resnet101"},
        "mask_rcnn_r50_tv": {"encoder": "resnet50", **V1},
        "mask_rcnn_r50_v2": {"encoder": "resnet50", **V2},
    },
    tiny=TINY,
    exports_dynamic=False,
    not_dynamic_because="how many boxes are proposed and kept follows from the image",
)
