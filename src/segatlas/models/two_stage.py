"""The frame of networks that find objects in two stages on a pyramid, and their settings. It is no architecture.

    image (N, C, H, W) -> pad -> encoder -> pyramid, 4 levels (N, D, h_i, w_i) and one pooled -> two stages -> objects

An architecture says how its truth becomes objects and what it gives besides them.

Letters: N batch, C image channels, K classes, H W image, D pyramid width, P proposals of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.fpn import FPN
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.two_stage import TwoStageConfig, TwoStages, with_pooled_level
from segatlas.models.architecture import require_at_least
from segatlas.ops.matching import TrueObjects, true_objects
from segatlas.structures import DetectedMasks, Inputs, InstancesTarget, SegmentsTarget, image_of

TINY: dict[str, Any] = {
    "encoder": "resnet18_w8",
    "neck_channels": 8,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "box_channels": 16,
    "mask_convs": 1,
    "mask_channels": 8,
    "proposals": (64, 16),
    "train_proposals": (64, 32),
    "top": 8,
}
"""Fields of a tiny network of this kind, for tests."""


@dataclass(frozen=True, kw_only=True)
class TwoStageNetworkConfig(TwoStageConfig):
    """Settings of such a network, besides those of its stages.

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


class TwoStageNetwork(nn.Module):
    """Encoder, pyramid, two stages.

    A subclass with more heads writes `besides`, one with other masks `make_stages`, and where its truth is not objects
    alone `objects_of` and `truth_of`.

    Args:
        config: the network's.
        num_classes: classes of objects.
    """

    def __init__(self, config: TwoStageNetworkConfig, num_classes: int):
        super().__init__()
        self.config = config
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        strides = self.encoder.strides[-config.levels :]
        self.neck = FPN(self.encoder.channels[-config.levels :], config.neck_channels, norm=config.norm)
        init_weights(self.neck)
        self.stages = self.make_stages(num_classes, (*strides, 2 * strides[-1]))

    # ---- what an architecture may say
    def make_stages(self, num_classes: int, strides: Sequence[int]) -> TwoStages:
        """Return the stages on a pyramid of these strides."""
        return TwoStages(self.config, num_classes, strides)

    def besides(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Map the pyramid to what the network gives besides objects, by the names of `DetectedMasks`."""
        return {}

    def objects_of(self, target: Any, device: torch.device) -> TrueObjects:
        """Return the objects of an image's truth."""
        return true_objects(target, device)

    def truth_of(self, targets: Sequence[Any], device: torch.device) -> dict[str, Tensor]:
        """Return what else losses are taken of, by the names of `DetectedMasks.raw`."""
        return {}

    # ---- the way of an image
    def pyramid(self, inputs: Tensor | Inputs) -> tuple[list[Tensor], tuple[int, int]]:
        """Map a normalised image (N, C, H, W) to the pyramid (N, D, h_i, w_i), and say how large the canvas is."""
        image = image_of(inputs)
        x = pad_to_multiple(image.flip(1) if self.config.bgr else image, self.config.padding)
        features = self.encoder(x)[-self.config.levels :]
        return with_pooled_level(self.neck(features)), (x.shape[-2], x.shape[-1])

    def forward(
        self,
        inputs: Tensor | Inputs,
        targets: Sequence[InstancesTarget | SegmentsTarget] | None = None,
        sizes: Sequence[Sequence[int]] | None = None,
    ) -> DetectedMasks:
        """Find objects, and what is besides them, in normalised images (N, C, H, W); with truths, what losses take.

        Args:
            inputs: the images.
            targets: the truth of each, while training; None = detect.
            sizes: (H, W) of each image before it was padded to the batch; None = as large as the batch.
        """
        if targets is None:
            return self.on_proposals(inputs, None)
        image = image_of(inputs)
        size = (image.shape[-2], image.shape[-1])
        maps, canvas = self.pyramid(inputs)
        besides: dict[str, Any] = self.besides(maps)
        objects = [self.objects_of(target, image.device) for target in targets]
        raw = self.stages.train_on(maps, size, objects, sizes or [size] * len(targets))
        raw |= self.truth_of(targets, image.device)
        return DetectedMasks(boxes=(), scores=(), labels=(), mask_logits=(), canvas=canvas, raw=raw, **besides)

    def on_proposals(self, inputs: Tensor | Inputs, proposals: Sequence[Tensor] | None) -> DetectedMasks:
        """Detect inside given boxes (P, 4) of each image, in pixels of the canvas; None = the network's own."""
        image = image_of(inputs)
        maps, canvas = self.pyramid(inputs)
        besides: dict[str, Any] = self.besides(maps)
        found = self.stages(maps, (image.shape[-2], image.shape[-1]), proposals)
        return DetectedMasks(**found, canvas=canvas, **besides)
