"""Masks of queries at the image's size, without holding all of them: plane by plane, or chunk by chunk of rows.

The published order makes every mask as large as the image first. Here one plane at a time is made by the same steps, so
that its values are the same to the last bit; where all queries of a pixel are needed at once, in class maps, it is a
chunk of rows.

Letters: Q queries, K classes, h w mask logits, H' W' canvas, H W image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segatlas.ops.sampling import make_axis
from segatlas.ops.upsampling import resample, upsample_logits, upsample_rows

Size = tuple[int, int]

PLANE_VALUES = 1 << 20
"""Values of planes that are made at once; one plane is made whole."""

CHUNK_VALUES = 1 << 23
"""Values of a chunk of rows of all queries."""


@dataclass(frozen=True, kw_only=True)
class MaskSteps:
    """How masks of one image get from the network's stride to the image's size.

    first: the size that they have after the first step, None = they keep the network's; the canvas's unless
    `probabilities` go on from there. canvas, crop: (H', W') pixels
    that they cover, and the part of these that is image, not padding. size: of the image. probabilities: the sigmoid
    comes after the first step, not last. align_corners: of the first step.
    """

    first: Size | None
    canvas: Size
    crop: Size
    size: Size
    probabilities: bool = False
    align_corners: bool = False

    def at_first(self, logits: Tensor) -> Tensor:
        """Return masks (Q, h, w) after the first step: logits, or probabilities where these go on."""
        if self.first is not None and self.first != tuple(logits.shape[-2:]):
            logits = interpolate(logits[None], size=self.first, mode="bilinear", align_corners=self.align_corners)[0]
        return logits.sigmoid() if self.probabilities else logits

    def to_image(self, maps: Tensor) -> Tensor:
        """Return maps (C, h, w) as the first step leaves them in the image's size: (C, H, W)."""
        if tuple(maps.shape[-2:]) == self.canvas:
            maps, crop = maps[:, : self.crop[0], : self.crop[1]], self.crop
            if crop == self.size:
                return maps
            return interpolate(maps[None], size=self.size, mode="bilinear", align_corners=False)[0]
        if self.crop == self.canvas:
            return interpolate(maps[None], size=self.size, mode="bilinear", align_corners=False)[0]
        return upsample_logits(maps[None], self.size, canvas=self.canvas, crop=self.crop)[0]

    def probabilities_of(self, logits: Tensor) -> Tensor:
        """Return the probabilities (Q, H, W) of masks (Q, h, w): all of them."""
        whole = self.to_image(self.at_first(logits))
        return whole if self.probabilities else whole.sigmoid()

    def planes(self, logits: Tensor) -> Iterator[Tensor]:
        """Yield the probabilities (H, W) of each of the masks (Q, h, w)."""
        for part in logits.split(max(1, PLANE_VALUES // (self.size[0] * self.size[1]))):
            yield from self.probabilities_of(part)

    def masks(self, logits: Tensor, threshold: float = 0.5) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield of each of the masks (Q, h, w) its bitmap (H, W) and its mean probability inside it, a scalar.

        Inside is what has more than the threshold. Where probabilities go on from the first step, masks are cut there,
        their mean is taken there, and the bitmap takes the nearest value.
        """
        if not len(logits):
            return
        bound = logits.new_tensor(threshold).logit()
        for part in logits.split(max(1, PLANE_VALUES // (self.size[0] * self.size[1]))):
            upsampled = self._upsampled(part) if self.probabilities else self.to_image(self.at_first(part))
            inside = upsampled > bound
            sums = (upsampled.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
            if self.probabilities:
                inside = self._nearest(inside)
            yield from zip(inside, sums, strict=True)

    def _upsampled(self, logits: Tensor) -> Tensor:
        """Return the logits (Q, h, w) after the first step."""
        if self.first is None or self.first == tuple(logits.shape[-2:]):
            return logits
        return interpolate(logits[None], size=self.first, mode="bilinear", align_corners=self.align_corners)[0]

    def _nearest(self, inside: Tensor) -> Tensor:
        """Return bitmaps (Q, h, w) in the image's size: (Q, H, W)."""
        given = inside[None].to(torch.uint8)
        if self.crop == self.canvas:
            return interpolate(given, size=self.size, mode="nearest")[0].bool()
        whole = upsample_logits(given.float(), self.size, canvas=self.canvas, crop=self.crop, mode="nearest")
        return whole[0] > 0.5

    def score_chunks(self, logits: Tensor, weights: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield chunks of the image's rows with the scores of classes: the first row, and (K, rows, W).

        A score is the sum over queries of the class's probability, `weights` (K, Q), times the mask's.
        """
        step = max(1, CHUNK_VALUES // (max(weights.shape) * max(self.size[1], self.canvas[1])))
        for first in range(0, self.size[0], step):
            last = min(first + step, self.size[0])
            if self.probabilities:
                yield first, self._rows(logits, first, last, weights)
            else:
                yield first, _mixed(weights, self._rows(logits, first, last).sigmoid_())

    def _rows(self, logits: Tensor, first: int, last: int, weights: Tensor | None = None) -> Tensor:
        """Return rows of the image, of masks or with `weights` of classes: (Q or K, last - first, W)."""
        if self.crop == self.size:
            return self._rows_of_canvas(logits, first, last, weights)[..., : self.size[1]]
        axis = make_axis(
            self.crop[0],
            self.size[0],
            canvas=self.size[0],
            crop=self.size[0],
            align_corners=False,
            mode="bilinear",
            dtype=logits.dtype,
            device=logits.device,
        ).part(first, last)
        low, high = axis.reach()
        rows = self._rows_of_canvas(logits, low, high, weights)[..., : self.crop[1]]
        chunk = resample(rows[None], 2, axis.over(low, high))
        return interpolate(chunk, size=(last - first, self.size[1]), mode="bilinear", align_corners=False)[0]

    def _rows_of_canvas(self, logits: Tensor, first: int, last: int, weights: Tensor | None) -> Tensor:
        chunk, begin = chunk_of(logits, self.canvas, first, last, self.align_corners)
        if weights is not None:  # before the cut, which would copy
            chunk = _mixed(weights, chunk.sigmoid_())
        return chunk[:, begin : begin + last - first]


def chunk_of(maps: Tensor, size: Size, first: int, last: int, align_corners: bool = False) -> tuple[Tensor, int]:
    """Return some rows, first..last - 1 among them, of maps (Q, h, w) upsampled to `size`, and where that one begins.

    Where `size` is a multiple of theirs, torch's kernel makes them of the samples around, with its own weights. They
    are new and may be changed.
    """
    height = maps.shape[-2]
    factor = size[0] // height
    if align_corners or factor * height != size[0]:
        return upsample_rows(maps[None], size, first, last, align_corners=align_corners)[0], 0
    low, high = max(first // factor - 1, 0), min(-(-last // factor) + 1, height)
    chunk = interpolate(
        maps[None, :, low:high], size=((high - low) * factor, size[1]), mode="bilinear", align_corners=False
    )
    return chunk[0], first - low * factor


def _mixed(weights: Tensor, probabilities: Tensor) -> Tensor:
    """Return (K, ...) sums over queries of weights (K, Q) times probabilities (Q, ...)."""
    mixed: Tensor = weights @ probabilities.flatten(1)
    return mixed.view(-1, *probabilities.shape[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class WonPixels:
    """Which query each pixel belongs to.

    winner: (H, W) index of the query. inside: (H, W) bool, the pixel is in that query's own mask. won, own: (Q,) int64,
    pixels that each query won, and those of its own mask, won or not.
    """

    winner: Tensor
    inside: Tensor
    won: Tensor
    own: Tensor


def won_pixels(logits: Tensor, scores: Tensor, steps: MaskSteps, *, threshold: float, of_product: bool) -> WonPixels:
    """Give each pixel to the query with the highest product of score and mask probability; the first one on ties.

    Args:
        logits: (Q, h, w), Q >= 1, of one image.
        scores: (Q,), probabilities of classes.
        steps: to the image's size.
        threshold: a pixel is in a query's own mask from this probability on.
        of_product: compare the product with it, not the mask's probability.
    """
    count = len(logits)
    winner = torch.zeros(steps.size, dtype=torch.uint8 if count <= 256 else torch.int32, device=logits.device)
    best, inside, own = logits.new_empty(steps.size), torch.empty_like(winner, dtype=torch.bool), []
    for index, plane in enumerate(steps.planes(logits)):
        mask = None if of_product else plane >= threshold
        product = plane * scores[index]
        mask = product >= threshold if mask is None else mask
        own.append(mask.sum())
        if index == 0:
            best.copy_(product)
            inside.copy_(mask)
            continue
        better = product > best
        torch.maximum(best, product, out=best)
        winner.masked_fill_(better, index)
        inside.logical_and_(~better).logical_or_(mask.logical_and_(better))
    won = torch.bincount(winner.flatten(), minlength=count)
    return WonPixels(winner=winner, inside=inside, won=won, own=torch.stack(own))
