"""PointRend for objects: Mask R-CNN whose masks are rendered, coarse at first and sharp where they are uncertain.

Paper: Kirillov et al. 2020, "PointRend: Image Segmentation as Rendering", https://arxiv.org/abs/1912.08193.

Idea: boxes are found as in Mask R-CNN. What the finest level shows inside a box gives a coarse mask of 7x7 cells by
fully connected layers. That is upsampled by steps of two, and at each step only the least certain cells are computed
anew: by a small network that reads the finest level and the coarse logits at that very point. Five steps give 224x224.

    image (N, C, H, W) -> encoder -> pyramid (N, D, h_i, w_i), 4 levels and one pooled -> boxes as in Mask R-CNN
    14x14 points of the finest level in each box -> coarse mask head: logits (R, K, 7, 7)
    points (R, P, 2) -> finest level (R, D, P) and coarse logits (R, K, P) there -> point head: logits (R, K, P)
    coarse logits of the class (R, 7, 7) -> 14 -> 28 -> 56 -> 112 -> 224, points replaced at each step -> (R, 224, 224)

Letters: N batch, C image channels, K classes, H W image, D pyramid width, R boxes of a batch, B objects' boxes among
these, P points of a box, m cells of the coarse mask a side, M objects of an image.

How ours differs: nothing in the numbers, which are MMDetection's and Detectron2's. Only the mask of a detection's own
class is refined, in place of those of all classes. As there, a step is left out where the next one computes every cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.point_head import PointHead, pixel_centres, points_on_image, sample, sample_in_boxes
from segatlas.layers.roi_heads import box_convolution
from segatlas.layers.two_stage import MASK_SIDE, TwoStages, own_of
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.models.two_stage import TINY, TwoStageNetwork, TwoStageNetworkConfig
from segatlas.ops.matching import TrueObjects
from segatlas.structures import DetectedMasks


@dataclass(frozen=True, kw_only=True)
class PointRendInstanceConfig(TwoStageNetworkConfig):
    """Settings of a PointRend for objects, besides those of its frame.

    mask_convs: 3x3 convolutions of the coarse mask head, before its halving.
    mask_layers: fully connected layers of the coarse mask head.
    mask_width: width of these.
    point_channels: width of the point head.
    point_layers: its layers before the classifier.
    train_points: points of a box while training, P.
    oversample: how many times as many are drawn, of which the least certain are kept.
    importance: fraction of the points that are kept for being uncertain; the others are drawn anywhere.
    subdivisions: steps of upsampling by two in prediction.
    subdivision_points: points computed anew at each step.
    """

    mask_convs: int = 0
    mask_layers: int = 2
    mask_width: int = 1024
    point_channels: int = 256
    point_layers: int = 3
    train_points: int = 196
    oversample: int = 3
    importance: float = 0.75
    subdivisions: int = 5
    subdivision_points: int = 784

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, mask_convs=0, mask_channels=1, mask_layers=1, mask_width=1)
        require_at_least(self, point_channels=1, point_layers=0, train_points=1)
        require_at_least(self, oversample=1, importance=0, subdivisions=0, subdivision_points=1)
        if self.importance > 1:
            raise UsageError(f"importance: got {self.importance}, expected a fraction of at most 1")


class CoarseMaskHead(nn.Module):
    """A convolution that halves the cells of a box, fully connected layers, then a small map of logits a class."""

    def __init__(self, config: PointRendInstanceConfig, num_classes: int):
        super().__init__()
        self.side, self.num_classes = MASK_SIDE // 2, num_classes
        channels = [config.neck_channels, *[config.mask_channels] * config.mask_convs]
        self.convs = nn.ModuleList(
            box_convolution(width, config.mask_channels, norm=config.norm) for width in channels[:-1]
        )
        self.down = nn.Conv2d(channels[-1], config.mask_channels, kernel_size=2, stride=2)
        widths = [config.mask_channels * self.side**2, *[config.mask_width] * config.mask_layers]
        self.layers = nn.ModuleList(nn.Linear(width, config.mask_width) for width in widths[:-1])
        self.classifier = nn.Linear(widths[-1], num_classes * self.side**2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map cells (R, D, 2 m, 2 m) to logits (R, K, m, m)."""
        for conv in self.convs:
            x = F.relu(conv(x))
        x = F.relu(self.down(x)).flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        logits: Tensor = self.classifier(x)
        return logits.unflatten(1, (self.num_classes, self.side, self.side))


