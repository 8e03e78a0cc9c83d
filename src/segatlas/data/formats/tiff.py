"""TIFF: which page is the image, what its samples mean, and who decodes them.

Channels are the samples of one page (interleaved or planar) or N pages of one channel. Overviews, thumbnails and mask
pages are passed over. Samples are decoded by `tiff_pixels`; compressions of images (JPEG) by Pillow, with 8 bits;
others by tifffile where the package imagecodecs is installed.

Letters: H, W image, C channels.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from PIL import Image

from segatlas.data.formats.guards import NotReadError, check_pixels, decoding, open_image
from segatlas.data.formats.pixels import upright
from segatlas.data.formats.simple import is_lossy_webp
from segatlas.data.formats.stored import Color, Stored
from segatlas.data.formats.tiff_pixels import CODECS, page_samples, sample_type, segments

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _MASK, _CMYK, _YCC = 0, 1, 2, 3, 4, 5, 6
_MEANINGS = (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _MASK, _CMYK, _YCC)
_REDUCED, _MASK_PAGE = 1, 4  # bits of NewSubfileType
_JPEG = (6, 7)
_WEBP = (34927, 50001)
_LOSSLESS = (34926, 34933, 50013)  # Zstandard under its older number, PNG, Deflate of PIXTIFF
_ALPHA = (1, 2)
_ORIENTATION, _COLORS = 274, 320
REMEDY = 'pip install "segatlas[geo]"'


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The image of a TIFF file: its pages, one or one a channel, and their number of samples, alpha counted.

    tiled_stack: one directory that stands for a stack of channels stored behind one another (ImageJ, tifffile).
    """

    pages: tuple[TiffPage, ...]
    samples: int
    color: Color
    alpha: bool
    is_stack: bool = False

    @property
    def page(self) -> TiffPage:
        """The first page, whose tags count for all."""
        return self.pages[0]

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1..8."""
        tag = self.page.tags.get(_ORIENTATION)
        value = tag.value if tag is not None else 1
        return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1

    @property
    def channels(self) -> int:
        """Channels of the image without alpha."""
        return 3 if self.color in ("palette", "cmyk") else self.samples - self.alpha

    @property
    def lossy(self) -> bool:
        """Whether samples may not be what was once written: a compression that loses, or may, and chroma."""
        return self.page.photometric == _YCC or any(map(_is_lossy, self.pages))

    @property
    def depth(self) -> str:
        """Type of the image's values; integers with a sign or of 32 bits give uint16 where they fit."""
        is_8_bit = self.color == "palette" or _is_pillows(self.page)
        dtype = np.dtype(np.uint8) if is_8_bit else sample_type(self.page)
        return dtype.name if dtype in (np.uint8, np.uint16) else "float32"

    @property
    def size(self) -> tuple[int, int]:
        """Upright height and width."""
        height, width = self.page.imagelength, self.page.imagewidth
        return (width, height) if self.orientation >= 5 else (height, width)


def is_tiff(begin: bytes) -> bool:
    """Whether a file that begins so is a TIFF or BigTIFF."""
    return begin[:4] in _MAGIC


