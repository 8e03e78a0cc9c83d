"""From classes, centres and offsets to segments (Cheng et al. 2020, "Panoptic-DeepLab", section 3.3).

Letters: K classes, H W result, P pixels of things, M centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.config.objects import ObjectRule
from segatlas.errors import DataError, TaskError
from segatlas.ops import class_map, upsample_logits
from segatlas.ops.nearest import nearest
from segatlas.postprocess.composing import box_of
from segatlas.postprocess.selecting import selected
from segatlas.structures import CentersAndOffsets, Instance, Panoptic, Result, Rle, Segment

FEW = 0.1
"""Up to this fraction of pixels above the bound, each is compared with its neighbours by itself."""


class Groups(NamedTuple):
    """Pixels by the centre that they point at.

    ids: (H, W) int32, 0 = no thing, else 1 + the row of its thing. classes: (G,) int64 of each thing. areas: (G,) int64
    pixels. centers: (M, 2) int64, row and column of each centre; those that no pixel points at are no things. pixels:
    (2, P) int64, rows and columns of the pixels of things. owners: (P,) int64, the row of the thing of each.
    """

    ids: Tensor
    classes: Tensor
    areas: Tensor
    centers: Tensor
    pixels: Tensor
    owners: Tensor

    def lines(self) -> tuple[Tensor, Tensor]:
        """Return how many pixels of each thing lie in each row (G, H) and column (G, W)."""
        rows, columns = (
            torch.bincount(self.owners * length + places, minlength=len(self.areas) * length).view(-1, length)
            for places, length in zip(self.pixels, self.ids.shape, strict=True)
        )
        return rows, columns


def panoptic_results(
    output: CentersAndOffsets, size: tuple[int, int], crop: tuple[int, int], rule: ObjectRule, things: Sequence[bool]
) -> list[Result]:
    """Return segments, objects and a class map of each image; arguments as for `postprocess.Postprocess`.

    A pixel's class in the class map is the best one, before objects are told apart. A thing's score is the mean
    probability of its class over its pixels, read at the network's own cells, times the heat map's value at the mean of
    these pixels; at least 0 and at most 1.

    Raises:
        TaskError: it is not said of each class whether it is one of things.
        DataError: the maps hold no numbers.
    """
    semantic, align = output.semantic, output.resample.align_corners
    assert semantic is not None
    if len(things) != semantic.shape[1]:
        raise TaskError(f"{semantic.shape[1]} classes, but {len(things)} flags that say which of them are things")
    if not (output.centers.isfinite().all() and output.offsets.isfinite().all()):
        raise DataError(
            "the network gives centres or offsets that are no numbers; its weights or the image are at fault"
        )
    labels = class_map(semantic, size, canvas=output.canvas, crop=crop, align_corners=align)
    heat = upsample_logits(output.centers, size, canvas=output.canvas, crop=crop, align_corners=align)
    offsets = upsample_logits(output.offsets, size, canvas=output.canvas, crop=crop, align_corners=align)
    if crop != tuple(size):
        offsets = offsets * offsets.new_tensor([size[0] / crop[0], size[1] / crop[1]]).view(1, 2, 1, 1)
    results = []
    for index in range(len(labels)):
        groups = grouped(labels[index], heat[index, 0], offsets[index], rule, things)
        lines = groups.lines()
        scores = _scores(output, index, groups, lines, heat[index, 0], crop)
        results.append(_result(labels[index], groups, lines, scores, rule, things))
    return results


def grouped(labels: Tensor, heat: Tensor, offsets: Tensor, rule: ObjectRule, things: Sequence[bool]) -> Groups:
    """Tell the things of an image apart.

    Args:
        labels: (H, W) class of each pixel.
        heat: (H, W) heat map of centres.
        offsets: (2, H, W) rows down and columns right to the centre of the thing at each pixel.
        rule: the part on centres is used.
        things: of each class, whether it is one of things.
    """
    centers = peaks(heat, rule)
    width = labels.shape[1]
    ids = torch.zeros(labels.shape, dtype=torch.int32, device=labels.device)
    flat = _are_things(labels, things).flatten().nonzero()[:, 0]
    if not len(centers) or not len(flat):
        none = flat.new_zeros(0)
        return Groups(ids, none, none, centers, none.view(2, 0), none)
    pixels = torch.stack([torch.div(flat, width, rounding_mode="floor"), flat % width])
    owner = nearest((pixels + offsets.flatten(1)[:, flat]).T, centers.to(offsets.dtype))
    kinds = labels.flatten()[flat].long()
    votes = torch.bincount(owner * len(things) + kinds, minlength=len(centers) * len(things))
    votes = votes.view(len(centers), len(things))
    areas = votes.sum(dim=1)
    there = areas > 0
    owner = (there.cumsum(0) - 1)[owner]
    ids.view(-1)[flat] = owner.int() + 1
    return Groups(ids, votes.argmax(dim=1)[there], areas[there], centers, pixels, owner)


def _are_things(labels: Tensor, things: Sequence[bool]) -> Tensor:
    """Tell of each pixel of a map of classes (H, W) whether it is of a class of things."""
    found = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    edges = [k for k in range(len(things) + 1) if (k < len(things) and things[k]) != (k > 0 and things[k - 1])]
    for first, behind in zip(edges[::2], edges[1::2], strict=True):  # classes of things that follow one another
        found |= (labels >= first) & (labels < behind)
    return found


def peaks(heat: Tensor, rule: ObjectRule) -> Tensor:
    """Return (M, 2) int64 rows and columns of the centres in a heat map (H, W), in reading order."""
    values = heat.flatten()
    above = (values > rule.center_score).nonzero()[:, 0]
    if not len(above):
        return above.new_zeros((0, 2))
    if len(above) <= FEW * len(values):
        found = above[_is_largest(heat, above, rule)]
    else:
        window = rule.center_window
        largest = F.max_pool2d(heat[None], window, stride=1, padding=window // 2)[0]
        found = above[(values == largest.flatten())[above]]
    if len(found) >= rule.center_top:
        least = values[found].topk(rule.center_top).values[-1]
        found = found[values[found] > least]
    rows = torch.div(found, heat.shape[1], rounding_mode="floor")
    return torch.stack([rows, found - rows * heat.shape[1]], dim=1)


def _is_largest(heat: Tensor, above: Tensor, rule: ObjectRule) -> Tensor:
    """Tell of each of these flat places whether no pixel of the window around it has more; near ones come first."""
    reach = rule.center_window // 2
    padded = F.pad(heat, (reach,) * 4, value=-torch.inf).flatten()
    width = heat.shape[1] + 2 * reach
    rows = torch.div(above, heat.shape[1], rounding_mode="floor")
    places = (rows + reach) * width + above - rows * heat.shape[1] + reach
    alive = torch.arange(len(above), device=above.device)
    steps = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1) if (y, x) != (0, 0)]
    for y, x in sorted(steps, key=lambda step: step[0] ** 2 + step[1] ** 2):
        left = places[alive]
        alive = alive[padded[left + y * width + x] <= padded[left]]
    is_largest = torch.zeros(len(above), dtype=torch.bool, device=above.device)
    is_largest[alive] = True
    return is_largest


def _scores(
    output: CentersAndOffsets,
    index: int,
    groups: Groups,
    lines: tuple[Tensor, Tensor],
    heat: Tensor,
    crop: tuple[int, int],
) -> list[float]:
    """Return the score of each thing, see `panoptic_results`."""
    if not len(groups.areas):
        return []
    assert output.semantic is not None
    logits = output.semantic[index].float()
    cells = torch.zeros_like(groups.owners)
    for places, length, seen, canvas, side in zip(
        groups.pixels, heat.shape, crop, output.canvas, logits.shape[1:], strict=True
    ):
        all_places = torch.arange(length, device=heat.device, dtype=torch.float64)
        cell = ((all_places + 0.5) * (seen / length / canvas * side)).long().clamp(max=side - 1)
        cells = cells * side + cell[places]
    used = torch.zeros(logits[0].numel(), dtype=torch.bool, device=heat.device)
    used[cells] = True
    probabilities = logits.flatten(1)[:, used].softmax(dim=0)
    at = (used.cumsum(0) - 1)[cells]
    sure = probabilities.flatten()[groups.classes[groups.owners] * probabilities.shape[1] + at]
    areas = groups.areas.double()
    mean = torch.bincount(groups.owners, weights=sure.double(), minlength=len(areas)) / areas
    middles = [(line * torch.arange(line.shape[1], device=heat.device)).sum(dim=1).double() / areas for line in lines]
    scores: list[float] = (mean * heat[middles[0].long(), middles[1].long()]).clamp(0, 1).tolist()
    return scores


def _result(
    labels: Tensor,
    groups: Groups,
    lines: tuple[Tensor, Tensor],
    scores: list[float],
    rule: ObjectRule,
    things: Sequence[bool],
) -> Result:
    """Return the result of an image: things by falling score, then stuff by class."""
    classes, given = labels.cpu().numpy(), groups.ids.cpu().numpy()
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    numbers = np.zeros(len(scores), np.int32)
    segments: list[Segment] = []
    objects: list[Instance] = []
    boxes, kinds, areas = _boxes(lines), groups.classes.tolist(), groups.areas.tolist()
    for row in order:
        kind, box = kinds[row], boxes[row]
        numbers[row] = len(segments) + 1
        segments.append(
            Segment(id=len(segments) + 1, class_index=kind, is_thing=True, score=scores[row], area=areas[row], box=box)
        )
        inside = given[box[0] : box[2], box[1] : box[3]] == row + 1
        mask = Rle.placed(inside, (given.shape[0], given.shape[1]), box[0], box[1])
        objects.append(Instance(mask=mask, class_index=kind, score=scores[row]))
    numbers_of_stuff = np.zeros(len(things), np.int32)
    for kind, is_thing in enumerate(things):
        if is_thing:
            continue
        inside = classes == kind
        area = int(np.count_nonzero(inside))
        if area == 0 or area < rule.stuff_area:
            continue
        numbers_of_stuff[kind] = len(segments) + 1
        segments.append(
            Segment(id=len(segments) + 1, class_index=kind, is_thing=False, score=None, area=area, box=box_of(inside))
        )
    ids = numbers_of_stuff[classes]
    rows, columns = groups.pixels.cpu().numpy()
    ids[rows, columns] = numbers[groups.owners.cpu().numpy()]
    found = Panoptic(ids=ids, segments=tuple(segments))
    return Result(class_map=classes, objects=selected(objects, rule), segments=found)


def _boxes(lines: tuple[Tensor, Tensor]) -> list[tuple[int, int, int, int]]:
    """Return (top, left, bottom, right) of things from their pixels in each row and column, see `Groups.lines`."""
    sides = []
    for line in lines:
        there = line.cpu().numpy() > 0
        sides += [there.argmax(axis=1), there.shape[1] - there[:, ::-1].argmax(axis=1)]
    top, bottom, left, right = (side.tolist() for side in sides)
    return [*zip(top, left, bottom, right, strict=True)]
