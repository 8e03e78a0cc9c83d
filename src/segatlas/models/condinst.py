"""CondInst: each object brings the small network that draws its mask.

Paper: Tian et al. 2020, "Conditional Convolutions for Instance Segmentation", https://arxiv.org/abs/2003.05664; its
detector is FCOS, Tian et al. 2019, https://arxiv.org/abs/1904.01355.

Idea: every cell of a pyramid says which object it lies in, how far away the sides of its box are, and gives the weights
of three 1x1 convolutions. These run over one fine map of the whole image, to which they see where each pixel lies from
the cell, and give the object's mask. No boxes are cut out, so masks keep the resolution of the map.

    image (N, C, H, W) -> encoder -> pyramid (N, D, h_i, w_i), the coarsest levels by strided convolutions
    pyramid -> two towers: classes (N, K, h_i, w_i) | distances (N, 4, ...), centerness (N, 1, ...), weights (N, P, ...)
    its finest levels -> mask branch: features (N, F, h, w)
    cells by score and overlap -> detections; weights of each (P,) over features and offsets (F + 2, h, w) -> (f h, f w)

Letters: N batch, C image channels, K classes, H W image, D pyramid width, h w finest level, F mask features, P weights
of an object, d channels inside its network, T cells of all levels, R detections, f last upsampling.

How ours differs: nothing in the numbers, which are MMDetection's. Distances are in pixels. Features are shared by the
objects of an image and not repeated for each: the first convolution is one product of matrices, to which what follows
from the offsets is added. `detect_from` lets masks see a finer level than boxes, for small images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU, ConvGroupNormReLU
from segatlas.layers.fpn import FPN
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.ops.boxes import are_wide, clipped, suppressed
from segatlas.ops.full_precision import in_full_precision
from segatlas.ops.matching import BACKGROUND, TrueObjects, distances_to_sides, match_points, true_objects
from segatlas.ops.upsampling import upsample_aligned
from segatlas.structures import DetectedMasks, Inputs, InstancesTarget, Resample, image_of

RARE = 0.01
"""Probability of every class at the start: nearly all cells show none (Lin et al. 2017, section 4.1)."""


@dataclass(frozen=True, kw_only=True)
class CondInstConfig:
    """Settings of a CondInst.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder and its options.
    levels: how many of the encoder's last maps the pyramid takes.
    coarser_levels: how many it adds, each by a strided convolution of the one before.
    detect_from: objects are looked for from this level on, 0 = the finest; masks always see the finest.
    neck_channels: pyramid width, D.
    bgr: the encoder was trained on channels in the order blue, green, red, so the image's are turned round for it.
    padding: images grow right and bottom to multiples of so many pixels.
    head_convs: convolutions of each of the two towers.
    head_channels: their width.
    groups: of their group norms.
    mask_levels: how many of the finest levels the mask branch sums.
    mask_convs: its convolutions behind the sum.
    mask_channels: their width.
    mask_features: what it gives, F.
    dynamic_layers: convolutions of an object's own network.
    dynamic_channels: its width, d.
    mask_upsampling: factor of its masks, f; they have the stride of the finest level divided by it.
    offset_unit: offsets from an object's cell are in so many strides of its level.
    object_sizes: the farthest side of an object is at most so many pixels away on each level but the last.
    center_radius: cells stand for an object so many strides around its middle.
    train_masks: masks of an image that a loss is taken of, drawn at random.
    root_scores: the score is the square root of class probability times centerness, and not the product.
    score_threshold: detections have a higher class probability than this.
    candidates: best class probabilities of a level that are looked at.
    nms_iou: of two detections of a class that overlap by more than this, the worse one goes.
    top: detections of an image at most; None = all.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50")
    levels: int = 3
    coarser_levels: int = 2
    detect_from: int = 0
    neck_channels: int = 256
    bgr: bool = False
    padding: int = 32
    head_convs: int = 4
    head_channels: int = 256
    groups: int = 32
    mask_levels: int = 3
    mask_convs: int = 4
    mask_channels: int = 128
    mask_features: int = 8
    dynamic_layers: int = 3
    dynamic_channels: int = 8
    mask_upsampling: int = 2
    offset_unit: float = 8.0
    object_sizes: tuple[float, ...] = (64, 128, 256, 512)
    center_radius: float = 1.5
    train_masks: int = 300
    root_scores: bool = False
    score_threshold: float = 0.05
    candidates: int = 1000
    nms_iou: float = 0.6
    top: int | None = 100

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=1, in_channels=1, levels=1, coarser_levels=0, detect_from=0, padding=1)
        require_at_least(self, neck_channels=1, head_convs=0, head_channels=1, groups=1, mask_levels=1, mask_convs=0)
        require_at_least(self, mask_channels=1, mask_features=1, dynamic_layers=2, dynamic_channels=1, candidates=1)
        require_at_least(self, mask_upsampling=1, train_masks=1)
        if not self.offset_unit > 0:
            raise UsageError(f"offset_unit: got {self.offset_unit}, expected a number above 0")
        if self.head_channels % self.groups or self.head_channels == self.groups:
            raise UsageError(
                f"groups: got {self.groups}, expected a divisor of {self.head_channels} (head_channels) below it"
            )
        if self.mask_levels > self.levels:
            raise UsageError(f"mask_levels: got {self.mask_levels}, expected {self.levels} (levels) at most")
        bounds = self.levels + self.coarser_levels - self.detect_from - 1
        if bounds != len(self.object_sizes) or any(low >= high for low, high in pairwise(self.object_sizes)):
            told = ", ".join(f"{size:g}" for size in self.object_sizes)
            raise UsageError(f"object_sizes: got ({told}), expected {max(bounds, 0)} growing ones, between the levels")


