"""TIFF beyond what Pillow reads: N bands, 16-bit colour, floats, integers of 32 bits.

Letters: H, W picture, C bands. Bands may be samples of one page (interleaved or planar) or N pages of one band.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segatlas.data.formats.guards import check_pixels, decoding
from segatlas.data.formats.pixels import upright

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PALETTE, _CMYK, _MIN_IS_BLACK = 3, 5, 1  # photometric interpretations of the TIFF 6.0 standard


def is_tiff(begin: bytes) -> bool:
    """Whether a file that begins so is a TIFF or BigTIFF."""
    return begin[:4] in _MAGIC


@contextmanager
def open_tiff(source: bytes | Path, name: str | Path, max_pixels: int | None = None) -> Iterator[TiffFile]:
    """Open a TIFF, header only, and check its size. Inside the block every fault becomes a DataError with `name`."""
    import tifffile

    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with decoding(name), tifffile.TiffFile(stream) as tiff:
        height, width, bands = tiff_shape(tiff)
        check_pixels(height, width, bands, name, max_pixels)
        yield tiff


def tiff_shape(tiff: TiffFile) -> tuple[int, int, int]:
    """Return upright height, upright width and bands (alpha counted) from the header."""
    page = tiff.pages.first
    height, width = page.imagelength, page.imagewidth
    if _orientation(page) >= 5:
        height, width = width, height
    return height, width, page.samplesperpixel * len(tiff.series[0].pages)


def pillow_reads(tiff: TiffFile) -> bool:
    """Whether Pillow reads it whole: one page of 8-bit grey, palette or colour, or of one 16-bit or float band."""
    page = tiff.pages.first
    if len(tiff.pages) != 1 or page.dtype is None:
        return False
    if page.samplesperpixel == 1:
        return page.dtype.name in ("bool", "uint8", "uint16", "float32")
    # A fourth sample that is not declared as alpha is a band, which Pillow would drop.
    declared = page.photometric == _CMYK or bool(page.extrasamples and page.extrasamples[0] != 0)
    return (
        page.dtype == np.uint8
        and page.photometric != _MIN_IS_BLACK
        and (page.samplesperpixel == 3 or (page.samplesperpixel == 4 and declared))
    )


def pillow_channels(tiff: TiffFile) -> int:
    """Return the channels without alpha of a TIFF that Pillow reads."""
    page = tiff.pages.first
    return 3 if page.samplesperpixel > 1 or page.photometric == _PALETTE else 1


def tiff_array(tiff: TiffFile, data: bytes) -> np.ndarray:
    """Return the first series as an upright (H, W, C) array of its own type; ValueError where that has no meaning."""
    series, page = tiff.series[0], tiff.pages.first
    try:
        array, axes = series.asarray(), series.axes
    except ValueError as error:
        if "imagecodecs" not in str(error) or len(tiff.pages) != 1:
            raise
        array, axes = _decode_compressed(data), "YXS"
    bands = [i for i, axis in enumerate(axes) if axis not in "YX" and array.shape[i] > 1]
    if len(bands) > 1:
        raise ValueError(f"axes {axes} of shape {array.shape}: more than one axis besides height and width")
    height, width = array.shape[axes.index("Y")], array.shape[axes.index("X")]
    order = [axes.index("Y"), axes.index("X"), *bands]
    rest = [i for i in range(array.ndim) if i not in order]
    array = array.transpose(order + rest).reshape(height, width, -1)
    return upright(array.astype(array.dtype.newbyteorder("="), copy=False), _orientation(page))


def _decode_compressed(data: bytes) -> np.ndarray:
    """Decode with OpenCV what tifffile alone cannot (LZW and the like); up to four bands, (H, W, C)."""
    import cv2

    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None:
        raise ValueError("its compression needs the package imagecodecs")
    return array[..., None] if array.ndim == 2 else array[..., [2, 1, 0, 3][: array.shape[2]]]


def _orientation(page: TiffPage) -> int:
    tag = page.tags.get("Orientation")
    return int(tag.value) if tag is not None else 1
