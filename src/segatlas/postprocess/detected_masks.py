"""From boxes with masks to objects, and with semantic logits to segments, in the image's own size.

Letters: D detections, m cells of a mask a side, h w network output, H W result, S semantic classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.config.objects import ObjectRule
from segatlas.errors import DataError, TaskError
from segatlas.ops import class_map, upsample_logits
from segatlas.ops.upsampling import upsample_aligned
from segatlas.postprocess.composing import composed
from segatlas.postprocess.selecting import selected
from segatlas.structures import DetectedMasks, Instance, Result, Rle

Size = tuple[int, int]


def instance(
    output: DetectedMasks,
    size: Size,
    *,
    crop: Size,
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return the objects of each image, by falling score; see `postprocess.Postprocess`. No confidence map is made."""
    return [Result(objects=one) for one in _objects_of(output, size, crop, rule or ObjectRule(), things)]


def semantic(
    output: DetectedMasks,
    size: Size,
    *,
    crop: Size,
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return the class map of each image, that of its segments; see `panoptic`."""
    results = panoptic(output, size, crop=crop, rule=rule, things=things)
    return [Result(class_map=one.class_map) for one in results]


def panoptic(
    output: DetectedMasks,
    size: Size,
    *,
    crop: Size,
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return segments, objects and a class map of each image.

    A pixel's class is that of its segment; where it has none, the best class of stuff.

    Raises:
        TaskError: the network gives no semantic logits, or their number is not that of the classes of stuff.
    """
    rule = rule or ObjectRule()
    if output.semantic is None:
        raise TaskError("a network without semantic logits gives no segments; it can give: instance")
    stuff_classes = [index for index, is_thing in enumerate(things) if not is_thing]
    if output.semantic.shape[1] != len(stuff_classes) + 1:
        raise TaskError(
            f"{output.semantic.shape[1]} semantic logits for {len(stuff_classes)} classes of stuff; expected one more, "
            "for all things"
        )
    other = 0 if rule.other == "first" else len(stuff_classes)
    table = np.insert(np.array(stuff_classes, np.int64), other, len(things))
    dtype = np.uint8 if len(things) <= 255 else np.int32
    mode, align_corners = output.resample
    maps = class_map(
        output.semantic, size, canvas=output.canvas, crop=crop, mode=mode, align_corners=align_corners
    ).cpu()
    found = _objects_of(output, size, crop, rule, things)
    results = []
    for index, (objects, best) in enumerate(zip(found, maps.numpy(), strict=True)):
        stuff = table[best]
        segments = composed(objects, stuff, len(things), rule)
        kinds = np.array([len(things), *(one.class_index for one in segments.segments)])
        classes = kinds[segments.ids]
        lost = classes == len(things)
        if lost.any():
            classes[lost] = _stuff_alone(output, index, other, table, size, crop)[lost] if stuff_classes else 0
        results.append(Result(class_map=classes.astype(dtype), objects=objects, segments=segments))
    return results


def _stuff_alone(
    output: DetectedMasks, index: int, other: int, table: np.ndarray, size: Size, crop: Size
) -> np.ndarray:
    """Return (H, W) the best class of stuff of an image."""
    assert output.semantic is not None
    columns = [column for column in range(output.semantic.shape[1]) if column != other]
    mode, align_corners = output.resample
    logits = output.semantic[index : index + 1, columns]
    best = class_map(logits, size, canvas=output.canvas, crop=crop, mode=mode, align_corners=align_corners)
    whole: np.ndarray = table[np.array(columns)][best[0].cpu().numpy()]
    return whole


def _objects_of(
    output: DetectedMasks, size: Size, crop: Size, rule: ObjectRule, things: Sequence[bool]
) -> list[tuple[Instance, ...]]:
    """Return the objects of each image, by falling score.

    Labels of a network with semantic logits count the classes of things alone.
    """
    kinds = [index for index, is_thing in enumerate(things) if is_thing] if output.semantic is not None else None
    factors = torch.tensor([size[1] / crop[1], size[0] / crop[0]] * 2)
    found = []
    for index, boxes in enumerate(output.boxes):
        if not boxes.isfinite().all() or not output.scores[index].isfinite().all():
            raise DataError(
                "the network gives boxes or scores that are no numbers; its weights or the image are at fault"
            )
        places = boxes.float().cpu() * factors
        masks = output.mask_logits[index].float().cpu()
        pasted = (
            _over_boxes(masks, places, size, rule) if output.frame == "box" else _over(masks, output, size, crop, rule)
        )
        labels = output.labels[index].tolist()
        objects = [
            Instance(
                mask=mask,
                class_index=label if kinds is None else kinds[label],
                score=score,
                box=(top, left, bottom, right),
            )
            for mask, label, score, (left, top, right, bottom) in zip(
                pasted, labels, output.scores[index].tolist(), places.tolist(), strict=True
            )
        ]
        found.append(selected(objects, rule))
    return found


def _over_boxes(masks: Tensor, boxes: Tensor, size: Size, rule: ObjectRule) -> Iterator[Rle]:
    """Yield what masks (D, m, m) over boxes (D, 4) in pixels of the result cover."""
    paste = _at_centres if rule.paste == "grid" else _on_whole_pixels
    for mask, box in zip(masks.sigmoid(), boxes, strict=True):
        part, top, left = paste(mask, box, size)
        yield Rle.placed(_inside(part, rule), size, top, left)


def _over(masks: Tensor, output: DetectedMasks, size: Size, crop: Size, rule: ObjectRule) -> Iterator[Rle]:
    """Yield what masks (D, h, w) over the canvas cover."""
    mode, align_corners = output.resample
    for mask in masks:
        given = mask.sigmoid() if rule.upsampled == "probabilities" else mask
        if mode == "aligned":  # to the canvas by its own rule, from there by the usual one
            given = upsample_aligned(given[None, None], output.canvas[0] // len(given))[0, 0]
        whole = upsample_logits(
            given[None, None],
            size,
            canvas=output.canvas,
            crop=crop,
            mode="bilinear" if mode == "aligned" else mode,
            align_corners=align_corners,
        )[0, 0]
        yield Rle.of(_inside(whole if rule.upsampled == "probabilities" else whole.sigmoid(), rule))


def _inside(probabilities: Tensor, rule: ObjectRule) -> np.ndarray:
    bound = rule.mask_threshold
    inside: np.ndarray = (probabilities > bound if rule.strict else probabilities >= bound).numpy()
    return inside


def _at_centres(mask: Tensor, box: Tensor, size: Size) -> tuple[Tensor, int, int]:
    """Sample a mask (m, m) at the centres of the pixels under its box; also where their part begins."""
    x0, y0, x1, y1 = box.tolist()
    left, top = max(int(np.floor(x0)) - 1, 0), max(int(np.floor(y0)) - 1, 0)
    right, bottom = min(int(np.ceil(x1)) + 1, size[1]), min(int(np.ceil(y1)) + 1, size[0])
    if right <= left or bottom <= top or x1 <= x0 or y1 <= y0:
        return mask.new_zeros(0, 0), 0, 0
    x = (torch.arange(left, right) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(top, bottom) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=2)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0], top, left


def _on_whole_pixels(mask: Tensor, box: Tensor, size: Size) -> tuple[Tensor, int, int]:
    """Resize a mask (m, m), bordered by zeros, to its box made as much larger and cut to whole pixels."""
    side = mask.shape[-1]
    middle, half = (box[2:] + box[:2]) * 0.5, (box[2:] - box[:2]) * 0.5 * ((side + 2) / side)
    x0, y0 = (middle - half).to(torch.int64).tolist()
    x1, y1 = (middle + half).to(torch.int64).tolist()
    sides = (max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1))
    whole = F.interpolate(F.pad(mask, (1, 1, 1, 1))[None, None], size=sides, mode="bilinear", align_corners=False)[0, 0]
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1 + 1, size[0]), min(x1 + 1, size[1])
    if right <= left or bottom <= top:
        return mask.new_zeros(0, 0), 0, 0
    return whole[top - y0 : bottom - y0, left - x0 : right - x0], top, left