@contextmanager
def open_tiff(
    source: bytes | Path, name: str | Path, max_pixels: int | None = None
) -> Iterator[tuple[TiffFile, Layout]]:
    """Open a TIFF, headers only, and check its size. Inside the block every fault becomes a DataError with `name`."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what is wrong and goes on: we judge
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with decoding(name), tifffile.TiffFile(stream) as tiff:
        layout = _layout(tiff)
        height, width = layout.size
        check_pixels(height, width, layout.samples, name, max_pixels)
        yield tiff, layout


def read_tiff(tiff: TiffFile, layout: Layout, data: bytes) -> Stored:
    """Decode the samples as they are stored, upright; ValueError where that cannot be done exactly."""
    page, codec = layout.page, int(layout.page.compression)
    if _is_pillows(page):
        return _by_pillow(tiff, layout, data)
    dtype = sample_type(page)
    if layout.is_stack:
        samples = _stack(tiff, layout, data)
    elif codec in CODECS:
        parts = [page_samples(part, data) for part in layout.pages]
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    else:
        samples = _by_imagecodecs(layout, data)
    return Stored(
        samples=upright(samples, layout.orientation),
        color=layout.color,
        largest=2**page.bitspersample - 1 if dtype.kind == "u" and page.bitspersample <= 16 else 0,
        alpha=layout.alpha,
        palette=_palette(page) if layout.color == "palette" else None,
        inverted=page.photometric == _MIN_IS_WHITE and layout.color == "grey",
        lossy=layout.lossy,
        orientation=layout.orientation,
    )


def _is_lossy(page: TiffPage) -> bool:
    """Whether the compression of a page loses, or may: WebP tells; of LERC, JPEG 2000, XL and XR nobody knows."""
    codec = int(page.compression)
    if codec in _WEBP:
        file = cast("BinaryIO", page.parent.filehandle)
        return any(is_lossy_webp(file, offset) for offset in page.dataoffsets)
    return codec not in CODECS and codec not in _LOSSLESS


def _is_pillows(page: TiffPage) -> bool:
    """Whether Pillow decodes a page, with 8 bits a sample."""
    return int(page.compression) in _JPEG or page.photometric == _YCC


def _layout(tiff: TiffFile) -> Layout:
    """Find the image: the pages of full resolution, neither overviews nor masks."""
    pages = _full_pages(tiff)
    page = pages[0]
    meaning = _MIN_IS_BLACK if page.photometric is None else int(page.photometric)
    if meaning not in _MEANINGS:
        raise NotReadError(f"its samples mean {getattr(page.photometric, 'name', meaning)}, which is not read")
    count = page.samplesperpixel
    if min(count, page.imagelength, page.imagewidth) < 1:
        raise ValueError(f"a page of {page.imagewidth} x {page.imagelength} pixels with {count} samples")
    if len(pages) > 1 and count > 1:
        raise NotReadError(f"{len(pages)} pages of {count} channels each; one image is expected")
    if len(pages) > 1:
        return Layout(pages=tuple(pages), samples=len(pages), color="channels", alpha=False)
    stack = _stacked(tiff, page)
    if stack > 1:
        return Layout(pages=(page,), samples=stack, color="channels", alpha=False, is_stack=True)
    extra = tuple(int(value) for value in page.extrasamples or ())
    alpha = bool(extra) and extra[-1] in _ALPHA
    return Layout(pages=(page,), samples=count, **_meaning(meaning, count, alpha))  # type: ignore[arg-type]


def _meaning(photometric: int, count: int, alpha: bool) -> dict[str, object]:
    colors: dict[int, Color] = {_RGB: "rgb", _YCC: "rgb", _CMYK: "cmyk", _PALETTE: "palette"}
    color = colors.get(photometric, "grey")
    own = {"rgb": 3, "cmyk": 4}.get(color, 1)
    if count == own:
        return {"color": color, "alpha": False}
    if count == own + 1 and alpha and color in ("rgb", "grey"):
        return {"color": color, "alpha": True}
    return {"color": "channels", "alpha": False}


def _full_pages(tiff: TiffFile) -> list[TiffPage]:
    main = cast("list[TiffPage]", list(tiff.pages))
    below = _of_full_size(cast("TiffPage", sub) for page in main for sub in page.pages or ())
    # The first page may be a thumbnail that carries the image below it.
    full = _of_full_size(main) or below or main[:1]
    largest = max(full, key=_pixels)
    hidden = max(below, key=_pixels, default=largest)
    if _pixels(hidden) > _pixels(largest):
        raise NotReadError(
            f"a SubIFD holds an image of {hidden.imagewidth} x {hidden.imagelength} pixels, larger than the page of "
            f"{largest.imagewidth} x {largest.imagelength} above it; save the one that is meant as a file of its own"
        )
    alike = [page for page in full if _kind(page) == _kind(largest)]
    for page in full:
        if page in alike:
            continue
        # A smaller page of the same proportions is an overview that nobody marked as one.
        tall, wide = largest.imagelength / page.imagelength, largest.imagewidth / page.imagewidth
        if page.imagelength >= largest.imagelength or not 0.95 < tall / wide < 1.05:
            raise NotReadError(f"{len(full)} pages of different kinds; one image is expected")
    return alike


def _of_full_size(pages: Iterable[TiffPage]) -> list[TiffPage]:
    return [page for page in pages if not page.subfiletype & (_REDUCED | _MASK_PAGE)]


def _pixels(page: TiffPage) -> int:
    return int(page.imagelength * page.imagewidth)


def _kind(page: TiffPage) -> tuple[object, ...]:
    return (page.imagelength, page.imagewidth, page.samplesperpixel, page.bitspersample, page.sampleformat)


def _stacked(tiff: TiffFile, page: TiffPage) -> int:
    """Return how many channels lie behind one another below a single directory; 1 in ordinary files."""
    if not (page.is_shaped or page.is_imagej) or page.compression != 1 or page.samplesperpixel != 1:
        return 1
    series = tiff.series[0]
    rest = [n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YX" and n > 1]
    if len(tiff.pages) > 1 or not rest:
        return 1
    if len(rest) > 1 or series.axes[-2:] != "YX":
        raise NotReadError(f"axes {series.axes} of shape {series.shape}: more than one axis besides height and width")
    return int(rest[0])


def _stack(tiff: TiffFile, layout: Layout, data: bytes) -> np.ndarray:
    page, dtype = layout.page, sample_type(layout.page)
    start, count = page.dataoffsets[0], layout.samples * page.imagelength * page.imagewidth
    if page.bitspersample != 8 * dtype.itemsize or start + count * dtype.itemsize > len(data):
        raise ValueError("truncated: channels of the stack are missing")
    values = np.frombuffer(data, dtype.newbyteorder(tiff.byteorder), count, start)
    values = values.reshape(layout.samples, page.imagelength, page.imagewidth).transpose(1, 2, 0)
    return np.ascontiguousarray(values, dtype=dtype)


def _by_pillow(tiff: TiffFile, layout: Layout, data: bytes) -> Stored:
    """Decode JPEG pages, and luma with chroma, of 8 bits, which come as grey or RGB."""
    page = layout.page
    numbers = [number for number, other in enumerate(tiff.pages) if other is page]
    if not numbers:
        raise NotReadError(
            f"its image lies in a SubIFD with {_codec_name(page)} compression, which is not read; save it as a page"
        )
    if page.bitspersample != 8 or layout.color not in ("grey", "rgb") or layout.alpha:
        raise NotReadError(
            f"{layout.samples} channels of {page.bitspersample} bits, {_codec_name(page)} compression are not read; "
            "save it with Deflate or LZW"
        )
    with open_image(data, "page", max_pixels=2**62) as image:
        image.seek(numbers[0])
        samples = np.array(_plain_mode(image))
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.shape != (page.imagelength, page.imagewidth, layout.samples):
        raise ValueError(f"decoded to the shape {samples.shape}")
    return Stored(
        samples=upright(samples, layout.orientation),
        color=layout.color,
        largest=255,
        lossy=True,
        orientation=layout.orientation,
    )


def _plain_mode(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode not in ("L", "RGB", "YCbCr"):
        raise ValueError(f"samples of the kind {image.mode} are not read")
    return image.convert("RGB") if image.mode == "YCbCr" else image


def _by_imagecodecs(layout: Layout, data: bytes) -> np.ndarray:
    if find_spec("imagecodecs") is None:
        raise NotReadError(
            f"its compression, {_codec_name(layout.page)}, is not read here: {REMEDY}, or save it with Deflate or LZW"
        )
    height, width = layout.page.imagelength, layout.page.imagewidth
    parts = []
    for page in layout.pages:
        segments(page, data)  # the decoder would fill up what is missing
        array = page.asarray()
        is_planar = page.planarconfig == 2 and page.samplesperpixel > 1
        parts.append(np.moveaxis(array, 0, -1) if is_planar else array.reshape(height, width, -1))
    return np.concatenate(parts, axis=2)


def _codec_name(page: TiffPage) -> str:
    return str(getattr(page.compression, "name", page.compression))


def _palette(page: TiffPage) -> np.ndarray:
    tag = page.tags.get(_COLORS)
    colors = np.array(tag.value if tag is not None else [], np.uint16)
    if colors.size != 3 * 2**page.bitspersample:
        raise ValueError("its palette is missing or damaged")
    table = np.full((colors.size // 3, 4), 255, np.uint8)
    has_16_bits = colors.max() > 255  # some writers store colours of 8 bits, as libtiff knows
    table[:, :3] = colors.reshape(3, -1).T >> (8 if has_16_bits else 0)
    return table