class Tower(nn.Sequential):
    """3x3 convolutions with group norm and ReLU."""

    def __init__(self, channels: int, width: int, *, convs: int, groups: int):
        widths = [channels, *[width] * convs]
        super().__init__(*(ConvGroupNormReLU(a, b, groups=groups, bias=True) for a, b in pairwise(widths)))


class DetectionHead(nn.Module):
    """What each cell of a level says of the object that it lies in; the same weights on every level but for a scale."""

    def __init__(self, config: CondInstConfig, strides: Sequence[int], weights: int):
        super().__init__()
        self.strides = tuple(strides)
        channels = config.head_channels if config.head_convs else config.neck_channels
        towers = (
            Tower(config.neck_channels, channels, convs=config.head_convs, groups=config.groups) for _ in range(2)
        )
        self.class_tower, self.box_tower = towers
        self.classifier = nn.Conv2d(channels, config.num_classes, 3, padding=1)
        self.distances = nn.Conv2d(channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.controller = nn.Conv2d(channels, weights, 3, padding=1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in strides)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _start(module)
        _start(self.classifier, -math.log((1 - RARE) / RARE))
        _start(self.distances, 1.0)  # a stride: where the ReLU is not flat

    def forward(self, maps: Sequence[Tensor]) -> dict[str, tuple[Tensor, ...]]:
        """Map levels (N, D, h_i, w_i) to tuples of maps by level, by the names of `DetectedMasks.raw`.

        "class_logits" (N, K, h_i, w_i); "distances" (N, 4, h_i, w_i) to the left, top, right and bottom side, in
        pixels, 0 or more; "centerness" (N, 1, h_i, w_i), logits; "mask_weights" (N, P, h_i, w_i).
        """
        found: dict[str, list[Tensor]] = {"class_logits": [], "distances": [], "centerness": [], "mask_weights": []}
        for x, stride, scale in zip(maps, self.strides, self.scales, strict=True):
            of_box = self.box_tower(x)
            found["class_logits"].append(self.classifier(self.class_tower(x)))
            found["distances"].append(F.relu(precise(self.distances(of_box) * scale)) * stride)
            found["centerness"].append(self.centerness(of_box))
            found["mask_weights"].append(self.controller(of_box))
        return {name: tuple(values) for name, values in found.items()}


def _start(conv: nn.Conv2d, bias: float = 0.0) -> None:
    """Set starting weights."""
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)


