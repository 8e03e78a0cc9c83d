"""Where every output pixel lies between the samples of a low-resolution map, one axis at a time.

An upsampling from (h, w) logits to an (H, W) image is separable. On each axis a pixel lies between two neighbouring
samples, `low` and `low + 1`, with weight `w` for the second one. Neighbouring pixels between the same two samples form
a *run*: up to `S` pixels, where S is the (rounded up) factor of the upsampling. All fast paths of `ops` work run by
run, because the two samples of a run are fetched once and because slot s of all runs is one long vector, whatever the
factor.

Letters: n samples on the axis, G runs, S slots of a run, `size` output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from segatlas.errors import UsageError

LONGEST_RUN = 64
"""Runs are cut at this length, so that buffers stay small at any factor."""

MODES = ("bilinear", "nearest")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of an upsampling.

    low: (size,) int64, first of the two samples of each output pixel, 0..n-1. The second is min(low + 1, n - 1).
    weight: (size,) weight of the second sample, 0..1.
    before: (size,) bool, pixel lies before the centre of the first sample, whose value it takes.
    """

    samples: int
    low: Tensor
    weight: Tensor
    before: Tensor

    def __len__(self) -> int:
        return len(self.low)

    def part(self, start: int, stop: int) -> Axis:
        """Return the axis of output pixels start..stop - 1 over the same samples."""
        return Axis(
            samples=self.samples,
            low=self.low[start:stop],
            weight=self.weight[start:stop],
            before=self.before[start:stop],
        )

    def reach(self) -> tuple[int, int]:
        """Return the first sample that the pixels need, and the one after the last."""
        return int(self.low.min()), min(int(self.low.max()) + 2, self.samples)

    def over(self, first: int, last: int) -> Axis:
        """Return the axis over the samples first..last - 1 alone, counted from `first`."""
        return Axis(samples=last - first, low=self.low - first, weight=self.weight, before=self.before)

    def to(self, device: torch.device) -> Axis:
        """Return the axis with its tensors on `device`."""
        return Axis(
            samples=self.samples, low=self.low.to(device), weight=self.weight.to(device), before=self.before.to(device)
        )

    @property
    def padded(self) -> Tensor:
        """(size,) int64, each pixel's first sample on the axis with one repeated sample at each end; never clamped."""
        return torch.where(self.before, 0, self.low + 1)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The pixels of an axis grouped by the two samples around them.

    first, second: (G,) int64, the samples of each run, 0..n-1; the same one twice where the second has no weight.
    padded: (G,) int64, the first sample's index on the axis padded by one repeated sample at each end; the second
        sample is always the next one there.
    weight: (S, G) weight of the second sample; pixel: (S, G) int64 output index. Slots past the end of a short run
        repeat its last pixel and are marked in filler (S, G).
    consecutive: `padded` counts up by one, so that all first and all second samples are plain slices.
    """

    samples: int
    size: int
    first: Tensor
    second: Tensor
    padded: Tensor
    weight: Tensor
    pixel: Tensor
    filler: Tensor
    consecutive: bool

    @property
    def slots(self) -> int:
        """Return S, the length of the longest run."""
        return self.weight.shape[0]

    @cached_property
    def regular(self) -> bool:
        """Return whether all runs but the first and the last have S pixels."""
        return not bool(self.filler[:, 1:-1].any())

    @cached_property
    def kept(self) -> Tensor:
        """Return (S, G) int8, 0 for fillers and 1 for pixels."""
        return self.filler.logical_not().view(torch.int8)

    @cached_property
    def places(self) -> list[int]:
        """Return `padded` as a list, whose numbers cost no look at a tensor."""
        numbers: list[int] = self.padded.tolist()
        return numbers

    @cached_property
    def starts(self) -> list[int]:
        """Return the first pixel of each run, and the number of pixels as that of the run after the last."""
        return [*self.pixel[0].tolist(), self.size]

    @property
    def are_samples(self) -> bool:
        """Return whether the pixels are the first `size` samples themselves."""
        return self.slots == 1 and self.consecutive and int(self.padded[0]) == 1 and not self.weight.any()

    def __len__(self) -> int:
        return len(self.first)


def check_axis(
    samples: int, size: int, *, canvas: int | None = None, crop: int | None = None, mode: str = "bilinear"
) -> tuple[int, int]:
    """Return canvas and crop with their defaults. Arguments and errors are those of `make_axis`."""
    canvas = size if canvas is None else canvas
    crop = min(size, canvas) if crop is None else crop
    if mode not in MODES:
        raise UsageError(f"unknown resample mode {mode!r}; expected one of: {', '.join(MODES)}")
    if min(samples, size, crop) < 1 or crop > canvas:
        raise UsageError(f"cannot raise {samples} samples to {size} pixels: crop {crop} of a canvas of {canvas}")
    return canvas, crop


def make_axis(
    samples: int,
    size: int,
    *,
    canvas: int | None = None,
    crop: int | None = None,
    align_corners: bool = False,
    mode: str = "bilinear",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Axis:
    """Compose output pixel -> cropped canvas -> canvas -> samples into one map, with torch's own rounding.

    Args:
        samples: n, samples on this axis.
        size: output pixels.
        canvas: pixels that the samples cover; default `size`.
        crop: leading pixels of the canvas that are image, not padding; they are stretched to `size`. Default: `size`
            where it fits on the canvas, else the whole canvas.
        align_corners: whether the centres of the corner samples are the centres of the corner pixels.
        mode: "bilinear" or "nearest".
        dtype: of the weights.
        device: of the index tensors.

    Raises:
        UsageError: unknown mode, or crop larger than canvas.
    """
    canvas, crop = check_axis(samples, size, canvas=canvas, crop=crop, mode=mode)
    # Coordinates are computed on the CPU: tiny, and equal on every device.
    pixel = torch.arange(size, dtype=dtype)
    if mode == "nearest":
        low = (pixel * _scalar(samples * crop, canvas * size, dtype)).long().clamp_(max=samples - 1)
        weight, before = torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=torch.bool)
    else:
        source = _source(pixel, samples, size, canvas, crop, align_corners)
        before = source < 0
        source.clamp_(min=0)
        low = source.long().clamp_(max=samples - 1)
        weight = (source - low).clamp_(0, 1)
    return Axis(samples=samples, low=low.to(device), weight=weight.to(device), before=before.to(device))


def make_runs(axis: Axis) -> Runs:
    """Group the pixels of an axis by the two samples around them."""
    weight = axis.weight.cpu()
    key = axis.padded.cpu()
    _, lengths = torch.unique_consecutive(key, return_counts=True)
    starts, lengths = _cut(lengths)
    slots = int(lengths.max())
    offset = torch.arange(slots).unsqueeze(1)
    pixel = starts + torch.minimum(offset, lengths - 1)
    padded = key[starts]
    weights = weight[pixel]
    weightless = (weights == 0).all(0)
    device = axis.low.device
    return Runs(
        samples=axis.samples,
        size=len(axis),
        first=(padded - 1).clamp_(min=0).to(device),
        second=(padded - weightless.long()).clamp_(0, axis.samples - 1).to(device),
        padded=padded.to(device),
        weight=weights.to(device),
        pixel=pixel.to(device),
        filler=(offset >= lengths).to(device),
        consecutive=bool((padded.diff() == 1).all()),
    )


def _source(pixel: Tensor, samples: int, size: int, canvas: int, crop: int, align_corners: bool) -> Tensor:
    """Return the coordinate of each output pixel in samples, before clamping at zero."""
    if align_corners:
        stretch = (crop - 1) / (size - 1) if size > 1 else 0.0
        if size == crop:
            stretch = 1.0
        step = (samples - 1) / (canvas - 1) if canvas > 1 else 0.0
        return pixel * _scalar(stretch * step, 1, pixel.dtype)
    source = _scalar(samples * crop, canvas * size, pixel.dtype) * (pixel + 0.5) - 0.5
    if crop < canvas:  # the last pixel centre of the image, so that no padding is mixed in
        last = _scalar(samples, canvas, pixel.dtype) * (crop - 0.5) - 0.5
        source = torch.where(source > last, last, source)
    return source


def _scalar(numerator: float, denominator: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(numerator / denominator, dtype=torch.float64).to(dtype)


def _cut(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return starts and lengths of the runs, none longer than LONGEST_RUN."""
    pieces = (lengths + LONGEST_RUN - 1) // LONGEST_RUN
    owner = torch.repeat_interleave(torch.arange(len(lengths)), pieces)
    within = torch.arange(len(owner)) - (pieces.cumsum(0) - pieces)[owner]
    starts = (lengths.cumsum(0) - lengths)[owner] + within * LONGEST_RUN
    return starts, (lengths[owner] - within * LONGEST_RUN).clamp_(max=LONGEST_RUN)
