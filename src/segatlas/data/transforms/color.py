"""Colour of a training sample: linear changes and normalisation in one 3x4 matrix, and blur.

Brightness, contrast, saturation and hue are all linear in RGB here (hue turns the colour about the grey axis), so that
they and the normalisation are one matrix product per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from segatlas.data.transforms.geometry import Size
from segatlas.data.value_range import full_scale
from segatlas.renamed import old_attribute

Range = tuple[float, float]
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the grey value (ITU-R BT.601)."""
HALF_TURNS = 180
"""OpenCV stores the hue of uint8 images in half degrees."""
PIECE = 1 << 16
"""Values worked on at once, so that intermediate results stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class ColorChange:
    """One drawn change of colour, for values 0..1 (stored value / max_value), applied in the order of the fields.

    brightness: added to every value.
    contrast: factor on every value, as a longer or shorter exposure; black stays black.
    saturation: factor on the distance from the pixel's grey value; three channels only.
    hue: degrees by which the colour turns about the grey axis; three channels only.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def matrix(self, channels: int) -> np.ndarray:
        """Return the (channels, channels + 1) float64 matrix that takes (values, 1) to the changed values."""
        mix = np.eye(channels)
        if channels == 3:
            mix = _hue_matrix(self.hue) @ _saturation_matrix(self.saturation)
        mix = mix * self.contrast
        return np.concatenate([mix, mix.sum(axis=1, keepdims=True) * self.brightness], axis=1)


def _saturation_matrix(factor: float) -> np.ndarray:
    return factor * np.eye(3) + (1 - factor) * np.tile(LUMA, (3, 1))


