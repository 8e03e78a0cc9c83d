"""Panoptic FPN: Mask R-CNN for things and a semantic branch for stuff, on one feature pyramid.

Paper: Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", https://arxiv.org/abs/1901.02446.

Idea: the pyramid that finds objects also serves for stuff. Each of its levels is brought to the finest one's size by
3x3 convolutions with group norm and upsamplings, their sum is classified: a class for each kind of stuff and one for
all things together. Objects are painted first, stuff fills what they leave.

Letters: N batch, C image channels, K classes (T things, S stuff), H W image, D pyramid width, h w finest level.

How ours differs: nothing in the numbers, which are Detectron2's and MMDetection's. They put "all things" first and last
among the semantic logits; `other` says which. Labels of objects count things alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from segatlas.errors import UsageError
from segatlas.layers.fpn import FPNHead
from segatlas.layers.init import init_weights
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.models.two_stage import TINY, TwoStageNetwork, TwoStageNetworkConfig
from segatlas.ops.matching import TrueObjects, semantic_of, things_of, true_objects
from segatlas.structures import DetectedMasks, SegmentsTarget


@dataclass(frozen=True, kw_only=True)
class PanopticFPNConfig(TwoStageNetworkConfig):
    """Settings of a Panoptic FPN, besides those of its frame.

    stuff: how many of the classes are stuff, S.
    stuff_classes: which; None = the last ones.
    other: where the semantic logits have the class "any thing", "first" or "last".
    channels: width of the semantic branch.
    groups: of its group norms.
    """

    stuff: int = 1
    stuff_classes: tuple[int, ...] | None = None
    other: Literal["first", "last"] = "first"
    channels: int = 128
    groups: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, stuff=0, channels=1, groups=1)
        if self.stuff >= self.num_classes:
            raise UsageError(f"stuff: got {self.stuff} of {self.num_classes} classes, expected one of things at least")
        chosen = self.stuff_classes
        if chosen is not None and (len(set(chosen)) != self.stuff or not set(chosen) <= set(range(self.num_classes))):
            raise UsageError(f"stuff_classes: got {chosen}, expected {self.stuff} of 0 to {self.num_classes - 1}")


class PanopticFPN(TwoStageNetwork):
    """Encoder, pyramid, two stages for things, a semantic branch for stuff."""

    config: PanopticFPNConfig

    def __init__(self, config: PanopticFPNConfig):
        super().__init__(config, config.num_classes - config.stuff)
        self.head = FPNHead(
            config.neck_channels,
            config.channels,
            strides=self.stages.strides[:-1],
            align_corners=False,
            groups=config.groups,
        )
        self.classifier = nn.Conv2d(config.channels, config.stuff + 1, kernel_size=1)
        for part in (self.head, self.classifier):
            init_weights(part)

    def besides(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Map the pyramid to the logits (N, S + 1, h, w) of stuff and "any thing"."""
        return {"semantic": self.classifier(self.head(maps[:-1]))}

    def objects_of(self, target: SegmentsTarget, device: torch.device) -> TrueObjects:
        """Return the things of an image's truth; their classes are counted among things."""
        things = things_of(target)
        classes = torch.tensor(self._numbers(first=True))[torch.as_tensor(things.classes).long().cpu()]
        return true_objects(things._replace(classes=classes), device)

    def truth_of(self, targets: Sequence[SegmentsTarget], device: torch.device) -> dict[str, Tensor]:
        """Return the class of each pixel (N, H, W), as the semantic logits count them."""
        place = self._numbers(first=False)
        return {"semantic_labels": torch.stack([semantic_of(target, place, device) for target in targets])}

    @property
    def things(self) -> tuple[bool, ...]:
        """Tell of each class whether it is one of things."""
        count = self.config.num_classes
        stuff = self.config.stuff_classes
        chosen = range(count - self.config.stuff, count) if stuff is None else stuff
        return tuple(index not in chosen for index in range(count))

    def _numbers(self, *, first: bool) -> list[int]:
        """Return the number of each class among things (`first`), or its place among the semantic logits."""
        things, stuff = 0, int(self.config.other == "first")
        other = 0 if self.config.other == "first" else self.config.stuff
        found = []
        for is_thing in self.things:
            found.append((things if is_thing else 0) if first else (other if is_thing else stuff))
            things, stuff = things + is_thing, stuff + (not is_thing)
        return found


ARCHITECTURE = Architecture(
    name="panoptic_fpn",
    title="Panoptic FPN",
    paper="https://arxiv.org/abs/1901.02446",
    tasks=("panoptic",),
    output=DetectedMasks,
    config=PanopticFPNConfig,
    build=PanopticFPN,
    needs=Needs(targets=("SegmentsTarget",), targets_in_forward=True, losses=("two_stage", "semantic_branch")),
    variants={"panoptic_fpn_r50": {"encoder": "resnet50"}, "panoptic_fpn_r101": {"encoder": "resnet101"}},
    tiny={**TINY, "channels": 8, "groups": 2},
    exports_dynamic=False,
    not_dynamic_because="how many boxes are proposed and kept follows from the image",
)
