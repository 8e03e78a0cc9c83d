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
    pixels. centers: (M, 2) int64, row and column of each centre; those that no pixel points at are no things.
    """

    ids: Tensor
    classes: Tensor
    areas: Tensor
    centers: Tensor


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
        scores = _scores(output, index, groups, heat[index, 0], crop)
        results.append(_result(labels[index], groups, scores, rule, things))
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
    is_thing = torch.tensor(things, device=labels.device)[labels.int()]
    ids = torch.zeros(labels.shape, dtype=torch.int32, device=labels.device)
    pixels = is_thing.flatten().nonzero()[:, 0]
    if not len(centers) or not len(pixels):
        none = pixels.new_zeros(0)
        return Groups(ids, none, none, centers)
    rows = torch.div(pixels, width, rounding_mode="floor")
    places = torch.stack([rows, pixels - rows * width], dim=1) + offsets.flatten(1)[:, pixels].T
    owner = nearest(places, centers.to(places.dtype))
    kinds = labels.flatten()[pixels].long()
    votes = torch.bincount(owner * len(things) + kinds, minlength=len(centers) * len(things))
    votes = votes.view(len(centers), len(things))
    areas = votes.sum(dim=1)
    there = areas > 0
    numbers = torch.where(there, there.cumsum(0), 0).int()
    ids.view(-1)[pixels] = numbers[owner]
    return Groups(ids, votes.argmax(dim=1)[there], areas[there], centers)


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


def _scores(output: CentersAndOffsets, index: int, groups: Groups, heat: Tensor, crop: tuple[int, int]) -> list[float]:
    """Return the score of each thing, see `panoptic_results`."""
    count = len(groups.areas)
    if not count:
        return []
    assert output.semantic is not None
    probabilities = output.semantic[index].float().softmax(dim=0)
    pixels = groups.ids.flatten().nonzero()[:, 0]
    owner = groups.ids.flatten()[pixels].long() - 1
    rows = torch.div(pixels, heat.shape[1], rounding_mode="floor")
    columns = pixels - rows * heat.shape[1]
    cells = []
    for places, length, seen, canvas, side in zip(
        (rows, columns), heat.shape, crop, output.canvas, probabilities.shape[1:], strict=True
    ):
        cells.append(((places.double() + 0.5) * (seen / length / canvas * side)).long().clamp(max=side - 1))
    of_class = groups.classes[owner]
    sure = probabilities[of_class, cells[0], cells[1]].double()
    areas = groups.areas.double()
    mean = torch.zeros_like(areas).index_add_(0, owner, sure) / areas
    middles = [torch.zeros_like(areas).index_add_(0, owner, at.double()) / areas for at in (rows, columns)]
    scores: list[float] = (mean * heat[middles[0].long(), middles[1].long()]).clamp(0, 1).tolist()
    return scores


def _result(labels: Tensor, groups: Groups, scores: list[float], rule: ObjectRule, things: Sequence[bool]) -> Result:
    """Return the result of an image: things by falling score, then stuff by class."""
    classes, given = labels.cpu().numpy(), groups.ids.cpu().numpy()
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    numbers = np.zeros(len(scores) + 1, np.int32)
    segments: list[Segment] = []
    objects: list[Instance] = []
    boxes = _boxes(given, len(scores))
    for row in order:
        kind, area, box = int(groups.classes[row]), int(groups.areas[row]), boxes[row]
        numbers[row + 1] = len(segments) + 1
        segments.append(
            Segment(id=len(segments) + 1, class_index=kind, is_thing=True, score=scores[row], area=area, box=box)
        )
        inside = given[box[0] : box[2], box[1] : box[3]] == row + 1
        mask = Rle.placed(inside, (given.shape[0], given.shape[1]), box[0], box[1])
        objects.append(Instance(mask=mask, class_index=kind, score=scores[row]))
    ids = numbers[given]
    for kind, is_thing in enumerate(things):
        if is_thing:
            continue
        inside = classes == kind
        area = int(np.count_nonzero(inside))
        if area == 0 or area < rule.stuff_area:
            continue
        ids[inside] = len(segments) + 1
        segments.append(
            Segment(id=len(segments) + 1, class_index=kind, is_thing=False, score=None, area=area, box=box_of(inside))
        )
    found = Panoptic(ids=ids, segments=tuple(segments))
    return Result(class_map=classes, objects=selected(objects, rule), segments=found)


def _boxes(ids: np.ndarray, count: int) -> list[tuple[int, int, int, int]]:
    """Return (top, left, bottom, right) of the numbers 1 to `count`, each of which occurs in a map (H, W)."""
    rows, columns = np.nonzero(ids)
    owner = ids[rows, columns].astype(np.int64) - 1
    sides = []
    for places, length in ((rows, ids.shape[0]), (columns, ids.shape[1])):
        there = np.bincount(owner * length + places, minlength=count * length).reshape(count, length) > 0
        sides += [there.argmax(axis=1), length - there[:, ::-1].argmax(axis=1)]
    top, bottom, left, right = (side.tolist() for side in sides)
    return [*zip(top, left, bottom, right, strict=True)]
