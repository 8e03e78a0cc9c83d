"""Where the pixels of a training sample come from: geometric records that compose to one placement.

A placement is an affine, or a dense grid where a step bends the image.

Every record is a frozen dataclass with `draw(generator, size) -> Placement`, size = (height, width) of the image so
far. A Placement says which point of the old image each point of the new one shows. Placements compose, so that a
whole chain (resize, jitter, rotate, crop, flip) costs one warp (`segatlas.data.transforms.warp`).

Points are (x, y) on the continuous image: pixel i covers [i, i + 1), its centre is i + 0.5, an image of width W
covers [0, W). In these coordinates a resize is a pure scaling and a flip is x -> W - x, so that flips, quarter turns
and whole-pixel crops stay exact integers in floating point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from segatlas.errors import UsageError

Size = tuple[int, int]
CROP_DRAWS = 10
LATTICE = 48


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """A new image as a view of an old one.

    matrix: (3, 3) float64, takes a homogeneous point (x, y, 1) of the new image to the point of the old one.
    size: (height, width) of the new image.
    grid: (h, w, 2) float64, the point (x, y) of the old image that each pixel centre of the new one shows, where that
        is not what the matrix says. The matrix is then the affine that the grid bends: it tells the scale, and what
        lies beyond the grid, whose bend goes on there as it is at the edge.
    """

    matrix: np.ndarray
    size: Size
    grid: np.ndarray | None = None

    def then(self, step: Placement) -> Placement:
        """Return this placement followed by `step`, which was drawn for an image of this size."""
        matrix = self.matrix @ step.matrix
        if self.grid is None and step.grid is None:
            return Placement(matrix=matrix, size=step.size)
        x, y = np.moveaxis(step.points(), -1, 0)
        return Placement(matrix=matrix, size=step.size, grid=np.stack(self.shown(x, y), axis=-1))

    def points(self) -> np.ndarray:
        """Return the point (x, y) of the old image that each pixel centre of the new one shows, (h, w, 2)."""
        if self.grid is not None:
            return self.grid
        x, y = self._centres()
        return np.stack(np.broadcast_arrays(*self._affine(x, y)), axis=-1)

    def shown(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the points of the old image that points of the new one show; x and y broadcast."""
        along, down = self._affine(x, y)
        if self.grid is None:
            return along, down
        centres = self._affine(*self._centres())
        bends = [self.grid[..., axis] - centres[axis] for axis in (0, 1)]
        return along + _between(bends[0], x, y), down + _between(bends[1], x, y)

    def _affine(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (a, b, c), (d, e, f) = self.matrix[:2]
        return a * x + (b * y + c), d * x + (e * y + f)

    def _centres(self) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self.size[1]) + 0.5, (np.arange(self.size[0]) + 0.5)[:, None]