class PointRendStages(TwoStages):
    """The two stages with coarse masks, points of them while training, and refined masks in prediction."""

    config: PointRendInstanceConfig

    def __init__(self, config: PointRendInstanceConfig, num_classes: int, strides: Sequence[int]):
        super().__init__(config, num_classes, strides)
        self.point_head = PointHead(
            config.neck_channels, config.point_channels, num_classes, layers=config.point_layers, std=0.001
        )

    @property
    def mask_cells(self) -> int:
        """See `TwoStages`."""
        return MASK_SIDE // 2

    def make_mask_head(self) -> nn.Module:
        """See `TwoStages`."""
        return CoarseMaskHead(self.config, self.num_classes)

    def look_at_masks(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return coarse logits (R, K, m, m) for given boxes of each image."""
        count = sum(len(one) for one in boxes)
        cells = torch.arange(MASK_SIDE**2, device=maps[0].device).expand(count, -1)
        seen = self.fine(maps, boxes, pixel_centres(cells, MASK_SIDE, MASK_SIDE))
        logits: Tensor = self.mask_head(seen.unflatten(2, (MASK_SIDE, MASK_SIDE)))
        return logits

    def fine(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], points: Tensor) -> Tensor:
        """Return what the finest level shows at points (R, P, 2) of boxes: (R, D, P)."""
        return sample_in_boxes(maps[0], boxes, points, stride=self.strides[0])

    def logits_at(self, points: Tensor, maps: Sequence[Tensor], boxes: Sequence[Tensor], coarse: Tensor) -> Tensor:
        """Compute logits (R, K, P) at points (R, P, 2) of boxes from the pyramid and coarse logits (R, K, m, m)."""
        logits: Tensor = self.point_head(self.fine(maps, boxes, points), sample(coarse, points, align_corners=False))
        return logits

    # ---- prediction
    def own_masks(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], labels: Tensor, logits: Tensor) -> Tensor:
        """Refine the coarse mask of each detection's own class by steps of two, computing uncertain cells anew.

        Uncertain cells of a step are those whose upsampled logits are nearest to 0; their own replace these.
        """
        config, masks, side = self.config, own_of(logits, labels), self.mask_cells
        for step in range(config.subdivisions):
            side *= 2
            masks = upsampled(masks, side)
            if 4 * side**2 <= config.subdivision_points and step < config.subdivisions - 1:
                continue  # the next step computes every cell
            index = masks.flatten(1).abs().topk(min(config.subdivision_points, side**2), dim=1, largest=False).indices
            new = own_of(self.logits_at(pixel_centres(index, side, side), maps, boxes, logits), labels)
            masks = masks.flatten(1).scatter(1, index, new.to(masks.dtype)).unflatten(1, (side, side))
        return masks

    # ---- training
    def train_masks(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], owners: Sequence[Tensor], objects: Sequence[TrueObjects]
    ) -> dict[str, Tensor]:
        """Return also the logits of points (B, K, P), and what they should be, (B, P) between 0 and 1."""
        raw = super().train_masks(maps, boxes, owners, objects)
        classes = torch.cat([one.classes[owner] for owner, one in zip(owners, objects, strict=True)])
        points = self.training_points(own_of(raw["mask_logits"].detach(), classes))
        parts = zip(points.split([len(one) for one in boxes]), boxes, owners, objects, strict=True)
        targets = [masks_at(points_on_image(inside, box), owner, one.masks) for inside, box, owner, one in parts]
        logits = self.logits_at(points, maps, boxes, raw["mask_logits"])
        return raw | {"point_logits": logits, "point_targets": torch.cat(targets)}

    def training_points(self, coarse: Tensor) -> Tensor:
        """Draw points (B, P, 2) from torch's generator: mostly where masks of own classes (B, m, m) are uncertain."""
        config, count = self.config, len(coarse)
        uncertain = int(config.importance * config.train_points)
        drawn = torch.rand(count, config.oversample * config.train_points, 2, device=coarse.device)
        doubt = sample(coarse[:, None], drawn, align_corners=False)[:, 0].abs()
        index = doubt.topk(uncertain, dim=1, largest=False).indices
        kept = drawn.gather(1, index.unsqueeze(2).expand(-1, -1, 2))
        anywhere = torch.rand(count, config.train_points - uncertain, 2, device=coarse.device)
        return torch.cat([kept, anywhere], dim=1)


def upsampled(masks: Tensor, side: int) -> Tensor:
    """Return masks (R, m, m) with `side` cells a side."""
    if not len(masks):
        return masks.new_zeros(0, side, side)
    return F.interpolate(masks[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]


def masks_at(points: Tensor, index: Tensor, masks: Tensor) -> Tensor:
    """Read masks (M, H, W) bool, those at `index` (B,), at points (B, P, 2) in pixels, bilinearly: (B, P), 0..1."""
    places = points / points.new_tensor([masks.shape[2], masks.shape[1]])
    found = points.new_zeros(points.shape[:2])
    for one in index.unique().tolist():
        mine, mask = index == one, masks[one, None, None].to(points.dtype)
        found[mine] = sample(mask, places[mine].flatten(0, 1)[None], align_corners=False).reshape(-1, points.shape[1])
    return found


class PointRendInstance(TwoStageNetwork):
    """Encoder, pyramid, two stages whose masks are refined point by point."""

    config: PointRendInstanceConfig

    def __init__(self, config: PointRendInstanceConfig):
        super().__init__(config, config.num_classes)

    def make_stages(self, num_classes: int, strides: Sequence[int]) -> TwoStages:
        """See `TwoStageNetwork`."""
        return PointRendStages(self.config, num_classes, strides)


TINY_POINTS: dict[str, Any] = {
    "mask_convs": 0,
    "mask_width": 16,
    "point_channels": 8,
    "train_points": 16,
    "subdivisions": 2,
    "subdivision_points": 64,
}
"""Fields of a tiny network, for tests."""

ARCHITECTURE = Architecture(
    name="pointrend_instance",
    title="PointRend for objects",
    paper="https://arxiv.org/abs/1912.08193",
    tasks=("instance",),
    output=DetectedMasks,
    config=PointRendInstanceConfig,
    build=PointRendInstance,
    needs=Needs(targets=("InstancesTarget",), targets_in_forward=True, losses=("two_stage", "mask_points")),
    variants={"pointrend_instance_r50": {"encoder": "resnet50"}, "pointrend_instance_r101": {"encoder": "resnet101"}},
    tiny={**TINY, **TINY_POINTS},
    exports_dynamic=False,
    not_dynamic_because="how many boxes are proposed and kept follows from the image",
)
