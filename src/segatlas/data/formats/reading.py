"""From the bytes of an image file to its stored samples: the one place where the kind of file is decided.

The content decides, not the ending. Kinds that are not read are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segatlas.data.formats.bmp import is_plain_bmp, read_bmp
from segatlas.data.formats.guards import (
    NotReadError,
    check_file,
    check_pixels,
    decoding,
    is_volume_name,
    open_image,
)
from segatlas.data.formats.jpeg import is_jpeg, read_frame, read_jpeg
from segatlas.data.formats.nifti import read_header
from segatlas.data.formats.png import is_png, orientation_of, read_chunks, read_header_chunks, read_png
from segatlas.data.formats.pnm import MOST_HEADER_BYTES, is_pnm, pnm_header, read_pnm
from segatlas.data.formats.simple import FORMATS, is_lossy_webp, read_simple
from segatlas.data.formats.stored import Stored
from segatlas.data.formats.tiff import is_tiff, open_tiff, read_tiff
from segatlas.errors import DataError

_BEGIN = 16
"""Bytes that tell the kind of a file."""


def read_stored(data: bytes, name: str | Path, max_pixels: int | None = None) -> Stored:
    """Decode the stored samples of an image file, upright.

    Args:
        data: content of the file.
        name: what messages call it.
        max_pixels: refuse larger ones, before anything is allocated; default SEGATLAS_MAX_PIXELS, else MAX_PIXELS.

    Raises:
        DataError: damaged, incomplete, too large, or of a kind that is not read; it says which.
    """
    if is_volume_name(name):
        raise DataError("is a volume, no image: `segatlas predict` takes it, and data.name=lits reads its slices", name)
    if is_tiff(data):
        with open_tiff(data, name, max_pixels) as (tiff, layout):
            return read_tiff(tiff, layout, data)
    with decoding(name):
        if is_png(data):
            png = read_chunks(data)
            check_pixels(png.height, png.width, png.samples, name, max_pixels)
            return read_png(png)
        if is_pnm(data):
            kind, width, height, *_ = pnm_header(data)
            check_pixels(height, width, 3 if kind in (3, 6) else 1, name, max_pixels)
            return read_pnm(data)
        frame = read_frame(data) if is_jpeg(data) else None
        with open_image(data, name, max_pixels) as image:
            if frame is not None:
                return read_jpeg(data, frame)
            if is_plain_bmp(data):
                return read_bmp(data)
            if image.format not in FORMATS:
                raise NotReadError(f"is a {image.format} file, which is not read; save it as PNG or TIFF")
            return read_simple(image, data)


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What headers say: upright size in pixels, channels without alpha, EXIF orientation, whether compressed with loss.

    depth: type of the image's values, uint8, uint16 or float32. most_channels: those with alpha, where the file (or its
    palette) can give it.
    """

    height: int
    width: int
    channels: int
    depth: str = "uint8"
    orientation: int = 1
    lossy: bool = False
    most_channels: int = 0

    def channels_as(self, wanted: int | None) -> int:
        """Return the channels of the image where `wanted` are asked for: with alpha if it is just that many."""
        return self.most_channels if wanted is not None and wanted == self.most_channels else self.channels


def read_shape(path: str | Path, max_pixels: int | None = None) -> ImageHeader:
    """Return what the headers of an image file say; pixels are not read.

    Raises:
        DataError: as `read_stored`, where the headers tell.
    """
    if is_volume_name(path):
        height, width = read_header(path).size(2)
        return ImageHeader(height=height, width=width, channels=3, depth="float32", most_channels=3)  # of a slice
    path = check_file(path)
    with decoding(path):
        with path.open("rb") as stream:
            begin = stream.read(_BEGIN)
            if is_pnm(begin):
                begin += stream.read(MOST_HEADER_BYTES - _BEGIN)
            is_lossy = is_jpeg(begin) or is_lossy_webp(stream)
        if is_tiff(begin):
            with open_tiff(path, path, max_pixels) as (_, layout):
                height, width = layout.size
                return ImageHeader(
                    height=height,
                    width=width,
                    channels=layout.channels,
                    depth=layout.depth,
                    orientation=layout.orientation,
                    lossy=layout.lossy,
                    most_channels=4 if layout.color == "palette" else layout.channels + layout.alpha,
                )
        if is_png(begin):
            png = read_header_chunks(path)
            check_pixels(png.height, png.width, png.samples, path, max_pixels)
            depth = "uint16" if png.depth == 16 else "uint8"
            most = 4 if png.color_type == 3 else png.samples
            return _turned(png.height, png.width, png.channels, png.orientation, depth=depth, most_channels=most)
        if is_pnm(begin):
            kind, width, height, largest, _ = pnm_header(begin)
            channels = 3 if kind in (3, 6) else 1
            check_pixels(height, width, channels, path, max_pixels)
            return ImageHeader(
                height=height, width=width, channels=channels, depth="uint8" if largest < 256 else "uint16"
            )
        with open_image(path, path, max_pixels) as image:
            if not is_jpeg(begin) and image.format not in FORMATS:
                raise NotReadError(f"is a {image.format} file, which is not read; save it as PNG or TIFF")
            channels = 1 if image.mode in ("1", "L", "LA") else 3
            most = {"LA": 2, "RGBA": 4, "P": 4, "PA": 4}.get(image.mode, channels)
            height, width, orientation = image.height, image.width, orientation_of(image)
            return _turned(height, width, channels, orientation, lossy=is_lossy, most_channels=most)


def _turned(
    height: int,
    width: int,
    channels: int,
    orientation: int,
    *,
    depth: str = "uint8",
    lossy: bool = False,
    most_channels: int,
) -> ImageHeader:
    if orientation >= 5:
        height, width = width, height
    return ImageHeader(
        height=height,
        width=width,
        channels=channels,
        depth=depth,
        orientation=orientation,
        lossy=lossy,
        most_channels=most_channels,
    )
