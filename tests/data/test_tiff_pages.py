"""Which page of a TIFF is the image, compressions with many channels, and encoding processes of JPEG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from fakes import image_files as files
from PIL import Image

from segatlas.data.formats import read_header
from segatlas.data.formats.images import decode_image, read_image
from segatlas.data.formats.reading import read_shape
from segatlas.data.formats.tiff_pixels import segments
from segatlas.errors import DataError

RNG = np.random.default_rng(9)


def samples(size: tuple[int, int], channels: int, dtype: type = np.uint16) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max, (*size, channels)).astype(dtype)


@pytest.mark.parametrize("channels", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("predictor", [1, 2])
def test_16_bit_lzw_channels_without_a_meaning_stay_as_they_are(tmp_path, channels, planar, predictor):
    array = samples((21, 19), channels)
    page = files.directory(
        array, 16, planar=planar, predictor=predictor, compression=files.LZW, extra_samples=[0] * (channels - 1)
    )
    path = tmp_path / "a.tif"
    path.write_bytes(files.tiff(page))
    assert np.array_equal(read_image(path), array)
    assert read_header(path).channels == channels


@pytest.mark.parametrize("codec", [files.NONE, files.LZW, files.DEFLATE])
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("big", [False, True])
def test_overviews_thumbnails_and_mask_pages_are_passed_over(codec, marked, big):
    full = samples((40, 64), 4)
    pages = [files.directory(full, 16, compression=codec, tile=(16, 16), extra_samples=[0] * 3)]
    for step in (2, 4):
        pages.append(
            files.directory(
                full[::step, ::step], 16, compression=codec, extra_samples=[0] * 3, subfile=1 if marked else 0
            )
        )
    if marked:
        pages.append(files.directory(np.ones((40, 64, 1), np.uint8), 1, photometric=4, subfile=4))
    assert np.array_equal(decode_image(files.tiff(*pages, big=big)), full)
    assert np.array_equal(decode_image(files.tiff(*pages[1:3], pages[0], big=big)), full)


def test_pages_of_one_channel_are_channels_and_other_pages_are_refused():
    channels = samples((9, 11), 3)
    pages = [files.directory(channels[..., i : i + 1], 16) for i in range(3)]
    assert np.array_equal(decode_image(files.tiff(*pages)), channels)
    other = files.directory(samples((9, 30), 1), 16)
    with pytest.raises(DataError, match="pages of different kinds; one image is expected"):
        decode_image(files.tiff(*pages, other))
    color = files.directory(samples((9, 11), 3, np.uint8), 8, photometric=2)
    with pytest.raises(DataError, match="2 pages of 3 channels each; one image is expected"):
        decode_image(files.tiff(color, color))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 9])
def test_header_and_decoder_agree_on_size_channels_depth_and_orientation(tmp_path, ending, mode, orientation):
    if mode == "I;16" and ending in (".jpg", ".webp"):
        pytest.skip("8 bits only")
    array = samples((8, 14), 3, np.uint8)
    array = array[..., 0].astype(np.uint16) * 257 if mode == "I;16" else array[..., 0] if mode == "L" else array
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{ending}"
    Image.fromarray(array).save(path, exif=exif)
    found, shape = read_image(path), read_shape(path)
    assert found.shape == (shape.height, shape.width, shape.channels)
    assert found.shape[:2] == ((14, 8) if orientation == 6 else (8, 14))
    assert found.dtype.name == shape.depth
    assert shape.orientation == (orientation if orientation < 9 else 1)


def test_orientation_behind_the_pixels_of_a_png_counts_for_header_and_decoder(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for color_type, channels in ((0, 1), (2, 3)):
        array = samples((8, 14), channels, np.uint8)
        data = files.png(array, 8, color_type, after=files.chunk(b"eXIf", exif.tobytes()[6:]))
        path = tmp_path / "a.png"
        path.write_bytes(data)
        assert read_image(path).shape == (14, 8, channels)
        header = read_header(path)
        assert (header.height, header.width) == (14, 8)


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(samples((40, 48), 3, np.uint8)).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("marker", "name"), [(0xC3, "lossless"), (0xC9, "arithmetic"), (0xCA, "progressive arithmetic"), (0xC5, "hierarch")]
)
def test_other_coding_processes_of_jpeg_are_refused_by_name(marker, name):
    data = jpeg().replace(b"\xff\xc0", bytes((0xFF, marker)), 1)
    with pytest.raises(DataError, match=rf"is a JPEG of the {name}|a JPEG of the {name}"):
        decode_image(data)


def test_jpeg_of_12_bits_and_scans_of_another_process_are_refused():
    data = bytearray(jpeg())
    place = data.find(b"\xff\xc0")
    data[place + 4] = 12
    with pytest.raises(DataError, match="a JPEG of 12 bits a channel is not read"):
        decode_image(bytes(data))
    with pytest.raises(DataError, match="a scan header that its coding process does not know"):
        decode_image(jpeg().replace(b"\xff\xc0", b"\xff\xc2", 1))


def test_a_progressive_jpeg_without_its_last_scan_is_refused_even_with_an_end():
    data = jpeg(progressive=True)
    assert decode_image(data).shape == (40, 48, 3)
    last = data.rfind(b"\xff\xda")
    with pytest.raises(DataError, match="truncated: scans of"):
        decode_image(data[:last] + b"\xff\xd9")


def test_a_compression_that_needs_the_extra_is_named_with_it_or_read(tmp_path: Path):
    array = samples((9, 11), 1, np.uint8)
    tags, strips = files.directory(array, 8, tags={259: (3, [34887])})
    with pytest.raises(DataError, match=r'LERC, is not read here: pip install "segatlas\[geo\]"|cannot be decoded'):
        decode_image(files.tiff((tags, strips)))


@pytest.mark.parametrize("factor", [1, 257], ids=["8 bits", "16 bits"])
def test_the_colours_of_a_palette_count_whether_they_are_stored_with_8_bits_or_16(tmp_path: Path, factor: int):
    colors = RNG.integers(1, 256, (3, 256)).astype(np.uint16)
    index = RNG.integers(0, 256, (8, 12)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=colors * factor)
    assert np.array_equal(read_image(tmp_path / "a.tif"), colors.T[index])


def test_a_missing_tile_is_told_before_a_decoder_fills_it_up(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 256, (64, 64), np.uint8), tile=(16, 16))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages.first
        page.databytecounts = (0, *page.databytecounts[1:])
        with pytest.raises(ValueError, match="tile 0 of 16 is missing"):
            segments(page, (tmp_path / "a.tif").read_bytes())


FULL = RNG.integers(0, 256, (40, 64, 3), np.uint8)
SMALL, OTHER = FULL[::2, ::2].copy(), RNG.integers(0, 256, (40, 64, 3), np.uint8)
REDUCED = {"subfiletype": 1}


def with_sub_images(path: Path, page: tuple[np.ndarray, dict], *below: tuple[np.ndarray, dict]) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(page[0], photometric="rgb", metadata=None, subifds=len(below), **page[1])
        for array, options in below:
            tiff.write(array, photometric="rgb", metadata=None, **options)
    return path


@pytest.mark.parametrize(
    ("page", "below"),
    [
        pytest.param((FULL, {}), [(SMALL, REDUCED), (SMALL[::2], REDUCED)], id="overviews"),
        pytest.param((FULL, {}), [(SMALL, {})], id="an overview that nobody marked"),
        pytest.param((FULL, {}), [(OTHER, {})], id="another image of the same size"),
        pytest.param((SMALL, REDUCED), [(FULL, {}), (SMALL, REDUCED)], id="a thumbnail above the image"),
        pytest.param((SMALL, REDUCED), [(FULL, {"compression": "zlib", "tile": (16, 16)})], id="tiles below"),
    ],
)
def test_the_main_image_is_read_whatever_lies_in_sub_directories(tmp_path: Path, page, below):
    path = with_sub_images(tmp_path / "a.tif", page, *below)
    assert np.array_equal(read_image(path), FULL)
    shape = read_shape(path)
    assert (shape.height, shape.width, shape.channels) == FULL.shape


@pytest.mark.parametrize(
    ("page", "below", "message"),
    [
        ((SMALL, {}), [(FULL, {})], "a SubIFD holds an image of 64 x 40 pixels, larger than the page of 32 x 20"),
        ((SMALL, REDUCED), [(FULL, {}), (OTHER, {})], "2 pages of 3 channels each; one image is expected"),
    ],
)
def test_sub_directories_that_leave_open_which_image_is_meant_are_refused(tmp_path: Path, page, below, message):
    path = with_sub_images(tmp_path / "a.tif", page, *below)
    for read in (read_shape, read_image):
        with pytest.raises(DataError, match=message):
            read(path)


def test_a_jpeg_below_a_thumbnail_is_refused_by_name(tmp_path: Path):
    path = with_sub_images(tmp_path / "a.tif", (SMALL, REDUCED), (FULL, {}))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.pages[0].tags[259]
    data[tag.valueoffset : tag.valueoffset + 2] = (7).to_bytes(2, "little")
    with pytest.raises(DataError, match="its image lies in a SubIFD with JPEG compression, which is not read"):
        decode_image(bytes(data))
