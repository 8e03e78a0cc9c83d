"""Compressions of TIFF: what the header tells about depth and loss is what the decoder finds."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fakes import image_files as files
from PIL import Image

from segatlas.data.formats.images import read_image
from segatlas.data.formats.masks import read_mask
from segatlas.data.formats.reading import read_shape
from segatlas.errors import DataError

RNG = np.random.default_rng(3)
NEEDS_EXTRA = pytest.mark.skipif(
    find_spec("imagecodecs") is None, reason="the geo extra (imagecodecs) is not installed"
)
PNG, WEBP, LERC, JPEG2000, JPEGXL, OLD_ZSTD = 34933, 50001, 34887, 34712, 50002, 34926

DTYPES = (np.uint8, np.uint16, np.float32)
CODECS: dict[str, tuple[tuple[type, ...], dict[str, Any], bool]] = {
    "zstd": (DTYPES, {}, True),
    "lerc": (DTYPES, {}, False),
    "png": (DTYPES[:2], {}, True),
    "webp": (DTYPES[:1], {"lossless": True}, True),
    "jpeg2000": (DTYPES[:2], {"reversible": True}, False),
    "jpegxl": (DTYPES, {"lossless": True}, False),
    "jpegxr": (DTYPES, {}, False),
    "pixtiff": (DTYPES, {}, True),
}
"""Codec -> the types that it stores, its options, and whether its files say that nothing was lost."""


def cases() -> list[Any]:
    return [
        pytest.param(codec, dtype, channels, id=f"{codec} {dtype.__name__} {channels}")
        for codec, (dtypes, _, _) in CODECS.items()
        for dtype in dtypes
        for channels in ((3,) if codec == "webp" else (1, 3))
    ]


@NEEDS_EXTRA
@pytest.mark.parametrize(("codec", "dtype", "channels"), cases())
@pytest.mark.parametrize("tile", [None, (16, 16)], ids=["strips", "tiles"])
def test_header_and_decoder_agree_on_compressions_of_the_geo_extra(tmp_path: Path, codec, dtype, channels, tile):
    array = np.repeat(RNG.integers(0, 200, (33, 40, 1)).astype(dtype), channels, axis=2)
    path, (_, options, is_lossless) = tmp_path / "a.tif", CODECS[codec]
    meaning = "rgb" if channels == 3 else "minisblack"
    samples = array if channels == 3 else array[..., 0]
    tifffile.imwrite(path, samples, compression=codec, compressionargs=options, photometric=meaning, tile=tile)
    shape, found = read_shape(path), read_image(path)
    assert np.array_equal(found, array)
    assert (shape.depth, shape.channels, shape.lossy) == (found.dtype.name, channels, not is_lossless)
    if dtype == np.float32 and channels == 3:
        return
    assert np.array_equal(read_mask(path, lossy=not is_lossless), array[..., 0])
    if not is_lossless:
        with pytest.raises(DataError, match="compressed with loss"):
            read_mask(path)


def one_page(codec: int, bits: int, parts: list[bytes] | None = None, channels: int = 1) -> bytes:
    dtype = np.uint8 if bits == 8 else np.uint16 if bits == 16 else np.float32
    samples = np.zeros((6, 9, channels), dtype)
    kind, meaning = (3 if bits == 32 else 1), (2 if channels == 3 else 1)
    options: dict[str, Any] = {"sample_format": kind, "photometric": meaning, "tags": {259: (3, [codec])}}
    tags, strips = files.directory(samples, bits, **options)
    return files.tiff((tags, parts or strips))


@pytest.mark.parametrize("codec", [PNG, LERC, JPEG2000, JPEGXL, OLD_ZSTD])
@pytest.mark.parametrize(("bits", "depth"), [(8, "uint8"), (16, "uint16"), (32, "float32")])
def test_the_header_tells_depth_and_loss_without_the_decoder_of_a_compression(tmp_path: Path, codec, bits, depth):
    (tmp_path / "a.tif").write_bytes(one_page(codec, bits))
    shape = read_shape(tmp_path / "a.tif")
    assert (shape.depth, shape.lossy) == (depth, codec not in (PNG, OLD_ZSTD))


@pytest.mark.parametrize("lossless", [True, False])
def test_the_parts_of_a_tiff_with_webp_tell_whether_one_of_them_has_lost_something(tmp_path: Path, lossless: bool):
    parts = []
    for is_exact in (True, lossless):
        stream = io.BytesIO()
        Image.fromarray(RNG.integers(0, 256, (3, 9, 3), np.uint8)).save(stream, "WEBP", lossless=is_exact)
        parts.append(stream.getvalue())
    (tmp_path / "a.tif").write_bytes(one_page(WEBP, 8, parts, channels=3))
    assert read_shape(tmp_path / "a.tif").lossy is not lossless


def test_a_stack_of_pages_is_lossy_where_one_page_is(tmp_path: Path):
    samples = np.zeros((6, 9, 1), np.uint8)
    plain = files.directory(samples, 8)
    other = files.directory(samples, 8, tags={259: (3, [LERC])})
    for pages, lossy in (((plain, plain), False), ((plain, other), True)):
        (tmp_path / "a.tif").write_bytes(files.tiff(*pages))
        assert read_shape(tmp_path / "a.tif").lossy is lossy
