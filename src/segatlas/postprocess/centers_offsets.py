"""From centres, offsets and foreground to objects.

Letters: N batch, K classes, H W result, h w network output, P foreground pixels, M objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.config.objects import ObjectRule
from segatlas.errors import TaskError
from segatlas.ops import upsample_logits
from segatlas.postprocess.segments_of_centers import panoptic_results
from segatlas.postprocess.selecting import selected
from segatlas.structures import CentersAndOffsets, Instance, Result

LEAST_CENTER = 0.1
"""A peak of the heat map counts as a centre from this probability on."""

MOST_OBJECTS = 200
"""Of an image: the highest peaks."""

PIECE = 1 << 16
"""Pixels whose centre is looked for at once."""


def instance(
    output: CentersAndOffsets,
    size: tuple[int, int],
    *,
    crop: tuple[int, int],
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return the objects of each image, by falling score; see `postprocess.Postprocess`. No confidence map is made.

    A pixel is foreground where its best class has a probability above one half; it belongs to the centre that is
    nearest to where it points. An object's class is that of its pixels' mean probability, its score that mean times the
    centre's probability. Of a network with `semantic` it is what `panoptic` gives.
    """
    if output.foreground is None:
        results = panoptic_results(output, size, crop, rule or ObjectRule(), things)
        return [Result(objects=one.objects) for one in results]
    foreground = upsample_logits(output.foreground, size, canvas=output.canvas, crop=crop).sigmoid()
    offsets = upsample_logits(output.offsets, size, canvas=output.canvas, crop=crop)
    scale = (crop[0] / size[0], crop[1] / size[1])
    cell = (output.canvas[0] / output.centers.shape[-2], output.canvas[1] / output.centers.shape[-1])
    return [
        Result(objects=selected(_objects(_peaks(centers, cell, crop), each, ways, scale), rule or ObjectRule()))
        for centers, each, ways in zip(output.centers.sigmoid(), foreground, offsets, strict=True)
    ]


def panoptic(
    output: CentersAndOffsets,
    size: tuple[int, int],
    *,
    crop: tuple[int, int],
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return segments, objects and a class map of each image, see `panoptic_results`.

    Raises:
        TaskError: the network gives foreground and no classes of stuff.
    """
    if output.semantic is None:
        raise TaskError("a network without classes of stuff gives no segments; it can give: instance")
    return panoptic_results(output, size, crop, rule or ObjectRule(), things)


def semantic(
    output: CentersAndOffsets,
    size: tuple[int, int],
    *,
    crop: tuple[int, int],
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return the class map of each image: the best class of each pixel. TaskError as in `panoptic`."""
    results = panoptic(output, size, crop=crop, rule=rule, things=things)
    return [Result(class_map=one.class_map) for one in results]


def _peaks(heat: Tensor, cell: tuple[float, float], crop: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return places (M, 2) in pixels of the canvas and probabilities (M,) of the peaks of a heat map (1, h, w)."""
    best = heat[0]
    is_peak = (best >= LEAST_CENTER) & (best == F.max_pool2d(heat, 5, stride=1, padding=2)[0])
    places = is_peak.nonzero()
    scores = best[is_peak]
    order = scores.argsort(descending=True, stable=True)[:MOST_OBJECTS]
    points = (places[order] + 0.5) * torch.tensor(cell, device=heat.device)
    inside = (points < torch.tensor(crop, device=heat.device)).all(dim=1)
    return points[inside], scores[order][inside]


def _objects(
    peaks: tuple[Tensor, Tensor], foreground: Tensor, offsets: Tensor, scale: tuple[float, float]
) -> list[Instance]:
    """Return the objects of one image from its peaks, (K, H, W) probabilities and (2, H, W) offsets."""
    points, scores = peaks
    is_object = foreground.amax(dim=0) > 0.5
    pixels = is_object.nonzero()
    if not len(points) or not len(pixels):
        return []
    places = (pixels + 0.5) * torch.tensor(scale, device=pixels.device) + offsets[:, is_object].T
    owner = torch.cat([torch.cdist(part, points).argmin(dim=1) for part in places.split(PIECE)])
    sums = foreground.new_zeros((len(points), len(foreground)))
    sums.index_add_(0, owner, foreground[:, is_object].T)
    counts = torch.bincount(owner, minlength=len(points))
    owners = owner.new_full(is_object.shape, -1)
    owners[is_object] = owner
    found = []
    for index in counts.nonzero()[:, 0].tolist():
        mean, kind = (sums[index] / counts[index]).max(dim=0)
        found.append(
            Instance(mask=(owners == index).cpu().numpy(), class_index=int(kind), score=float(mean * scores[index]))
        )
    return found
