"""What a network that finds objects by their centres should give: maps drawn from the true objects.

Letters: N batch, K classes, h w network output, M objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.structures import CentersAndOffsets, InstancesTarget

SPREAD = 2.0
"""Standard deviation of the Gaussian around a centre, in cells of the network's output."""


class CenterMaps(NamedTuple):
    """What the output should be for an image, or, with N in front, for a batch.

    centers: (1, h, w), 1 at a centre, falling to 0 around it. offsets: (2, h, w) pixels of the canvas, where `inside`.
    foreground: (K, h, w) 0 or 1. inside: (h, w) bool, an object is here. judged: (h, w) bool, no crowd is here.
    """

    centers: Tensor
    offsets: Tensor
    foreground: Tensor
    inside: Tensor
    judged: Tensor


def maps_of_targets(output: CentersAndOffsets, targets: Sequence[InstancesTarget]) -> CenterMaps:
    """Return what the output should be for these targets, one an image; see `maps_of_target`."""
    size = (output.centers.shape[-2], output.centers.shape[-1])
    classes = output.foreground.shape[1]
    maps = [maps_of_target(target, classes, size, output.canvas, output.centers.device) for target in targets]
    return CenterMaps(*(torch.stack(parts) for parts in zip(*maps, strict=True)))


def maps_of_target(
    target: InstancesTarget, classes: int, size: tuple[int, int], canvas: tuple[int, int], device: torch.device
) -> CenterMaps:
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
    maps = CenterMaps(
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


def _draw(maps: CenterMaps, mask: Tensor, cells: Tensor, kind: int, rows: Tensor, columns: Tensor) -> None:
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