def _between(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate (h, w) values of pixel centres bilinearly at points; beyond the outermost centres, as at those."""
    height, width = values.shape
    column, row = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
    left, top = np.floor(column).astype(np.intp), np.floor(row).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    column, row = column - left, row - top
    upper = values[top, left] * (1 - column) + values[top, right] * column
    lower = values[bottom, left] * (1 - column) + values[bottom, right] * column
    mixed: np.ndarray = upper * (1 - row) + lower * row
    return mixed


def identity(size: Size) -> Placement:
    """Return the placement that changes nothing."""
    return Placement(matrix=np.eye(3), size=size)


def resized_size(target: str, size: Size) -> Size:
    """Return the (height, width) that `target` asks of an image of `size`.

    Args:
        target: "HxW" exactly; "short:N" or "long:N" makes the shorter or longer side N and keeps the ratio;
            "fit:SHORTxLONG" keeps it too, and is the largest size with sides of at most these two.
        size: (height, width) of the image.

    Raises:
        UsageError: `target` has none of these forms.
    """
    kind, _, number = target.partition(":")
    if kind in ("short", "long") and number.isdecimal() and int(number) > 0:
        side = min(size) if kind == "short" else max(size)
        return _rounded(size[0] * int(number) / side, size[1] * int(number) / side)
    height, _, width = target.removeprefix("fit:").partition("x")
    if kind == "fit" and height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0:
        sides = sorted((int(height), int(width)))
        factor = min(sides[0] / min(size), sides[1] / max(size))
        return _rounded(size[0] * factor, size[1] * factor)
    if height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0:
        return int(height), int(width)
    raise UsageError(f"resize: got {target!r}, expected short:N, long:N, fit:SHORTxLONG or HxW, such as short:512")


def _rounded(height: float, width: float) -> Size:
    return max(1, int(height + 0.5)), max(1, int(width + 0.5))


def _resize(size: Size, new: Size) -> Placement:
    return Placement(matrix=np.diag([size[1] / new[1], size[0] / new[0], 1.0]), size=new)


class Step(Protocol):
    """What every geometric record offers."""

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw the placement for an image of `size` (height, width)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Resize to `target`: "HxW", "short:N", "long:N" or "fit:SHORTxLONG". Draws nothing."""

    target: str

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Return the resize of an image of `size`."""
        return _resize(size, resized_size(self.target, size))


@dataclass(frozen=True, kw_only=True)
class ScaleJitter:
    """Scale both sides by a factor drawn log-uniformly, or uniformly, from `low`..`high`, to whole pixels."""

    low: float
    high: float
    uniform: bool = False

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw a factor."""
        if self.uniform:
            factor = generator.uniform(self.low, self.high)
        else:
            factor = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return _resize(size, _rounded(size[0] * factor, size[1] * factor))


@dataclass(frozen=True, kw_only=True)
class AspectJitter:
    """Stretch width against height by a ratio drawn log-uniformly from 1/(1+amount)..1+amount; the area is kept."""

    amount: float

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw a ratio."""
        limit = math.log1p(self.amount)
        stretch = math.exp(generator.uniform(-limit, limit) / 2)
        return _resize(size, _rounded(size[0] / stretch, size[1] * stretch))


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Rotate about the centre, uniformly up to `degrees` each way; the size is kept, corners are lost or padded."""

    degrees: float

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw an angle; a positive one turns the image counter-clockwise."""
        angle = math.radians(generator.uniform(-self.degrees, self.degrees))
        return rotated(size, angle)


def rotated(size: Size, angle: float) -> Placement:
    """Return the rotation of an image by `angle` radians counter-clockwise about its centre, size kept."""
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = size[1] / 2, size[0] / 2
    matrix = np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0.0, 0.0, 1.0]])
    return Placement(matrix=matrix, size=size)


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Turn by 0, 1, 2 or 3 quarters counter-clockwise, each as likely; odd turns swap height and width."""

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw a number of quarter turns."""
        return turned(size, int(generator.integers(4)))


def turned(size: Size, quarters: int) -> Placement:
    """Return an image of `size` turned by `quarters` quarter turns counter-clockwise, exactly as `np.rot90` does."""
    placement = identity(size)
    for _ in range(quarters % 4):
        height, width = placement.size
        quarter = np.array([[0.0, -1.0, width], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        placement = placement.then(Placement(matrix=quarter, size=(width, height)))
    return placement


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirror left-right in `probability` of the samples."""

    probability: float = 0.5

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw whether to mirror."""
        if generator.random() >= self.probability:
            return identity(size)
        return Placement(matrix=np.array([[-1.0, 0.0, size[1]], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), size=size)


@dataclass(frozen=True, kw_only=True)
class FlipVertical:
    """Mirror upside down in `probability` of the samples."""

    probability: float = 0.5

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw whether to mirror."""
        if generator.random() >= self.probability:
            return identity(size)
        return Placement(matrix=np.array([[1.0, 0.0, 0.0], [0.0, -1.0, size[0]], [0.0, 0.0, 1.0]]), size=size)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Cut `size` (height, width) at a whole-pixel place, each as likely.

    An image smaller than the crop lies whole at a random place in it, or in its top left corner with `pad_end`, and the
    rest is padding. With `class_balance`
    below 1, the place is drawn again (up to 10 times, then the last is kept) while one class covers more than that
    fraction of the labelled pixels in it.
    """

    size: Size
    class_balance: float = 1.0
    pad_end: bool = False

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw a place in an image of `size`."""
        top, left = (self._offset(generator, have, want) for have, want in zip(size, self.size, strict=True))
        return Placement(matrix=np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]]), size=self.size)

    def draw_balanced(self, generator: np.random.Generator, before: Placement, label: np.ndarray | None) -> Placement:
        """Draw a place in the image that `before` makes of a sample, and see to `class_balance`.

        Args:
            generator: the sample's random numbers.
            before: all steps before the crop.
            label: (H, W) uint8 label of the sample before any step, 255 = ignore; None draws once.
        """
        crop = self.draw(generator, before.size)
        if label is None or self.class_balance >= 1:
            return crop
        for _ in range(CROP_DRAWS):
            if largest_class_fraction(label, before.then(crop)) <= self.class_balance:
                break
            crop = self.draw(generator, before.size)
        return crop

    def _offset(self, generator: np.random.Generator, have: int, want: int) -> int:
        spare = max(have - want, 0) if self.pad_end else have - want
        return int(generator.integers(min(0, spare), max(0, spare) + 1))


