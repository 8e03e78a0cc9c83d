"""The criterion of networks that give `CentersAndOffsets`: maps are drawn from the true objects and compared with.

Letters: N batch, K classes, h w network output, M objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.config.losses import CentersOffsetsConfig, LossConfig
from segatlas.errors import UsageError
from segatlas.structures import CentersAndOffsets, InstancesTarget

SPREAD = 2.0
"""Standard deviation of the Gaussian around a centre, in cells of the network's output."""

HARD, NEAR = 2.0, 4.0
"""Exponents of the focal loss on centres: easy cells, and cells near a centre, count less (Law, Deng, ECCV 2018)."""


class Maps(NamedTuple):
    """What an image's output should be.

    centers: (1, h, w), 1 at a centre, falling to 0 around it. offsets: (2, h, w) pixels of the canvas, where `inside`.
    foreground: (K, h, w) 0 or 1. inside: (h, w) bool, an object is here. judged: (h, w) bool, no crowd is here.
    """

    centers: Tensor
    offsets: Tensor
    foreground: Tensor
    inside: Tensor
    judged: Tensor


class CentersCriterion(nn.Module):
    """Sum of the terms of a recipe; each is `center_weight * focal + offset_weight * L1 + foreground_weight * BCE`.

    Focal loss on centres is divided by the number of objects of the batch, L1 (in cells of the output) is the mean over
    the pixels of objects, binary cross-entropy on the foreground the mean over all cells and classes. A batch without
    anything to judge has a loss of 0 with zero gradient.
    """

    def __init__(self, terms: Sequence[LossConfig]):
        super().__init__()
        wrong = [term.name for term in terms if not isinstance(term, CentersOffsetsConfig)]
        if wrong or not terms:
            raise UsageError(f"losses: got {wrong[0] if wrong else 'none'}; this network trains with centers_offsets")
        self.terms = tuple(term for term in terms if isinstance(term, CentersOffsetsConfig))

    def forward(
        self, output: CentersAndOffsets, targets: Sequence[InstancesTarget]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total, a scalar, and the three parts by name: detached, before their weights.

        Args:
            output: of a network in training mode.
            targets: one an image, masks (M, H, W) that cover the top left part of the canvas.
        """
        output = output._replace(
            centers=output.centers.float(), offsets=output.offsets.float(), foreground=output.foreground.float()
        )
        size = (output.centers.shape[-2], output.centers.shape[-1])
        classes = output.foreground.shape[1]
        maps = [maps_of_target(target, classes, size, output.canvas, output.centers.device) for target in targets]
        wanted = Maps(*(torch.stack(parts) for parts in zip(*maps, strict=True)))
        cell = output.canvas[0] / size[0]
        parts = {
            "centers": center_loss(output.centers, wanted),
            "offsets": offset_loss(output.offsets, wanted) / cell,
            "foreground": foreground_loss(output.foreground, wanted),
        }
        total = sum(
            term.weight
            * (
                term.center_weight * parts["centers"]
                + term.offset_weight * parts["offsets"]
                + term.foreground_weight * parts["foreground"]
            )
            for term in self.terms
        )
        return torch.as_tensor(total), {name: value.detach() for name, value in parts.items()}


def build(terms: Sequence[LossConfig], automatic_weights: Tensor | None = None) -> CentersCriterion:
    """Return the criterion of a recipe's `losses`; automatic class weights play no part."""
    return CentersCriterion(terms)


def maps_of_target(
    target: InstancesTarget, classes: int, size: tuple[int, int], canvas: tuple[int, int], device: torch.device
) -> Maps:
    """Draw what the output should be at `size` (h, w) cells of a canvas of (H', W') pixels.

    A cell belongs to the object at its middle pixel. Objects without a cell keep their centre. Where objects overlap,
    the smaller one is on top.

    Raises:
        UsageError: a class out of range.
    """
    masks = torch.as_tensor(target.masks, device=device).bool()
    kinds = torch.as_tensor(target.classes, device=device).long()
    crowd = torch.as_tensor(target.crowd, device=device).bool()
    if len(kinds) and not 0 <= int(kinds.min()) <= int(kinds.max()) < classes:
        raise UsageError(f"an object of class {int(kinds.max())}, but the network has {classes} classes")
    rows, columns = (_middles(n, whole, device) for n, whole in zip(size, canvas, strict=True))
    cells = torch.zeros((len(masks), *size), dtype=torch.bool, device=device)
    down, right = rows < masks.shape[1], columns < masks.shape[2]
    seen = masks[:, rows[down].long()][:, :, columns[right].long()]
    cells[:, : seen.shape[1], : seen.shape[2]] = seen
    maps = Maps(
        centers=torch.zeros((1, *size), device=device),
        offsets=torch.zeros((2, *size), device=device),
        foreground=torch.zeros((classes, *size), device=device),
        inside=torch.zeros(size, dtype=torch.bool, device=device),
        judged=~cells[crowd].any(dim=0) if crowd.any() else torch.ones(size, dtype=torch.bool, device=device),
    )
    areas = masks.flatten(1).sum(1)
    for index in torch.argsort(areas, descending=True, stable=True).tolist():
        if not crowd[index] and areas[index]:
            _draw(maps, masks[index], cells[index], int(kinds[index]), rows, columns)
    return maps


def _middles(count: int, pixels: int, device: torch.device) -> Tensor:
    """Return the pixel coordinates of the middle of each of `count` cells over so many pixels."""
    return (torch.arange(count, device=device) + 0.5) * (pixels / count)


def _draw(maps: Maps, mask: Tensor, cells: Tensor, kind: int, rows: Tensor, columns: Tensor) -> None:
    """Draw one object into the maps."""
    center = mask.nonzero().float().mean(0) + 0.5  # pixel i covers i..i + 1
    row_cell, column_cell = rows[0] * 2, columns[0] * 2  # the first middle lies half a cell from the edge
    y = torch.exp(-(((rows - center[0]) / row_cell) ** 2) / (2 * SPREAD**2))
    x = torch.exp(-(((columns - center[1]) / column_cell) ** 2) / (2 * SPREAD**2))
    peak = y[:, None] * x
    peak.view(-1)[peak.argmax()] = 1.0
    torch.maximum(maps.centers[0], peak, out=maps.centers[0])
    maps.foreground[:, cells] = 0
    maps.foreground[kind, cells] = 1
    maps.offsets[0, cells] = (center[0] - rows)[:, None].expand(cells.shape)[cells]
    maps.offsets[1, cells] = (center[1] - columns).expand(cells.shape)[cells]
    maps.inside[cells] = True


def center_loss(logits: Tensor, wanted: Maps) -> Tensor:
    """Return the focal loss of the heat maps (N, 1, h, w), divided by the number of centres."""
    is_center = wanted.centers == 1
    p = logits.sigmoid()
    hit = (1 - p) ** HARD * F.logsigmoid(logits) * is_center
    miss = (1 - wanted.centers) ** NEAR * p**HARD * F.logsigmoid(-logits) * ~is_center
    return -((hit + miss) * wanted.judged.unsqueeze(1)).sum() / is_center.sum().clamp(min=1)


def offset_loss(offsets: Tensor, wanted: Maps) -> Tensor:
    """Return the mean distance |dy| + |dx| in pixels of the canvas, over the cells of objects."""
    counted = wanted.inside & wanted.judged
    distance = (offsets - wanted.offsets).abs().sum(1)
    return (distance * counted).sum() / counted.sum().clamp(min=1)


def foreground_loss(logits: Tensor, wanted: Maps) -> Tensor:
    """Return the mean binary cross-entropy over judged cells and classes."""
    each = F.binary_cross_entropy_with_logits(logits, wanted.foreground, reduction="none")
    return (each * wanted.judged.unsqueeze(1)).sum() / (wanted.judged.sum() * logits.shape[1]).clamp(min=1)
