"""Test-time augmentation: the same picture seen several ways, and the mean of the class probabilities.

A view is a resize followed by quarter turns and a left-right flip of the network's input. Each view's logits are raised
to the picture's own size (as published: one bilinear raise), turned back, and put through softmax; the mean over the
views decides. Memory: one (K, H, W) float32 sum and one such map of the current view, whatever the number of views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from segatlas.errors import UsageError

DEFAULT_SCALES = (0.75, 1.0, 1.25)
HELP = "flips, vertical, turns, scales or scales:0.75,1,1.25"


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to see a picture: resized by `scale`, then quarter turns counter-clockwise, then a left-right flip."""

    scale: float = 1.0
    turns: int = 0
    flip: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Return a batch (N, C, H, W) as this view sees it; (N, C, W', H') after an odd number of turns."""
        if self.scale != 1.0:
            size = [max(1, round(side * self.scale)) for side in images.shape[-2:]]
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        images = images.rot90(self.turns, (-2, -1))
        return images.flip(-1) if self.flip else images

    def undo(self, maps: Tensor) -> Tensor:
        """Return maps (N, K, H, W) of this view flipped and turned back; their scale is left alone."""
        maps = maps.flip(-1) if self.flip else maps
        return maps.rot90(-self.turns, (-2, -1))

    def sees(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) under which a map of `size` appears in this view."""
        return (size[1], size[0]) if self.turns % 2 else size


def parse_views(words: str | Sequence[str]) -> tuple[View, ...]:
    """Return the views that words such as "flips,scales:0.75,1.25" stand for; () for none.

    flips adds the left-right mirror, vertical the top-bottom one, turns the four quarter turns, scales the listed
    multiples of the input (exactly those: list 1 to keep the picture itself); several words multiply.

    Raises:
        UsageError: a word that is not known, or a scale that is not a number above 0.
    """
    text = words if isinstance(words, str) else ",".join(words)
    tokens = [token.strip() for token in text.split(",") if token.strip()]
    if not tokens:
        return ()
    poses = {(0, False)}
    scales: list[float] | None = None
    for number, token in enumerate(tokens):
        if token == "flips":
            poses = _times(poses, {(0, False), (0, True)})
        elif token == "vertical":
            poses = _times(poses, {(0, False), (2, True)})
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
        View(scale=scale, turns=turns, flip=flip)
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
    if not 0 < value <= 8:
        raise UsageError(
            f"test-time augmentation: scale {text!r} is not a number above 0 and up to 8, as in scales:0.75,1"
        )
    return value