def on_source_pixels(before: Placement, crop: Placement, source_size: Size) -> Placement:
    """Return `before` followed by a crop; where `before` only resizes, the crop's sides lie on source pixels.

    Each side of the crop that lies within the image moves by at most half a source pixel, so that the sample is a
    plain resize of a window of whole pixels, which costs a third of a warp. A crop without resize does not move.
    """
    matrix = before.matrix
    if before.grid is not None or not np.array_equal(matrix, np.diag(np.diag(matrix))) or matrix.min() < 0:
        return before.then(crop)
    snapped = np.eye(3)
    for axis in (0, 1):
        scale, start = matrix[axis, axis], crop.matrix[axis, 2]
        have, want = before.size[1 - axis], crop.size[1 - axis]
        snapped[axis, axis], snapped[axis, 2] = scale, scale * start
        if want < have:
            length = max(1, round(scale * want))
            snapped[axis, axis] = length / want
            snapped[axis, 2] = min(round(scale * start), source_size[1 - axis] - length)
    return Placement(matrix=snapped, size=crop.size)


def largest_class_fraction(label: np.ndarray, placement: Placement) -> float:
    """Return the fraction of the labelled pixels that the commonest class has in the image that `placement` makes.

    It looks at a lattice of at most 48 x 48 pixels of the new image, not at all of them. Returns 1.0 where no pixel
    is labelled.
    """
    height, width = placement.size
    rows, columns = min(LATTICE, height), min(LATTICE, width)
    y = ((np.arange(rows) + 0.5) * (height / rows))[:, None]
    x = (np.arange(columns) + 0.5) * (width / columns)
    source_x, source_y = placement.shown(x, y)
    inside = (source_x >= 0) & (source_x < label.shape[1]) & (source_y >= 0) & (source_y < label.shape[0])
    values = label[source_y[inside].astype(np.intp), source_x[inside].astype(np.intp)]
    counts = np.bincount(values, minlength=256)[:255]
    total = int(counts.sum())
    return float(counts.max() / total) if total else 1.0


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """All geometric steps of a training sample: those before the crop, the crop, those after it."""

    before: tuple[Step, ...] = field(default=())
    crop: Crop | None = None
    after: tuple[Step, ...] = field(default=())

    def draw(self, generator: np.random.Generator, size: Size, label: np.ndarray | None = None) -> Placement:
        """Draw every step for an image of `size` (height, width) and compose them to one placement.

        `label`, the (H, W) label of the image, is needed only for a crop with a class-balance limit.
        """
        placement = identity(size)
        for step in self.before:
            placement = placement.then(step.draw(generator, placement.size))
        if self.crop is not None:
            crop = self.crop.draw_balanced(generator, placement, label)
            placement = on_source_pixels(placement, crop, size)
        for step in self.after:
            placement = placement.then(step.draw(generator, placement.size))
        return placement
