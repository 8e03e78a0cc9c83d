"""Region proposal network: a small head on every level of a pyramid says where objects may be, of whatever class.

Paper: Ren et al. 2015, "Faster R-CNN", https://arxiv.org/abs/1506.01497; on pyramids Lin et al. 2017.

Letters: N batch, D channels, A anchors at a cell, T anchors of all levels, P proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.ops.boxes import are_wide, clipped, decode, suppressed

Rank = Literal["logit", "probability", "both"]


@dataclass(frozen=True, kw_only=True)
class ProposalRule:
    """How proposals are chosen.

    before: best anchors of each level that are looked at. after: proposals of an image at most.
    iou: of two of one level that overlap by more than this, the worse one goes.
    least_side: boxes with a side of so many pixels or less go. shrink_limit: see `ops.boxes.decode`.
    rank: what is compared: "logit"; "probability", of which many round to 1; or "both", logits inside a level and
        probabilities between boxes that overlap.
    """

    before: int = 1000
    after: int = 1000
    iou: float = 0.7
    least_side: float = 0.0
    shrink_limit: bool = False
    rank: Rank = "logit"


class RPNHead(nn.Module):
    """3x3 convolutions with ReLU, then a score and four deltas for every anchor; the same weights on every level."""

    def __init__(self, channels: int, anchors: int, *, convs: int = 1):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convs))
        self.scores = nn.Conv2d(channels, anchors, kernel_size=1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, kernel_size=1)
        for layer in (*self.convs, self.scores, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map levels (N, D, h_i, w_i) to scores (N, A, h_i, w_i), logits, and deltas (N, 4 A, h_i, w_i)."""
        scores, deltas = [], []
        for x in maps:
            for conv in self.convs:
                x = F.relu(conv(x))
            scores.append(self.scores(x))
            deltas.append(self.deltas(x))
        return scores, deltas


def base_anchors(sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool = False) -> Tensor:
    """Return the anchors (A, 4) of a cell, around 0: of each size in each ratio of height to width, area = size²."""
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()
    size = torch.tensor(sizes, dtype=torch.float32)
    width, height = ((factor[:, None] * size[None]).flatten() for factor in (1 / root, root))
    boxes = torch.stack([-width, -height, width, height], dim=1) / 2
    return boxes.round() if rounded else boxes


def grid_anchors(base: Tensor, size: tuple[int, int], strides: tuple[int, int]) -> Tensor:
    """Return the anchors (h w A, 4) of a map of `size`: those of a cell, moved to the top left corner of every cell.

    strides: pixels from a cell to that below and to that on its right.
    """
    y, x = (
        torch.arange(length, device=base.device, dtype=base.dtype) * stride
        for length, stride in zip(size, strides, strict=True)
    )
    moved = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=2).flip(2).reshape(-1, 1, 2)  # x, y
    return (base.unsqueeze(0) + moved.repeat(1, 1, 2)).reshape(-1, 4)


def flattened(maps: Sequence[Tensor], width: int) -> list[Tensor]:
    """Bring maps (N, A width, h_i, w_i) into the order of anchors: (N, h_i w_i A, width) each."""
    return [x.permute(0, 2, 3, 1).reshape(len(x), -1, width) for x in maps]


@torch.no_grad()
def choose_proposals(
    scores: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    size: tuple[int, int],
    rule: ProposalRule,
) -> list[tuple[Tensor, Tensor]]:
    """Return proposals (P, 4) and their scores (P,) of each image, by falling score: logits, or as the rule says.

    Args:
        scores: (N, h_i w_i A, 1) of each level.
        deltas: (N, h_i w_i A, 4).
        anchors: (h_i w_i A, 4).
        size: (H, W) of the images; boxes are cut there.
        rule: how they are chosen.
    """
    found = []
    for image in range(len(scores[0])):
        boxes, logits, levels = [], [], []
        for level, (score, delta, anchor) in enumerate(zip(scores, deltas, anchors, strict=True)):
            of_level = score[image, :, 0].float()
            count = min(rule.before, len(anchor))
            if rule.rank == "probability":  # of equal ones it matters which come first
                best, index = of_level.sigmoid(), torch.arange(len(of_level), device=of_level.device)
                if count < len(of_level):
                    best, index = (values[:count] for values in best.sort(descending=True))
            else:
                best, index = of_level.topk(count)
            boxes.append(decode(delta[image, index].float(), anchor[index], shrink_limit=rule.shrink_limit))
            logits.append(best.sigmoid() if rule.rank == "both" else best)
            levels.append(torch.full_like(index, level))
        box, logit, level_of = clipped(torch.cat(boxes), size), torch.cat(logits), torch.cat(levels)
        good = are_wide(box, rule.least_side) & logit.isfinite() & box.isfinite().all(dim=1)
        box, logit, level_of = box[good], logit[good], level_of[good]
        kept = suppressed(box, logit, level_of, rule.iou, rule.after, shifted=rule.rank == "probability")
        found.append((box[kept], logit[kept]))
    return found
