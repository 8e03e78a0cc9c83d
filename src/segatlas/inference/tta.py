"""Test-time augmentation: the same image seen several ways, and the mean of the class probabilities.

A view is a resize followed by quarter turns and a left-right flip of the network's input. Each view's logits are
upsampled to the image's own size (as published: one bilinear upsampling), turned back, and put through softmax; the
mean over the views decides. With "exp" it is the sum of the exponentials of the logits, see `exponentials`: a view that
is surer weighs more. This is done a chunk of rows at a time, from logits at the
network's stride: those of all views where that is less than the full-size sum, (K, H, W), which is kept otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from segatlas.config.plain import LARGEST_VIEW
from segatlas.errors import UsageError
from segatlas.structures import Inputs, changed

DEFAULT_SCALES = (0.75, 1.0, 1.25)
MOST_EXPONENT = 60.0
HELP = "flips, vertical, turns, scales, scales:0.75,1,1.25 or exp"


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to see an image: resized by `scale`, then quarter turns counter-clockwise, then a left-right flip.

    exponential: views are added by the exponentials of their logits, not by probabilities; the same of all of an image.
    """

    scale: float = 1.0
    turns: int = 0
    flip: bool = False
    exponential: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Return a batch (N, C, H, W) as this view sees it; (N, C, W', H') after an odd number of turns.

        Codes, (N, H, W) of whole numbers, take the nearest value where they are resized.
        """
        if self.scale != 1.0:
            height, width = (max(1, round(side * self.scale)) for side in images.shape[-2:])
            if images.is_floating_point():
                images = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
            else:
                for axis, length in ((-2, height), (-1, width)):
                    places = nearest_places(images.shape[axis], length, 0, length, images.device)
                    images = images.index_select(axis, places)
        images = images.rot90(self.turns, (-2, -1))
        return images.flip(-1) if self.flip else images

    def seen(self, inputs: Tensor | Inputs) -> Tensor | Inputs:
        """Return image and sources as this view sees them."""
        return changed(inputs, self.apply)

    def pose(self) -> tuple[bool, bool, bool]:
        """Return how maps of this view become upright: swap their axes, then reverse the rows, reverse the columns."""
        return {
            0: (False, False, self.flip),
            1: (True, self.flip, True),
            2: (False, True, not self.flip),
            3: (True, not self.flip, False),
        }[self.turns % 4]

    def pose_only(self) -> View:
        """Return the view without its resize."""
        return View(turns=self.turns, flip=self.flip)


UPRIGHT = View()


def nearest_places(before: int, after: int, first: int, stop: int, device: torch.device) -> Tensor:
    """Return which of `before` places lies under the centres of the new places first..stop - 1 of `after`."""
    centres = torch.arange(first, stop, device=device, dtype=torch.float64) + 0.5
    return (centres * (before / after)).long().clamp_(max=before - 1)


class RowSource(Protocol):
    """Logits at the result's size, given out from the top down."""

    def rows(self, first: int, last: int) -> Tensor:
        """Return rows first..last - 1, (N, K, last - first, W)."""
        ...


def mean_of_views(
    views: Iterable[RowSource], count: int, height: int, step: int, *, held: bool, exponential: bool = False
) -> Iterator[Tensor]:
    """Yield the mean of the views' softmax, (N, K, rows, W) for chunks of `step` rows from the top down.

    Args:
        views: logits of each view, all at one size; made when taken.
        count: number of views.
        height: rows in all.
        step: rows of a chunk.
        held: keep all views and make each chunk at once, else the sum over them at full size and one view at a time.
        exponential: views give exponentials already; their sum over its sum over the classes.
    """
    cuts = [(first, min(first + step, height)) for first in range(0, height, step)]

    def votes(view: RowSource, cut: tuple[int, int]) -> Tensor:
        return view.rows(*cut) if exponential else view.rows(*cut).softmax(dim=1)

    def result(total: Tensor) -> Tensor:
        return (total / total.sum(dim=1, keepdim=True)).float() if exponential else total / count

    if held:
        kept = list(views)
        for cut in cuts:
            total = votes(kept[0], cut)
            for view in kept[1:]:
                total += votes(view, cut)
            yield result(total)
        return
    totals: list[Tensor] = []
    for view in views:
        found = (votes(view, cut) for cut in cuts)
        totals = [*found] if not totals else [total.add_(one) for total, one in zip(totals, found, strict=True)]
    for total in totals:
        yield result(total)


def parse_views(words: str | Sequence[str]) -> tuple[View, ...]:
    """Return the views that words such as "flips,scales:0.75,1.25" stand for; () for none.

    flips adds the left-right mirror, vertical the top-bottom one, turns the four quarter turns, scales the listed
    multiples of the input (exactly those: list 1 to keep the image itself); several words multiply. exp adds the views
    by the exponentials of their logits.

    Raises:
        UsageError: a word that is not known, or a scale that is not a number above 0.
    """
    text = words if isinstance(words, str) else ",".join(words)
    tokens = [token.strip() for token in text.split(",") if token.strip()]
    if not tokens:
        return ()
    poses, exponential = {(0, False)}, False
    scales: list[float] | None = None
    for number, token in enumerate(tokens):
        if token == "flips":
            poses = _times(poses, {(0, False), (0, True)})
        elif token == "vertical":
            poses = _times(poses, {(0, False), (2, True)})
        elif token == "exp":
            exponential = True
        elif token == "turns":
            poses = _times(poses, {(turns, False) for turns in range(4)})
        elif token == "scales":
            scales = list(DEFAULT_SCALES)
        elif token.startswith("scales:"):
            scales = [_scale(token.removeprefix("scales:"))]
        elif scales is not None and _continues_scales(tokens[:number]):
            scales.append(_scale(token))
        else:
            raise UsageError(f"test-time augmentation {token!r} is not known; use {HELP}")
    return tuple(
        View(scale=scale, turns=turns, flip=flip, exponential=exponential)
        for scale in dict.fromkeys(scales or (1.0,))
        for turns, flip in sorted(poses)
    )


def _times(first: set[tuple[int, bool]], then: set[tuple[int, bool]]) -> set[tuple[int, bool]]:
    """Return every pose of `first` followed by every pose of `then`; a flip reverses the turns that follow it."""
    return {((a + (-b if mirrored else b)) % 4, mirrored != flip) for a, mirrored in first for b, flip in then}


def _continues_scales(before: Sequence[str]) -> bool:
    """Tell whether the words so far end in a list of scales that a number may go on."""
    for token in reversed(before):
        if token.startswith("scales:"):
            return True
        if token[0].isalpha():
            return False
    return False


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LARGEST_VIEW:
        raise UsageError(
            f"test-time augmentation: scale {text!r} is not a number above 0 and up to {LARGEST_VIEW}, as in "
            "scales:0.75,1"
        )
    return value
