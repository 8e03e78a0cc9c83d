"""The two stages of Mask R-CNN on a pyramid: proposals, then a class, a better box and a mask for each.

Papers: Ren et al. 2015, "Faster R-CNN", https://arxiv.org/abs/1506.01497; He et al. 2017, "Mask R-CNN",
https://arxiv.org/abs/1703.06870; Lin et al. 2017, "Feature Pyramid Networks", https://arxiv.org/abs/1612.03144.

Letters: N batch, D pyramid width, K classes, A anchors of a cell, T anchors of an image, P proposals of an image, R
those of a batch, B objects' boxes among these, F detections, m cells of a mask a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.roi_heads import BoxHead, MaskHead
from segatlas.layers.rpn import ProposalRule, Rank, RPNHead, base_anchors, choose_proposals, flattened, grid_anchors
from segatlas.ops.boxes import are_wide, cells_of, clipped, decode, encode, pooled, suppressed
from segatlas.ops.matching import TrueObjects, drawn, match

BOX_SIDE, MASK_SIDE = 7, 14
"""Cells a side of what the two heads see of a box."""

ANCHOR_IOUS = (0.3, 0.7)
"""An anchor is background below the first one, and stands for an object from the second on."""

BOX_IOU = 0.5
"""A proposal stands for an object from this IoU on, and is background below."""

RPN_OBJECTS, BOX_OBJECTS = 0.5, 0.25
"""Fraction of objects' boxes, at most, among those that the losses of each stage are taken of."""


@dataclass(frozen=True, kw_only=True)
class TwoStageConfig:
    """Settings of the two stages.

    neck_channels: pyramid width, D.
    anchor_sizes: root of the area of a level's anchors, in pixels, finest level first.
    anchor_ratios: height to width of the anchors of a cell.
    round_anchors: their sides are whole pixels.
    measured_strides: they lie apart by the image's size over the map's, in whole pixels, as in torchvision: closer than
        the level's stride where the map's size was rounded up.
    rpn_convs: 3x3 convolutions of the proposal head.
    norm: batch norm in pyramid, box head and mask head, in place of biases.
    box_convs: convolutions of the box head.
    box_layers: fully connected layers behind them.
    box_channels: width of these.
    mask_convs: 3x3 convolutions of the mask head, before its doubling.
    mask_channels: their width.
    box_weights: factors of the deltas of the second stage: x, y, width, height.
    aligned: boxes are read from maps at the centres of cells, see `ops.boxes.pooled`.
    sampling: points a side of each cell that are read; 0 = as many as pixels of the map lie in it.
    shrink_limit: sides of boxes also shrink by a factor of 62.5 at most where deltas are decoded.
    least_sides: boxes with a side of so many pixels or less go, among proposals and among detections.
    proposals: anchors of a level that are looked at, and proposals of an image at most.
    train_proposals: the same while training.
    drawn: anchors and proposals of an image that the losses of the two stages are taken of.
    best_anchor_iou: an object's best anchors stand for an object from this IoU on, others from 0.7 on.
    best_own: anchors and proposals that an object has no better ones of stand for that object, although they overlap
        another one more: MMDetection's rule. Else for the one that they overlap most: Detectron2's and torchvision's.
    proposal_rank: what proposals are ranked by, "logit", "probability" or "both", see `layers.rpn.ProposalRule`.
    proposal_iou: of two proposals of a level that overlap by more than this, the worse one goes.
    score_threshold: detections have a higher score than this.
    nms_iou: of two detections of a class that overlap by more than this, the worse one goes.
    class_agnostic: so it is of two detections of any class.
    top: detections of an image at most; None = all.
    """

    neck_channels: int = 256
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    round_anchors: bool = False
    measured_strides: bool = False
    rpn_convs: int = 1
    norm: bool = False
    box_convs: int = 0
    box_layers: int = 2
    box_channels: int = 1024
    mask_convs: int = 4
    mask_channels: int = 256
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    aligned: bool = True
    sampling: int = 0
    shrink_limit: bool = False
    least_sides: tuple[float, float] = (0.0, 0.0)
    proposals: tuple[int, int] = (1000, 1000)
    train_proposals: tuple[int, int] = (2000, 1000)
    drawn: tuple[int, int] = (256, 512)
    best_anchor_iou: float = 0.0
    best_own: bool = False
    proposal_rank: Rank = "logit"
    proposal_iou: float = 0.7
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    class_agnostic: bool = False
    top: int | None = 100


