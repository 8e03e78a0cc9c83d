"""What "the logits of a class" are, for each type of output, so that gradients of their sum over a region can be taken.

| output | the class's logits at a pixel |
|---|---|
| `SemanticLogits` | the class's logit, upsampled as the model upsamples |
| `CentersAndOffsets` | likewise, of its classes of pixels (foreground, or things and stuff) |
| `QueryMasks` | the class's score: the sum over queries of the class's probability times the mask's |
| `DetectedMasks`, things | of each object of the class, inside its mask: log-odds of its score plus the mask's logit |
| `DetectedMasks`, stuff | the logit of the semantic branch |

Outside of its objects a class of things has none. Letters: K classes, h w network output, H W image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.config.objects import ObjectRule
from segatlas.errors import TaskError
from segatlas.ops import upsample_logits
from segatlas.ops.upsampling import upsample_aligned
from segatlas.structures import CentersAndOffsets, DetectedMasks, Output, QueryMasks, SemanticLogits

Size = tuple[int, int]

SUREST = 1e-6
"""Scores are taken to be at least so far from 0 and from 1: their log-odds stay numbers."""


class OutputFrame(NamedTuple):
    """Where an output lies in an image.

    size: (H, W) of the image. crop: (H', W') of the canvas that is image. things: of each class, whether it is one of
    things; () = not said. rule: how objects are made.
    """

    size: Size
    crop: Size
    things: Sequence[bool]
    rule: ObjectRule


def summed_logits(output: Output, kind: int, inside: Tensor, frame: OutputFrame) -> Tensor:
    """Return the logits of a class summed over a region of the first image, a scalar with its gradient.

    Args:
        output: of a network in eval mode.
        kind: the class.
        inside: (H, W) bool, the region.
        frame: where the output lies in the image.

    Raises:
        TaskError: the output has no logits of this class.
    """
    if isinstance(output, DetectedMasks) and not _is_stuff(output, kind, frame.things):
        return _summed_objects(output, kind, inside, frame)
    logits = class_map_logits(output, kind, frame)
    mode, align_corners = output.resample
    whole = upsample_logits(
        logits[:1], frame.size, canvas=output.canvas, crop=frame.crop, align_corners=align_corners, mode=mode
    )
    return whole[0, 0][inside].sum()


def class_map_logits(output: Output, kind: int, frame: OutputFrame) -> Tensor:
    """Return (N, 1, h, w), the logits of a class at the network's stride; TaskError where there are none for pixels."""
    if isinstance(output, SemanticLogits):
        return output.logits[:, kind : kind + 1]
    if isinstance(output, CentersAndOffsets):
        maps = output.foreground if output.semantic is None else output.semantic
        assert maps is not None
        return maps[:, kind : kind + 1]
    if isinstance(output, QueryMasks):
        weights = output.class_logits.softmax(dim=-1)[:, :, kind]
        return torch.einsum("nq,nqhw->nhw", weights, output.mask_logits.sigmoid())[:, None]
    if output.semantic is None or not _is_stuff(output, kind, frame.things):
        raise TaskError(f"{type(output).__name__} gives no logits of class {kind} for each pixel")
    column = stuff_columns(output, frame)[kind]
    return output.semantic[:, column : column + 1]


def stuff_columns(output: DetectedMasks, frame: OutputFrame) -> dict[int, int]:
    """Return class -> channel of the semantic branch, for the classes of stuff; none where there is no branch.

    Raises:
        TaskError: the branch has another number of channels.
    """
    if output.semantic is None:
        return {}
    stuff = [index for index, is_thing in enumerate(frame.things) if not is_thing]
    if output.semantic.shape[1] != len(stuff) + 1:
        raise TaskError(
            f"{output.semantic.shape[1]} semantic logits for {len(stuff)} classes of stuff; expected one more, for all "
            "things"
        )
    first = 1 if frame.rule.other == "first" else 0
    return {kind: first + place for place, kind in enumerate(stuff)}


def _is_stuff(output: DetectedMasks, kind: int, things: Sequence[bool]) -> bool:
    return output.semantic is not None and len(things) > kind and not things[kind]


def _summed_objects(output: DetectedMasks, kind: int, inside: Tensor, frame: OutputFrame) -> Tensor:
    """Return the sum over the objects of a class; 0 without a gradient where there is none in the region."""
    kinds = [index for index, is_thing in enumerate(frame.things) if is_thing]
    label = kinds.index(kind) if output.semantic is not None else kind
    scores, labels = output.scores[0], output.labels[0]
    wanted = ((labels == label) & (scores >= frame.rule.score)).nonzero()[:, 0].tolist()
    total = scores.new_zeros(())
    for index in wanted:
        mask, part = object_logits(output, index, frame)
        there = (mask > 0) & inside[part]
        sure = scores[index].clamp(SUREST, 1 - SUREST).logit()
        total = total + (mask + sure)[there].sum()
    return total


def object_logits(output: DetectedMasks, index: int, frame: OutputFrame) -> tuple[Tensor, tuple[slice, slice]]:
    """Return the mask logits of an object of the first image at its pixels, and the rows and columns that these are."""
    mask, (height, width) = output.mask_logits[0][index], frame.size
    if output.frame == "canvas":
        mode, align_corners = output.resample
        if mode == "aligned":
            mask = upsample_aligned(mask[None, None], output.canvas[0] // len(mask))[0, 0]
        whole = upsample_logits(
            mask[None, None],
            frame.size,
            canvas=output.canvas,
            crop=frame.crop,
            mode="bilinear" if mode == "aligned" else mode,
            align_corners=align_corners,
        )
        return whole[0, 0], (slice(None), slice(None))
    factors = torch.tensor([width / frame.crop[1], height / frame.crop[0]] * 2)
    x0, y0, x1, y1 = (output.boxes[0][index].detach().float().cpu() * factors).tolist()
    left, top = max(int(x0), 0), max(int(y0), 0)
    right, bottom = min(int(-(-x1 // 1)), width), min(int(-(-y1 // 1)), height)
    part = (slice(top, max(bottom, top)), slice(left, max(right, left)))
    if right <= left or bottom <= top or x1 <= x0 or y1 <= y0:
        return mask.new_zeros(part[0].stop - top, part[1].stop - left), part
    x = (torch.arange(left, right, device=mask.device) + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (torch.arange(top, bottom, device=mask.device) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=2)
    placed = F.grid_sample(mask[None, None], grid[None], padding_mode="border", align_corners=False)
    return placed[0, 0], part
