"""What a network that finds objects by their centres should give: maps drawn from the true objects.

Letters: N batch, K classes, H W image, h w network output, M objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.labels import IGNORE
from segatlas.structures import CentersAndOffsets, InstancesTarget, SegmentsTarget

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
    assert output.foreground is not None
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


class SegmentMaps(NamedTuple):
    """What the maps of a network with `semantic` should be for an image (H, W), or, with N in front, for a batch.

    labels: (H, W) uint8 class, 255 where none counts. areas: (H, W) float32 pixels of the thing here, 0 where there is
    none. centers: (H, W) float32, 1 at the centre of a thing, falling to 0 around it. offsets: (2, H, W) float32
    pixels, down and right, to the centre of the thing here. judged: (H, W) bool, neither ignored nor a crowd. inside:
    (H, W) bool, a thing is here that is told apart.
    """

    labels: Tensor
    areas: Tensor
    centers: Tensor
    offsets: Tensor
    judged: Tensor
    inside: Tensor


def maps_of_segments(
    targets: Sequence[SegmentsTarget], device: torch.device, *, spread: float = 8.0, crowds: bool = False
) -> SegmentMaps:
    """Return the maps of these targets of one size (Cheng et al. 2020, sections 3.2 and 3.4).

    Args:
        targets: one an image.
        device: of the maps.
        spread: standard deviation in pixels of the Gaussian around a centre, which ends three of them and a pixel away.
        crowds: the pixels of a crowd have its class in `labels`; else 255.
    """
    maps = [_maps_of(target, device, spread, crowds) for target in targets]
    return SegmentMaps(*(torch.stack(parts) for parts in zip(*maps, strict=True)))


def _maps_of(target: SegmentsTarget, device: torch.device, spread: float, crowds: bool) -> SegmentMaps:
    ids = torch.as_tensor(target.ids, device=device).long()
    classes = torch.as_tensor(target.classes, device=device).long()
    crowd, things = (torch.as_tensor(flags, device=device).bool() for flags in (target.crowd, target.things))
    count, size = len(classes), (ids.shape[0], ids.shape[1])
    at = torch.where(ids < 0, count, ids)  # the last row stands for "ignored"
    numbers = at.flatten()
    areas = torch.bincount(numbers, minlength=count + 1)
    middles = []
    for places in (torch.arange(size[0], device=device)[:, None], torch.arange(size[1], device=device)):
        sums = torch.bincount(numbers, weights=places.expand(size).flatten().double(), minlength=count + 1)
        middles.append(sums / areas.clamp(min=1))
    is_thing, is_crowd = (torch.cat([flags, flags.new_zeros(1)]) for flags in (things, crowd))
    known = torch.cat([classes, classes.new_full((1,), IGNORE)])
    labels = (known if crowds else torch.where(is_crowd, IGNORE, known))[at].to(torch.uint8)
    centers = torch.zeros(size, device=device)
    for index in (is_thing & (areas > 0)).nonzero()[:, 0].tolist():
        _draw_peak(centers, (round(float(middles[0][index])), round(float(middles[1][index]))), spread)
    rows, columns = torch.arange(size[0], device=device)[:, None], torch.arange(size[1], device=device)
    here = is_thing[at]
    offsets = torch.stack([middles[0][at] - rows, middles[1][at] - columns]) * here
    judged = (at < count) & ~is_crowd[at]
    return SegmentMaps(
        labels=labels,
        areas=(areas * is_thing)[at].float(),
        centers=centers,
        offsets=offsets.float(),
        judged=judged,
        inside=here & judged,
    )


def _draw_peak(centers: Tensor, center: tuple[int, int], spread: float) -> None:
    """Draw a Gaussian around a pixel into a map (H, W)."""
    reach = int(3 * spread) + 1
    lines = []
    spans = []
    for middle, length in zip(center, centers.shape, strict=True):
        first, last = max(middle - reach, 0), min(middle + reach + 1, length)
        places = torch.arange(first, last, device=centers.device, dtype=torch.float64) - middle
        lines.append(places**2)
        spans.append(slice(first, last))
    peak = torch.exp(-(lines[0][:, None] + lines[1]) / (2 * spread**2)).float()
    part = centers[spans[0], spans[1]]
    torch.maximum(part, peak, out=part)
