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
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.fpn import FPN, FPNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.two_stage import TwoStageConfig, TwoStages, with_pooled_level
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.ops.matching import semantic_of, things_of, true_objects
from segatlas.structures import DetectedMasks, Inputs, SegmentsTarget, image_of


@dataclass(frozen=True, kw_only=True)
class PanopticFPNConfig(TwoStageConfig):
    """Settings of a Panoptic FPN, besides those of `TwoStageConfig`.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder and its options.
    levels: how many of the encoder's last maps the pyramid takes.
    bgr: the encoder was trained on channels in the order blue, green, red, so the image's are turned round for it.
    padding: images grow right and bottom to multiples of so many pixels.
    stuff: how many of the classes are stuff, S.
    stuff_classes: which; None = the last ones.
    other: where the semantic logits have the class "any thing", "first" or "last".
    channels: width of the semantic branch.
    groups: of its group norms.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50")
    levels: int = 4
    bgr: bool = False
    padding: int = 32
    stuff: int = 1
    stuff_classes: tuple[int, ...] | None = None
    other: Literal["first", "last"] = "first"
    channels: int = 128
    groups: int = 32

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=1, in_channels=1, levels=1, padding=1, stuff=0, channels=1, groups=1)
        if self.stuff >= self.num_classes:
            raise UsageError(f"stuff: got {self.stuff} of {self.num_classes} classes, expected one of things at least")
        chosen = self.stuff_classes
        if chosen is not None and (len(set(chosen)) != self.stuff or not set(chosen) <= set(range(self.num_classes))):
            raise UsageError(f"stuff_classes: got {chosen}, expected {self.stuff} of 0 to {self.num_classes - 1}")


class PanopticFPN(nn.Module):
    """Encoder, pyramid, two stages for things, a semantic branch for stuff."""

    def __init__(self, config: PanopticFPNConfig):
        super().__init__()
        self.config = config
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        strides = self.encoder.strides[-config.levels :]
        self.neck = FPN(self.encoder.channels[-config.levels :], config.neck_channels, norm=config.norm)
        self.stages = TwoStages(config, config.num_classes - config.stuff, (*strides, 2 * strides[-1]))
        self.head = FPNHead(
            config.neck_channels, config.channels, strides=strides, align_corners=False, groups=config.groups
        )
        self.classifier = nn.Conv2d(config.channels, config.stuff + 1, kernel_size=1)
        for part in (self.neck, self.head, self.classifier):
            init_weights(part)

    @property
    def things(self) -> tuple[bool, ...]:
        """Tell of each class whether it is one of things."""
        count = self.config.num_classes
        stuff = self.config.stuff_classes
        chosen = range(count - self.config.stuff, count) if stuff is None else stuff
        return tuple(index not in chosen for index in range(count))

    def pyramid(self, inputs: Tensor | Inputs) -> tuple[list[Tensor], tuple[int, int]]:
        """Map a normalised image (N, C, H, W) to the pyramid (N, D, h_i, w_i), and say how large the canvas is."""
        image = image_of(inputs)
        x = pad_to_multiple(image.flip(1) if self.config.bgr else image, self.config.padding)
        features = self.encoder(x)[-self.config.levels :]
        return with_pooled_level(self.neck(features)), (x.shape[-2], x.shape[-1])

    def forward(
        self,
        inputs: Tensor | Inputs,
        targets: Sequence[SegmentsTarget] | None = None,
        sizes: Sequence[Sequence[int]] | None = None,
    ) -> DetectedMasks:
        """Find things and stuff in normalised images (N, C, H, W); with their truths, what losses are taken of.

        Args:
            inputs: the images.
            targets: of each, while training; None = detect.
            sizes: (H, W) of each image before it was padded to the batch; None = as large as the batch.
        """
        image = image_of(inputs)
        size = (image.shape[-2], image.shape[-1])
        maps, canvas = self.pyramid(inputs)
        semantic = self.classifier(self.head(maps[:-1]))
        if targets is None:
            return DetectedMasks(**self.stages(maps, size), canvas=canvas, semantic=semantic)
        numbers = self._numbers(first=True)
        objects = []
        for target in targets:
            things = things_of(target)
            kinds = torch.tensor(numbers)[torch.as_tensor(things.classes).long().cpu()]
            objects.append(true_objects(things._replace(classes=kinds), image.device))
        raw = self.stages.train_on(maps, size, objects, sizes or [size] * len(targets))
        place = self._numbers(first=False)
        raw["semantic_labels"] = torch.stack([semantic_of(target, place, image.device) for target in targets])
        return DetectedMasks(boxes=(), scores=(), labels=(), mask_logits=(), canvas=canvas, semantic=semantic, raw=raw)

    def _numbers(self, *, first: bool) -> list[int]:
        """Return the number of each class among things (`first`), or its place among the semantic logits."""
        things, stuff = 0, int(self.config.other == "first")
        other = 0 if self.config.other == "first" else self.config.stuff
        found = []
        for is_thing in self.things:
            found.append((things if is_thing else 0) if first else (other if is_thing else stuff))
            things, stuff = things + is_thing, stuff + (not is_thing)
        return found

    def on_proposals(self, inputs: Tensor | Inputs, proposals: Sequence[Tensor]) -> DetectedMasks:
        """Detect inside given boxes (P, 4) of each image, in pixels of the canvas, in place of the network's own."""
        image = image_of(inputs)
        maps, canvas = self.pyramid(inputs)
        found: dict[str, Any] = self.stages(maps, (image.shape[-2], image.shape[-1]), proposals)
        return DetectedMasks(**found, canvas=canvas, semantic=self.classifier(self.head(maps[:-1])))


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
    tiny={
        "encoder": "resnet18_w8",
        "neck_channels": 8,
        "channels": 8,
        "groups": 2,
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
