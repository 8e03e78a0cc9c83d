"""What an image file stores, before anybody says what it means, and the two meanings: codes of a mask, or an image.

Decoders made for looking at images change numbers: they spread 4 bits over 0..255, cut 16 bits down to 8, turn
"min is white" round, replace palette indices by colours. Our readers of PNG, TIFF, JPEG and the rest therefore give the
stored numbers (`Stored`), and only the functions here interpret them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from segatlas.config.plain import NAN_CODE
from segatlas.data.formats.pixels import plain_type
from segatlas.errors import DataError

Color = Literal["grey", "palette", "rgb", "cmyk", "channels"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """The samples of an image file, upright.

    samples: (H, W, C) as stored, in native byte order; alpha, where there is one, is the last channel. color: how the
    file says that they are meant; "channels" are channels without a meaning. largest: full scale of a sample, such as
    15 for 4 bits; 0 where there is none. palette: (N, 4) uint8 RGBA of the indices. inverted: grey whose 0 is white.
    lossy: compressed with loss, so that the samples are not what was once written. orientation: 1..8, by which the
    samples have been turned.
    """

    samples: np.ndarray
    color: Color
    largest: int = 0
    alpha: bool = False
    palette: np.ndarray | None = None
    inverted: bool = False
    lossy: bool = False
    orientation: int = 1

    @property
    def channels(self) -> int:
        """Channels of the image without alpha; a palette has three."""
        return 3 if self.color in ("palette", "cmyk") else self.samples.shape[2] - self.alpha


def image_of(stored: Stored, channels: int | None, name: str | Path) -> np.ndarray:
    """Return the image (H, W, C) uint8, uint16 or float32; alpha only where `channels` asks for just that many.

    Grey and colours of fewer than 8 bits are spread over 0..255, as every viewer does; more bits keep their numbers.
    """
    samples = stored.samples
    if stored.color == "palette":
        return _looked_up(stored, channels == 4, name)
    if stored.color == "cmyk":
        return _without_inks(samples, name)
    if stored.inverted and samples.dtype.kind == "u":
        samples = samples.dtype.type(stored.largest) - samples
    if stored.alpha and channels != samples.shape[2]:
        samples = np.ascontiguousarray(samples[..., :-1])
    if stored.color != "channels" and samples.dtype == np.uint8:
        samples = _spread(samples, stored.largest)
    return np.require(plain_type(samples), requirements=["C", "W"])


def codes_of(stored: Stored, name: str | Path) -> np.ndarray:
    """Return what a mask file holds: (H, W) uint8, uint16 or int32 codes, or (H, W, 3) uint8 colours.

    Palette masks give their indices, grey masks their stored numbers. Colours of more than 8 bits whose three channels
    are equal are grey.

    Raises:
        DataError: samples that are neither codes nor colours of 8 bits.
    """
    samples = stored.samples[..., :-1] if stored.alpha else stored.samples
    if samples.shape[2] == 1:
        return _integers(samples[..., 0], name)
    _refuse_unless_colors(stored, samples, "a mask", name)
    if samples.dtype == np.uint8:
        return np.ascontiguousarray(samples[..., :3])
    if (samples[..., 0] == samples[..., 1]).all() and (samples[..., 0] == samples[..., 2]).all():
        return _integers(samples[..., 0], name)
    raise DataError(
        f"is a colour mask of {samples.dtype} channels, not of class indices; colours are read with 8 bits", name
    )


def colors_of(stored: Stored, name: str | Path) -> np.ndarray:
    """Return the colours of a mask file, (H, W, 3) uint8: palette and grey masks give the colours that they show.

    Raises:
        DataError: numbers of more than 8 bits, or channels that are no colours.
    """
    samples = stored.samples[..., :-1] if stored.alpha else stored.samples
    if stored.color == "palette":
        return _looked_up(stored, False, name)
    if samples.dtype != np.uint8:
        raise DataError(f"is a mask of numbers ({samples.dtype}), not of 8-bit colours: no colour table fits", name)
    if samples.shape[2] == 1:
        return np.repeat(_spread(samples, stored.largest), 3, axis=2)
    _refuse_unless_colors(stored, samples, "a colour mask", name)
    return np.ascontiguousarray(samples[..., :3])


def check_finite(array: np.ndarray, name: str | Path) -> np.ndarray:
    """Return an image (H, W, C) of numbers only. DataError with count and first place of what is NaN or infinite."""
    if array.dtype.kind != "f":
        return array
    bad = ~np.isfinite(array)
    if not bad.any():
        return array
    row, column, channel = (int(i) for i in np.argwhere(bad)[0])
    count, nans = int(bad.any(axis=2).sum()), int(np.isnan(array).sum())
    kind = "NaN" if nans == int(bad.sum()) else "infinite" if nans == 0 else "NaN or infinite"
    raise DataError(
        f"{count} of {bad.shape[0] * bad.shape[1]} pixels are {kind}, the first at row {row}, column {column}, channel "
        f"{channel}; an image needs numbers: write a value of your choice there (and mark the pixels 255 in the mask)",
        name,
    )


def _integers(array: np.ndarray, name: str | Path) -> np.ndarray:
    """Return (H, W) uint8, uint16 or int32 codes, NaN as NAN_CODE."""
    if array.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f":
        array = _whole_numbers(array, name)
    low, high = float(array.min()), float(array.max())
    if low < -(2**31) or high >= 2**31:
        raise DataError(f"holds values {low:.0f}..{high:.0f}, beyond 32 bits", name)
    return array.astype(np.int32)


def _whole_numbers(array: np.ndarray, name: str | Path) -> np.ndarray:
    nan = np.isnan(array)
    values = np.where(nan, 0, array).astype(np.float64)
    bad = values != np.rint(values)
    bad |= np.isinf(values)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{int(bad.sum())} of {bad.size} pixels hold fractions or infinite values, which are not class codes; the "
            f"first is {values[row, column]:g} at row {row}, column {column}",
            name,
        )
    values[nan] = NAN_CODE
    return values


def _refuse_unless_colors(stored: Stored, samples: np.ndarray, kind: str, name: str | Path) -> None:
    is_color = samples.dtype.kind == "u" and stored.color in ("rgb", "channels") and samples.shape[2] in (3, 4)
    if not is_color or (stored.color == "channels" and samples.dtype != np.uint8):
        means = {"cmyk": " of four inks", "grey": " of grey"}.get(stored.color, "")
        raise DataError(f"{samples.shape[2]} channel(s) of {samples.dtype}{means} are not {kind}", name)
    if stored.largest not in (255, 65535):
        raise DataError(f"colours with values to {stored.largest} are not {kind}; save it with 8 bits", name)


def _looked_up(stored: Stored, with_alpha: bool, name: str | Path) -> np.ndarray:
    index, table = stored.samples[..., 0], stored.palette
    assert table is not None  # a palette image has one
    if int(index.max()) >= len(table):
        raise DataError(f"holds palette index {int(index.max())}, but its palette has {len(table)} colours", name)
    found: np.ndarray = table[:, : 4 if with_alpha else 3][index]
    return found


def _spread(samples: np.ndarray, largest: int) -> np.ndarray:
    """Spread uint8 values 0..largest over 0..255."""
    if largest in (0, 255):
        return samples
    table = np.minimum(np.rint(np.arange(256) * (255 / largest)), 255).astype(np.uint8)
    spread: np.ndarray = table[samples]
    return spread


def _without_inks(samples: np.ndarray, name: str | Path) -> np.ndarray:
    """Return RGB of (H, W, 4) cyan, magenta, yellow and black, 0 = no ink, by Pillow's plain formula."""
    if samples.dtype != np.uint8 or samples.shape[2] != 4:
        raise DataError(f"{samples.shape[2]} inks of {samples.dtype} cannot be read; save it as RGB", name)
    from PIL import Image

    return np.array(Image.fromarray(samples, "CMYK").convert("RGB"))