def _hue_matrix(degrees: float) -> np.ndarray:
    """Return the rotation about the axis (1, 1, 1), by Rodrigues' formula: red goes towards green."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return cos * np.eye(3) + sin * cross + (1 - cos) * np.full((3, 3), 1 / 3)


@dataclass(frozen=True, kw_only=True)
class ColorSteps:
    """Changes of colour one after another, each cut to the values that the image can have: those of MMSegmentation.

    steps: (name, amount) in their order. brightness: shift, as a fraction of max_value. contrast: factor on every
        value. saturation: factor on the S of HSV. hue: whole degrees by which the H of HSV is turned; uint8 images
        store H in steps of two degrees. The last two leave images of other than three channels alone.
    """

    steps: tuple[tuple[str, float], ...]

    def apply(self, image: np.ndarray, max_value: float) -> np.ndarray:
        """Return the changed (H, W, C) image of the same type.

        Args:
            image: uint8, uint16 or float32; values of whole numbers are cut off, not rounded, after each step.
            max_value: stored value that is white, see `full_scale`.
        """
        scale = full_scale(image.dtype.name, max_value)
        for name, amount in self.steps:
            if name in ("brightness", "contrast"):
                gain, shift = (amount, 0.0) if name == "contrast" else (1.0, amount * scale)
                image = _stretched(image, gain, shift, scale)
            elif image.shape[2] == 3:
                image = _in_hsv(image, name, amount, scale)
        return image


def _stretched(values: np.ndarray, gain: float, shift: float, scale: float) -> np.ndarray:
    """Return values * gain + shift, cut to 0..scale and to the type of `values`."""
    if values.dtype == np.uint8:
        table = np.clip(np.arange(256, dtype=np.float32) * gain + shift, 0, min(scale, 255)).astype(np.uint8)
        return cv2.LUT(np.ascontiguousarray(values), table).reshape(values.shape)
    return np.clip(values.astype(np.float32) * np.float32(gain) + np.float32(shift), 0, scale).astype(values.dtype)


def _in_hsv(image: np.ndarray, name: str, amount: float, scale: float) -> np.ndarray:
    """Return the image with another saturation or hue; types other than uint8 are computed in float32."""
    if image.dtype == np.uint8:
        hsv, turn, most = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV), HALF_TURNS, 255.0
    else:
        hsv, turn, most = cv2.cvtColor(image.astype(np.float32) / np.float32(scale), cv2.COLOR_RGB2HSV), 360, 1.0
    if name == "saturation":
        hsv[..., 1] = _stretched(hsv[..., 1], amount, 0.0, most)
    else:
        hsv[..., 0] = np.mod(hsv[..., 0].astype(np.float32) + np.float32(amount * turn / 360), turn)
    changed = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return changed if most > 1 else (changed * np.float32(scale)).astype(image.dtype)


@dataclass(frozen=True, kw_only=True)
class PhotometricSteps:
    """Random changes of brightness, contrast, saturation and hue, each by itself in `probability` of the samples.

    Contrast is the second or the last of the four, each in half of the samples. Other fields as in `Photometric`; hue
    is drawn in steps of two degrees, the largest turn itself only backwards.
    """

    probability: float
    brightness: float
    contrast: Range
    saturation: Range
    hue: float

    def draw(self, generator: np.random.Generator, size: Size) -> ColorSteps | None:
        """Draw the changes, or None for a sample that keeps its colours. `size` does not matter here."""
        half = int(self.hue // 2)
        amounts = {
            "brightness": generator.uniform(-self.brightness, self.brightness),
            "contrast": generator.uniform(*self.contrast),
            "saturation": generator.uniform(*self.saturation),
            "hue": 2.0 * generator.integers(-half, max(half, 1 - half)),
        }
        drawn = dict(zip(amounts, generator.random(len(amounts)) < self.probability, strict=True))
        order = list(amounts)
        if generator.random() < 0.5:
            order.append(order.pop(1))
        steps = tuple((name, float(amounts[name])) for name in order if drawn[name])
        return ColorSteps(steps=steps) if steps else None


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """Random colour change in `probability` of the samples.

    brightness: largest shift each way, as a fraction of max_value. contrast, saturation: ranges of the factors.
    hue: largest turn each way in degrees.
    """

    probability: float
    brightness: float
    contrast: Range
    saturation: Range
    hue: float

    share = old_attribute("share", "probability")

    def draw(self, generator: np.random.Generator, size: Size) -> ColorChange | None:
        """Draw a change, or None for a sample that keeps its colours. `size` does not matter here."""
        if generator.random() >= self.probability:
            return None
        return ColorChange(
            brightness=generator.uniform(-self.brightness, self.brightness),
            contrast=generator.uniform(*self.contrast),
            saturation=generator.uniform(*self.saturation),
            hue=generator.uniform(-self.hue, self.hue),
        )


@dataclass(frozen=True, kw_only=True)
class GaussianBlur:
    """Gaussian blur in `probability` of the samples; sigma in pixels of the final sample, drawn uniformly."""

    probability: float
    sigma: Range

    share = old_attribute("share", "probability")

    def draw(self, generator: np.random.Generator, size: Size) -> float | None:
        """Draw a sigma, or None for a sample that stays sharp. `size` does not matter here."""
        if generator.random() >= self.probability:
            return None
        return generator.uniform(*self.sigma)

    @staticmethod
    def apply(image: np.ndarray, sigma: float) -> np.ndarray:
        """Return the blurred (H, W, C) image of the same type; edges repeat outwards."""
        blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        return blurred.reshape(image.shape)


def normalise(
    image: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    max_value: float,
    change: ColorChange | None = None,
) -> np.ndarray:
    """Return (value / max_value - mean) / std per channel, after an optional colour change.

    Training, evaluation and prediction all come through here, and so `full_scale` decides for all of them what 16-bit
    images are to an 8-bit model. A colour change can lead out of the range of the stored values; its result is clipped
    to 0..max_value, before normalisation. (As normalisation is increasing channel by channel, the clip is done after
    it, at the normalised 0 and max_value.) Without a change nothing is clipped: stored values below 0 or above
    max_value keep their place.

    Args:
        image: (H, W, C) uint8, uint16 or float32.
        mean: C means of values / max_value.
        std: C standard deviations of values / max_value.
        max_value: stored value that becomes 1.0, see `full_scale`.
        change: colour change to apply first; saturation and hue act on three channels only.

    Returns:
        A new contiguous (H, W, C) float32 array.

    Raises:
        ValueError: mean or std do not have one entry a channel.
    """
    channels = image.shape[2]
    if not len(mean) == len(std) == channels:
        raise ValueError(f"normalise: {channels} channels, but {len(mean)} means and {len(std)} standard deviations")
    centre, spread = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    scale = full_scale(image.dtype.name, max_value)
    if change is None:
        return _standardise(image, centre * scale, spread * scale)
    color = change.matrix(channels)
    color[:, :channels] /= scale
    color[:, channels] -= centre
    color /= spread[:, None]
    return _transform(image, color.astype(np.float32), (-centre / spread, (1 - centre) / spread))


def _standardise(image: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return (value - centre) / spread per channel in float32, in this order of operations.

    MMSegmentation's own order: networks that magnify rounding then see the very same image.
    """
    centre, spread = centre.astype(np.float32), spread.astype(np.float32)
    if image.dtype == np.uint8:
        table = (np.arange(256, dtype=np.float32)[:, None] - centre) / spread  # (256, C)
        return cv2.LUT(np.ascontiguousarray(image), table[None]).reshape(image.shape)
    values = image.astype(np.float32)
    values -= centre
    values /= spread
    return values


def _transform(image: np.ndarray, matrix: np.ndarray, clip: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Apply a (C, C + 1) matrix to each pixel and clip channel by channel, a few rows at a time."""
    height, width, channels = image.shape
    out = np.empty(image.shape, np.float32)
    linear = matrix[:, :channels]
    mixes = bool(np.any(linear - np.diag(np.diag(linear))))
    gain, shift = tuple(np.diag(linear).tolist()), tuple(matrix[:, channels].tolist())
    limits = None if clip is None else tuple(_row(tuple(values.tolist()), width) for values in clip)
    rows = min(height, max(1, PIECE // (width * channels)))
    floats = np.empty((rows if mixes else 0, width, channels), np.float32)  # one for all pieces: new memory is slow
    for top in range(0, height, rows):
        source, target = image[top : top + rows], out[top : top + rows]
        flat = target.reshape(len(source), width * channels)
        if mixes:
            np.copyto(floats[: len(source)], source)
            cv2.transform(floats[: len(source)], matrix, dst=target)
        else:
            np.multiply(source.reshape(flat.shape), _row(gain, width), out=flat, dtype=np.float32)
            flat += _row(shift, width)
        if limits is not None:
            np.maximum(flat, limits[0], out=flat)
            np.minimum(flat, limits[1], out=flat)
    return out


@lru_cache(maxsize=64)
def _row(values: tuple[float, ...], width: int) -> np.ndarray:
    """Repeat per-channel values along one row of pixels: long rows are what NumPy is quick at. Not to be written to."""
    return np.tile(np.array(values, np.float32), width)