class TwoStages(nn.Module):
    """Proposals on every level of a pyramid, then box head and mask head inside them.

    Args:
        config: of the stages.
        num_classes: K.
        strides: of the levels of the pyramid, finest first; boxes are read from all but the last one.
    """

    def __init__(self, config: TwoStageConfig, num_classes: int, strides: Sequence[int]):
        super().__init__()
        if len(config.anchor_sizes) != len(strides):
            raise UsageError(
                f"anchor_sizes: got {len(config.anchor_sizes)}, expected one for each of the {len(strides)} levels "
                f"at strides {', '.join(map(str, strides))}"
            )
        self.config, self.num_classes, self.strides = config, num_classes, tuple(strides)
        width = config.neck_channels
        self.rpn = RPNHead(width, len(config.anchor_ratios), convs=config.rpn_convs)
        self.box_head = BoxHead(
            width, BOX_SIDE, num_classes, convs=config.box_convs, layers=config.box_layers, width=config.box_channels
        )
        self.mask_head = self.make_mask_head()

    # ---- masks: what another head may say
    @property
    def mask_cells(self) -> int:
        """Return how many cells a side the mask head gives, m."""
        return 2 * MASK_SIDE

    def make_mask_head(self) -> nn.Module:
        """Return the head that maps what `look_at_masks` sees to mask logits."""
        config = self.config
        return MaskHead(
            config.neck_channels, config.mask_channels, self.num_classes, convs=config.mask_convs, norm=config.norm
        )

    def look_at_masks(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return mask logits (R, K, m, m) for given boxes of each image."""
        logits: Tensor = self.mask_head(self.look(maps, boxes, MASK_SIDE))
        return logits

    def own_masks(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], labels: Tensor, logits: Tensor) -> Tensor:
        """Return the mask of each detection's own class from the logits (R, K, m, m) of all: (R, m', m')."""
        return own_of(logits, labels)

    def train_masks(
        self, maps: Sequence[Tensor], boxes: Sequence[Tensor], owners: Sequence[Tensor], objects: Sequence[TrueObjects]
    ) -> dict[str, Tensor]:
        """Return mask logits (B, K, m, m) of objects' boxes, and what they should be, (B, m, m) of 0 and 1, by name.

        Args:
            maps: the pyramid.
            boxes: those of each image that stand for an object.
            owners: which object of the image.
            objects: of each image.
        """
        truths = [
            cut_masks(one.masks, owner, box, self.mask_cells)
            for box, owner, one in zip(boxes, owners, objects, strict=True)
        ]
        return {"mask_logits": self.look_at_masks(maps, boxes), "mask_targets": torch.cat(truths)}

    # ---- first stage
    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors (h_i w_i A, 4) of every level."""
        found = []
        image = [length * self.strides[0] for length in maps[0].shape[-2:]]
        for x, size, stride in zip(maps, self.config.anchor_sizes, self.strides, strict=True):
            base = base_anchors((size,), self.config.anchor_ratios, rounded=self.config.round_anchors)
            rows, columns = x.shape[-2:]
            apart = (image[0] // rows, image[1] // columns) if self.config.measured_strides else (stride, stride)
            found.append(grid_anchors(base.to(x.device), (rows, columns), apart))
        return found

    def propose(
        self, scores: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], size: tuple[int, int]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return proposals (P, 4) and scores (P,) of each image from the maps of `RPNHead`."""
        config = self.config
        before, after = config.train_proposals if self.training else config.proposals
        if scores[0].is_meta:  # shapes alone, to count work: as many as there may be
            return [(x.new_zeros(after, 4), x.new_zeros(after)) for x in scores[0]]
        rule = ProposalRule(
            before=before,
            after=after,
            iou=config.proposal_iou,
            rank=config.proposal_rank,
            least_side=config.least_sides[0],
            shrink_limit=config.shrink_limit,
        )
        return choose_proposals(flattened(scores, 1), flattened(deltas, 4), anchors, size, rule)

    # ---- second stage
    def look(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], side: int) -> Tensor:
        """Return what the pyramid shows inside boxes (P, 4) of each image: (R, D, side, side)."""
        levels = maps[:-1]
        return pooled(
            levels, self.strides[:-1], boxes, side, aligned=self.config.aligned, sampling=self.config.sampling
        )

    def look_at_boxes(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (R, K + 1), the last is "no object", and deltas (R, 4 K) for given boxes of each image."""
        logits, deltas = self.box_head(self.look(maps, boxes, BOX_SIDE))
        return logits, deltas

    def detect(
        self, boxes: Tensor, logits: Tensor, deltas: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (F, 4), scores (F,) and labels (F,) of one image by falling score.

        Args:
            boxes: proposals (P, 4).
            logits: (P, K + 1).
            deltas: (P, 4 K).
            size: (H, W) of the image.
        """
        config = self.config
        if boxes.is_meta:
            count = min(len(boxes), config.top or len(boxes))
            return boxes[:count], logits[:count, 0], boxes.new_zeros(count, dtype=torch.long)
        scores = logits.float().softmax(dim=1)[:, :-1]
        row, label = (scores > config.score_threshold).nonzero(as_tuple=True)
        chosen = deltas.float().unflatten(1, (self.num_classes, 4))[row, label]
        found = decode(chosen, boxes[row], config.box_weights, shrink_limit=config.shrink_limit)
        found, score = clipped(found, size), scores[row, label]
        wide = are_wide(found, config.least_sides[1])
        found, score, label = found[wide], score[wide], label[wide]
        shifted = config.proposal_rank == "probability"
        group = torch.zeros_like(label) if config.class_agnostic else label
        kept = suppressed(found.detach(), score.detach(), group, config.nms_iou, config.top, shifted=shifted)
        return found[kept], score[kept], label[kept]

    def forward(
        self, maps: Sequence[Tensor], size: tuple[int, int], proposals: Sequence[Tensor] | None = None
    ) -> dict[str, Any]:
        """Return detections and all that lies between, by the names of `DetectedMasks` and its `raw`.

        Args:
            maps: the pyramid, (N, D, h_i, w_i), finest first.
            size: (H, W) of the images, without what they were padded by.
            proposals: (P, 4) of each image, in place of those of the first stage.
        """
        scores, deltas = self.rpn(maps)
        raw: dict[str, Any] = {"rpn_scores": tuple(scores), "rpn_deltas": tuple(deltas)}
        if proposals is None:
            chosen = self.propose(scores, deltas, self.anchors(maps), size)
            proposals = [boxes for boxes, _ in chosen]
            raw["proposal_scores"] = tuple(score for _, score in chosen)
        logits, box_deltas = self.look_at_boxes(maps, proposals)
        counts = [len(one) for one in proposals]
        raw |= {"proposals": tuple(proposals), "box_logits": logits, "box_deltas": box_deltas}
        parts = zip(proposals, logits.split(counts), box_deltas.split(counts), strict=True)
        found = [self.detect(*part, size) for part in parts]
        boxes, found_scores, labels = zip(*found, strict=True)
        places = [one.detach() for one in boxes]
        raw["mask_logits"] = self.look_at_masks(maps, places)
        own = self.own_masks(maps, places, torch.cat(labels), raw["mask_logits"])
        return {
            "boxes": boxes,
            "scores": found_scores,
            "labels": labels,
            "mask_logits": own.split([len(one) for one in boxes]),
            "raw": raw,
        }

    # ---- training
    def train_on(
        self,
        maps: Sequence[Tensor],
        size: tuple[int, int],
        objects: Sequence[TrueObjects],
        sizes: Sequence[Sequence[int]],
    ) -> dict[str, Any]:
        """Return what the losses are taken of, by the names of `DetectedMasks.raw`; see `losses.two_stage`.

        Args:
            maps: the pyramid, as in `forward`.
            size: (H, W) of the images, as there.
            objects: of each image.
            sizes: (H, W) of each image before it was padded to the batch: what lies beyond is not judged.
        """
        scores, deltas = self.rpn(maps)
        anchors = self.anchors(maps)
        proposals = self.propose(scores, deltas, anchors, size)
        raw: dict[str, Any] = {"rpn_scores": tuple(scores), "rpn_deltas": tuple(deltas)}
        raw |= _first_truth(torch.cat(anchors), objects, sizes, self.config)
        drawn_boxes, classes, owners = [], [], []
        for (boxes, _), one, inside in zip(proposals, objects, sizes, strict=True):
            boxes, matched = self._owners(boxes, one, inside)
            positive, negative = drawn(matched, self.config.drawn[1], BOX_OBJECTS)
            chosen = torch.cat([positive, negative])
            drawn_boxes.append(boxes[chosen])
            owners.append(matched[chosen])
            kinds = one.classes[matched[positive]]
            classes.append(torch.cat([kinds, kinds.new_full((len(negative),), self.num_classes)]))
        logits, box_deltas = self.look_at_boxes(maps, drawn_boxes)
        raw |= {"proposals": tuple(drawn_boxes), "box_logits": logits, "box_deltas": box_deltas}
        mine = [(box[owner >= 0], owner[owner >= 0]) for box, owner in zip(drawn_boxes, owners, strict=True)]
        places, indices = zip(*mine, strict=True)
        deltas = [
            encode(one.boxes[index], box, self.config.box_weights)
            for (box, index), one in zip(mine, objects, strict=True)
        ]
        raw |= {"box_classes": torch.cat(classes), "box_targets": torch.cat(deltas)}
        return raw | self.train_masks(maps, places, indices, objects)

    def _owners(self, boxes: Tensor, one: TrueObjects, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return proposals (P, 4) with the objects' own boxes behind them, and what they stand for, see `match`."""
        every = torch.cat([boxes, one.boxes])
        if not self.config.best_own:
            return every, match(every, one, size, background_below=BOX_IOU, object_from=BOX_IOU)
        matched = match(
            boxes, one, size, background_below=BOX_IOU, object_from=BOX_IOU, best_from=BOX_IOU, best_own=True
        )
        return every, torch.cat([matched, torch.arange(len(one.boxes), device=matched.device)])


def own_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return of logits (R, K, ...) those of the class of each row, labels (R,): (R, ...)."""
    return logits[torch.arange(len(logits), device=logits.device), labels]


def cut_masks(masks: Tensor, index: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Return masks (M, H, W) bool, those at `index` (B,), as boxes (B, 4) show them: (B, side, side) of 0 and 1."""
    if not len(index):
        return boxes.new_zeros((0, side, side))
    used, where = index.unique(return_inverse=True)
    rois = torch.cat([where[:, None].to(boxes), boxes], dim=1)
    cells = cells_of(masks[used, None].to(boxes.dtype), rois, side)
    return (cells[:, 0] >= 0.5).to(boxes.dtype)


def _first_truth(
    anchors: Tensor, objects: Sequence[TrueObjects], sizes: Sequence[Sequence[int]], config: TwoStageConfig
) -> Mapping[str, Tensor]:
    """Return for the anchors (T, 4) of each image which are drawn, 1 an object, 0 none, -1 not drawn; and deltas."""
    labels, targets = [], []
    for one, size in zip(objects, sizes, strict=True):
        matched = match(
            anchors,
            one,
            size,
            background_below=ANCHOR_IOUS[0],
            object_from=ANCHOR_IOUS[1],
            best_from=config.best_anchor_iou,
            best_own=config.best_own,
        )
        positive, negative = drawn(matched, config.drawn[0], RPN_OBJECTS)
        label = torch.full_like(matched, -1)
        label[positive], label[negative] = 1, 0
        target = torch.zeros_like(anchors)
        target[positive] = encode(one.boxes[matched[positive]], anchors[positive])
        labels.append(label)
        targets.append(target)
    return {"rpn_labels": torch.stack(labels), "rpn_targets": torch.stack(targets)}


def with_pooled_level(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return a pyramid with one level more: every second cell of its coarsest one."""
    return [*maps, F.max_pool2d(maps[-1], kernel_size=1, stride=2)]