class MaskBranch(nn.Module):
    """The finest levels, each convolved and brought to the first one's size, summed and convolved again."""

    def __init__(self, config: CondInstConfig, strides: Sequence[int]):
        super().__init__()
        self.factors = [stride // strides[0] for stride in strides]
        width = config.mask_channels
        self.levels = nn.ModuleList(ConvBNReLU(config.neck_channels, width) for _ in strides)
        self.convs = nn.Sequential(*(ConvBNReLU(width, width) for _ in range(config.mask_convs)))
        self.output = nn.Conv2d(width, config.mask_features, kernel_size=1)
        init_weights(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map levels (N, D, h_i, w_i), finest first, to features (N, F, h, w)."""
        parts = (
            upsample_aligned(conv(x), factor) for conv, x, factor in zip(self.levels, maps, self.factors, strict=False)
        )
        out: Tensor = self.output(self.convs(sum(parts)))
        return out


class Cells(NamedTuple):
    """The cells of all levels.

    middles: (T, 2), x and y in pixels. strides: (T,) of their levels. bounds: (T, 2), how far away the farthest side of
    an object is at least and at most.
    """

    middles: Tensor
    strides: Tensor
    bounds: Tensor


class CondInst(nn.Module):
    """Encoder, pyramid, detection head, mask branch; and the networks that the cells bring."""

    def __init__(self, config: CondInstConfig):
        super().__init__()
        self.config = config
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        width, strides = config.neck_channels, list(self.encoder.strides[-config.levels :])
        if len(strides) < config.levels:
            raise UsageError(f"levels: got {config.levels}, expected {len(strides)} (the encoder's maps) at most")
        if any(low * 2 != high for low, high in pairwise(strides)) or config.padding % strides[-1]:
            raise UsageError(
                f"encoder: maps at strides {', '.join(map(str, strides))}, padding {config.padding}; expected strides "
                "that double, and a multiple of the last one"
            )
        self.neck = FPN(self.encoder.channels[-config.levels :], width)
        self.coarser = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(config.coarser_levels))
        init_weights(self.neck)
        init_weights(self.coarser)
        strides += [strides[-1] << count for count in range(1, config.coarser_levels + 1)]
        self.strides = tuple(strides[config.detect_from :])
        self.mask_stride = strides[0] // config.mask_upsampling
        if not self.mask_stride or strides[0] % config.mask_upsampling:
            raise UsageError(f"mask_upsampling: got {config.mask_upsampling}, expected a divisor of {strides[0]}")
        inner = config.dynamic_channels
        widths = [config.mask_features + 2, *[inner] * (config.dynamic_layers - 1), 1]
        self.layers = tuple(pairwise(widths))
        self.head = DetectionHead(config, self.strides, sum(a * b + b for a, b in self.layers))
        self.mask_branch = MaskBranch(config, strides[: config.mask_levels])
        self.finest = strides[0]

    def pyramid(self, inputs: Tensor | Inputs) -> tuple[list[Tensor], tuple[int, int]]:
        """Map a normalised image (N, C, H, W) to the pyramid (N, D, h_i, w_i), and say how large the canvas is."""
        image = image_of(inputs)
        x = pad_to_multiple(image.flip(1) if self.config.bgr else image, self.config.padding)
        maps = self.neck(self.encoder(x)[-self.config.levels :])
        for index, conv in enumerate(self.coarser):
            maps.append(conv(F.relu(maps[-1]) if index else maps[-1]))
        return maps, (x.shape[-2], x.shape[-1])

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
        raw: dict[str, Any] = {**self.head(maps[self.config.detect_from :]), "mask_features": self.mask_branch(maps)}
        found: dict[str, Any] = {"boxes": (), "scores": (), "labels": (), "mask_logits": ()}
        if targets is None:
            found = self.detect(raw, size)
        else:
            objects = [true_objects(target, image.device) for target in targets]
            raw |= self.train_on(raw, objects, sizes or [size] * len(targets), canvas)
        return DetectedMasks(**found, canvas=canvas, resample=Resample("aligned"), frame="canvas", raw=raw)

    # ---- cells
    def cells(self, maps: Sequence[Tensor]) -> Cells:
        """Return the cells of maps (N, ..., h_i, w_i) by level, numbers in the maps' precision."""
        bounds = pairwise((0.0, *self.config.object_sizes, math.inf))
        middles, strides, limits = [], [], []
        for x, stride, bound in zip(maps, self.strides, bounds, strict=True):
            y, x_ = (self.places(side, stride, x) for side in x.shape[-2:])
            middles.append(torch.stack(torch.meshgrid(x_, y, indexing="xy"), dim=2).flatten(0, 1))
            count = len(middles[-1])
            strides.append(x.new_full((count,), stride))
            limits.append(x.new_tensor(bound).expand(count, 2))
        return Cells(torch.cat(middles), torch.cat(strides), torch.cat(limits))

    @staticmethod
    def places(side: int, stride: int, like: Tensor) -> Tensor:
        """Return where the middles of `side` cells in a row lie, in pixels."""
        return (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) * stride

    def masks(self, features: Tensor, weights: Tensor, cells: Cells) -> Tensor:
        """Return mask logits (R, f h, f w) of objects in one image: each runs its own network over the features.

        In float32 whatever the autocast around.

        Args:
            features: (F, h, w).
            weights: (R, P) of the objects' convolutions: all matrices first, then all biases.
            cells: those that the objects were found in.
        """
        size = features.shape[-2:]
        middles, unit = cells.middles, (cells.strides * self.config.offset_unit)[:, None]
        y, x = (self.places(side, self.finest, middles) for side in size)
        offsets = [(middles[:, :1] - x) / unit, (middles[:, 1:] - y) / unit]  # (R, w) and (R, h)
        with in_full_precision(features):
            matrices, biases = self._unpacked(precise(weights))
            x = matrices[0][:, :, 2:] @ precise(features).flatten(1) + biases[0]
            across, down = (matrices[0][:, :, index, None] * offsets[index][:, None] for index in (0, 1))
            x = x.unflatten(2, size) + across[:, :, None] + down[..., None]
            x = x.flatten(2)  # (R, d, h w)
            for matrix, bias in zip(matrices[1:], biases[1:], strict=True):
                x = torch.baddbmm(bias, matrix, F.relu(x))
            return upsample_aligned(x.unflatten(2, size), self.config.mask_upsampling)[:, 0]

    def _unpacked(self, weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the matrices (R, b, a) and the biases (R, b, 1) of the layers from a to b channels."""
        parts = weights.split([*(a * b for a, b in self.layers), *(b for _, b in self.layers)], dim=1)
        count = len(self.layers)
        matrices = [part.unflatten(1, (b, a)) for part, (a, b) in zip(parts[:count], self.layers, strict=True)]
        return matrices, [part.unsqueeze(2) for part in parts[count:]]

    # ---- prediction
    def detect(self, raw: dict[str, Any], size: tuple[int, int]) -> dict[str, tuple[Tensor, ...]]:
        """Return the detections of each image by falling score, by the names of `DetectedMasks`.

        Args:
            raw: maps by level, and mask features.
            size: (H, W) of the images, without what they were padded by.
        """
        cells = self.cells(raw["distances"])
        weights, distances = flattened(raw["mask_weights"]), flattened(raw["distances"])
        found: dict[str, list[Tensor]] = {"boxes": [], "scores": [], "labels": [], "mask_logits": []}
        for image, features in enumerate(raw["mask_features"]):
            cell, label, score = self._candidates(raw, image)
            there = distances[image, cell]
            middles = cells.middles[cell]
            boxes = torch.cat([middles - there[:, :2], middles + there[:, 2:]], dim=1)
            boxes = clipped(boxes, size)
            if not boxes.is_meta:
                wide = are_wide(boxes, 0)
                cell, label, score, boxes = cell[wide], label[wide], score[wide], boxes[wide]
                kept = suppressed(boxes, score, label, self.config.nms_iou, self.config.top)
                cell, label, score, boxes = cell[kept], label[kept], score[kept], boxes[kept]
            masks = self.masks(features, weights[image, cell], chosen(cells, cell))
            for name, value in zip(found, (boxes, score, label, masks), strict=True):
                found[name].append(value)
        return {name: tuple(values) for name, values in found.items()}

    def _candidates(self, raw: dict[str, Any], image: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return cell (R,), label (R,) and score (R,) of the likeliest pairs of cell and class of each level."""
        config, before = self.config, 0
        cells, labels, scores = [], [], []
        for logits, centerness in zip(raw["class_logits"], raw["centerness"], strict=True):
            likely = precise(logits[image]).flatten(1).T.sigmoid()  # (h w, K)
            if likely.is_meta:  # shapes alone, to count work: as many as there may be
                count = min(likely.numel(), config.top or config.candidates)
                cell = label = torch.zeros(count, dtype=torch.long, device="meta")
                best = likely.flatten()[:count]
            else:
                cell, label = (likely > config.score_threshold).nonzero(as_tuple=True)
                best, order = likely[cell, label].sort(descending=True)
                best, order = best[: config.candidates], order[: config.candidates]
                cell, label = cell[order], label[order]
            score = best * precise(centerness[image]).flatten().sigmoid()[cell]
            cells.append(cell + before)
            labels.append(label)
            scores.append(score.sqrt() if config.root_scores else score)
            before += len(likely)
        return torch.cat(cells), torch.cat(labels), torch.cat(scores)

    # ---- training
    def train_on(
        self,
        raw: dict[str, Any],
        objects: Sequence[TrueObjects],
        sizes: Sequence[Sequence[int]],
        canvas: tuple[int, int],
    ) -> dict[str, Any]:
        """Return what the losses are taken of besides the maps, by the names of `DetectedMasks.raw`.

        "cell_classes" (N, T): K = no object, -1 = not judged; "distance_targets" (B, 4) of the B cells that stand for
        objects, in their order; "mask_logits" (S, f h, f w) of those drawn among them, and "mask_targets" likewise: 1
        inside, 0 outside, -1 beyond the image; "mask_images" (S,), whose they are.

        Args:
            raw: maps by level, and mask features.
            objects: of each image.
            sizes: (H, W) of each image before it was padded to the batch: what lies beyond is not judged.
            canvas: (H', W') that the maps cover.
        """
        cells = self.cells(raw["distances"])
        weights, reach = flattened(raw["mask_weights"]), cells.strides * self.config.center_radius
        classes, distances, masks, truths = [], [], [], []
        for image, (one, size) in enumerate(zip(objects, sizes, strict=True)):
            owner = match_points(cells.middles, reach, cells.bounds, one, size)
            cell = (owner >= 0).nonzero()[:, 0]
            kinds = torch.where(owner == BACKGROUND, self.config.num_classes, -1)
            kinds[cell] = one.classes[owner[cell]]
            classes.append(kinds)
            distances.append(distances_to_sides(cells.middles[cell], one.boxes[owner[cell]]))
            if len(cell) > self.config.train_masks:
                cell = cell[torch.randperm(len(cell), device=cell.device)[: self.config.train_masks]]
            masks.append(self.masks(raw["mask_features"][image], weights[image, cell], chosen(cells, cell)))
            truths.append(self._truth_of_masks(one.masks, owner[cell], size, canvas))
        return {
            "cell_classes": torch.stack(classes),
            "distance_targets": torch.cat(distances),
            "mask_logits": torch.cat(masks),
            "mask_targets": torch.cat(truths),
            "mask_images": torch.cat([classes[0].new_full((len(one),), image) for image, one in enumerate(masks)]),
        }

    def _truth_of_masks(self, masks: Tensor, owner: Tensor, size: Sequence[int], canvas: tuple[int, int]) -> Tensor:
        """Return masks (M, H, W) bool, those of `owner` (S,), as the network's are: (S, f h, f w) int8, see `train_on`.

        Each sample is the pixel in the middle of what it covers.
        """
        stride = self.mask_stride
        begin = stride // 2
        inside = (slice(begin, int(side), stride) for side in size)
        seen = masks[(slice(None), *inside)][owner].to(torch.int8)
        height, width = (side // stride for side in canvas)
        return F.pad(seen, (0, width - seen.shape[2], 0, height - seen.shape[1]), value=-1)


def chosen(cells: Cells, index: Tensor) -> Cells:
    """Return some of the cells."""
    return Cells(*(values[index] for values in cells))


def flattened(maps: Sequence[Tensor]) -> Tensor:
    """Bring maps (N, C, h_i, w_i) into the order of cells: (N, T, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)


def precise(values: Tensor) -> Tensor:
    """Return half precision as float32; others as they are."""
    return values.float() if values.element_size() < 4 else values


ARCHITECTURE = Architecture(
    name="condinst",
    title="CondInst",
    paper="https://arxiv.org/abs/2003.05664",
    tasks=("instance",),
    output=DetectedMasks,
    config=CondInstConfig,
    build=CondInst,
    needs=Needs(
        targets=("InstancesTarget",), targets_in_forward=True, losses=("dynamic_masks",), further_losses=("box_masks",)
    ),
    variants={"condinst_r50": {"encoder": "resnet50"}, "condinst_r101": {"encoder": "resnet101"}},
    tiny={
        "encoder": "resnet18_w8",
        "neck_channels": 8,
        "head_convs": 1,
        "head_channels": 8,
        "groups": 2,
        "mask_convs": 1,
        "mask_channels": 8,
        "mask_features": 4,
        "dynamic_channels": 4,
        "object_sizes": (16, 32, 64, 128),
        "score_threshold": 0.005,
        "candidates": 64,
        "top": 8,
    },
    exports_dynamic=False,
    not_dynamic_because="how many objects are found follows from the image",
)
