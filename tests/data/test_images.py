from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from fakes.images import raw_png
from fakes.shared import shared_data
from PIL import Image, ImageOps

from segatlas.data.formats.images import as_image, decode_image, image_size, read_header, read_image
from segatlas.errors import DataError, UsageError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 5, 3), np.uint8)
GREY = RNG.integers(0, 256, (7, 5), np.uint8)
DEEP = RNG.integers(0, 65536, (7, 5, 3), np.uint16)


def save(path: Path, array: np.ndarray, **options) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff", ".ppm"])
def test_lossless_rgb_comes_back_exactly(tmp_path, ending):
    array = read_image(save(tmp_path / f"a{ending}", RGB))
    assert array.dtype == np.uint8
    assert np.array_equal(array, RGB)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_what_is_read_can_be_written_to(tmp_path, ending):
    for name, image in (("grey", GREY), ("rgb", RGB)):
        array = read_image(save(tmp_path / f"{name}{ending}", image))
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_lossless_webp_comes_back_exactly(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.webp", RGB, lossless=True)), RGB)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48)])
def test_jpeg_has_pillows_pixels(tmp_path, size, subsampling, progressive):
    image = RNG.integers(0, 256, (*size, 3), np.uint8)
    path = save(tmp_path / "a.jpg", image, subsampling=subsampling, progressive=progressive)
    assert np.array_equal(read_image(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"compress_level": 0}, {"dpi": (72, 72)}])
def test_rgb_png_has_pillows_pixels(options):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8))
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    assert np.array_equal(decode_image(stream.getvalue()), np.array(image))


@pytest.mark.parametrize("place", [0.05, 0.3, 0.5, 0.8])
def test_a_png_with_an_altered_byte_is_an_error_or_has_pillows_pixels(place, capfd):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[int(place * len(data))] ^= 0x55
    try:
        expected = np.array(Image.open(io.BytesIO(bytes(data))).convert("RGB"))
    except Exception:
        with pytest.raises(DataError):
            decode_image(bytes(data))
    else:
        assert np.array_equal(decode_image(bytes(data)), expected)
    assert capfd.readouterr().err == ""  # no decoder speaks past us


def test_a_png_without_its_last_bytes_is_read_as_pillow_reads_it():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    assert np.array_equal(decode_image(stream.getvalue()[:-12]), np.array(image))


def test_real_jpeg_has_pillows_pixels():
    path = sorted(shared_data("camvid/test").iterdir())[0]
    assert np.array_equal(read_image(path), np.asarray(Image.open(path)))


def test_jpeg_with_four_inks_becomes_rgb(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).convert("CMYK").save(path)
    assert read_image(path).shape == (7, 5, 3)
    assert read_header(path).channels == 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation_is_applied(tmp_path, ending, orientation):
    path = tmp_path / f"a{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert expected.shape[:2] == ((5, 7) if orientation >= 5 else (7, 5))
    assert np.array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_deep_files_agrees_with_that_of_8_bit_files(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "shallow.png", exif=exif)
    tifffile.imwrite(
        tmp_path / "deep.tif", RGB.astype(np.uint16), photometric="rgb", extratags=[(274, "H", 1, orientation, True)]
    )
    deep = read_image(tmp_path / "deep.tif")
    assert deep.dtype == np.uint16
    assert np.array_equal(deep, read_image(tmp_path / "shallow.png"))
    assert image_size(tmp_path / "deep.tif") == deep.shape[:2]


def test_grey_has_one_channel_unless_three_are_asked_for(tmp_path):
    path = save(tmp_path / "a.png", GREY)
    assert np.array_equal(read_image(path), GREY[..., None])
    assert np.array_equal(read_image(path, 3), np.stack([GREY] * 3, axis=-1))


def test_colour_to_grey_is_pillows_luma(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    assert np.array_equal(read_image(path, 1)[..., 0], np.asarray(Image.fromarray(RGB).convert("L")))


def test_one_bit_image_becomes_0_and_255(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREY > 128).save(path)
    assert np.array_equal(read_image(path)[..., 0], np.where(GREY > 128, 255, 0))


def test_alpha_is_dropped_unless_four_channels_are_asked_for(tmp_path):
    rgba = np.dstack([RGB, GREY])
    path = save(tmp_path / "a.png", rgba)
    assert np.array_equal(read_image(path), RGB)
    assert np.array_equal(read_image(path, 3), RGB)
    assert np.array_equal(read_image(path, 4), rgba)
    assert read_header(path).channels == 3


def test_grey_with_alpha_loses_alpha_unless_two_channels_are_asked_for(tmp_path):
    path = save(tmp_path / "a.png", np.dstack([GREY, GREY[::-1]]))
    assert np.array_equal(read_image(path), GREY[..., None])
    assert np.array_equal(read_image(path, 2), np.dstack([GREY, GREY[::-1]]))


def test_palette_becomes_colours(tmp_path):
    path = tmp_path / "a.png"
    quantized = Image.fromarray(RGB).quantize(8)
    quantized.save(path, transparency=0)
    assert np.array_equal(read_image(path), np.asarray(quantized.convert("RGB")))


def test_16_bit_grey_png_keeps_its_values(tmp_path):
    path = save(tmp_path / "a.png", DEEP[..., 0])
    array = read_image(path)
    assert array.dtype == np.uint16
    assert np.array_equal(array[..., 0], DEEP[..., 0])


def test_16_bit_colour_png_keeps_its_values_in_rgb_order():
    rows = [row.astype(">u2").tobytes() for row in DEEP]
    array = decode_image(raw_png(rows, 5, 16, 2))
    assert array.dtype == np.uint16
    assert np.array_equal(array, DEEP)


def test_16_bit_png_with_alpha_drops_it_unless_asked_for():
    rgba = np.dstack([DEEP, DEEP[..., :1]])
    data = raw_png([row.astype(">u2").tobytes() for row in rgba], 5, 16, 6)
    assert np.array_equal(decode_image(data), DEEP)
    assert np.array_equal(decode_image(data, 4), rgba)
    data = raw_png([row.astype(">u2").tobytes() for row in rgba[..., 2:]], 5, 16, 4)
    assert np.array_equal(decode_image(data), DEEP[..., 2:])
    assert np.array_equal(decode_image(data, 2), rgba[..., 2:])


@pytest.mark.parametrize("layout", ["contig", "separate", "pages"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_channels_become_channels(tmp_path, layout, dtype):
    channels = RNG.integers(0, 200, (6, 7, 5)).astype(dtype)
    path = tmp_path / "a.tif"
    if layout == "contig":
        tifffile.imwrite(path, channels.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig")
    elif layout == "separate":
        tifffile.imwrite(path, channels, photometric="minisblack", planarconfig="separate")
    else:
        tifffile.imwrite(path, channels, photometric="minisblack")
    array = read_image(path)
    assert array.dtype == dtype
    assert np.array_equal(array, channels.transpose(1, 2, 0))
    assert read_header(path).channels == 6
    assert read_image(path, 6).shape == (7, 5, 6)
    with pytest.raises(DataError, match=r"a\.tif: has 6 channels, expected 3"):
        read_image(path, 3)


def test_fourth_channel_of_a_tiff_is_kept_but_declared_alpha_is_dropped(tmp_path):
    channels = np.dstack([RGB, GREY])
    tifffile.imwrite(tmp_path / "channels.tif", channels, photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "alpha.tif", channels, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_image(tmp_path / "channels.tif"), channels)
    assert np.array_equal(read_image(tmp_path / "channels.tif", 3), RGB)
    assert np.array_equal(read_image(tmp_path / "alpha.tif"), RGB)


def test_deep_colour_tiff_compressed_with_lzw_is_read_in_rgb_order(tmp_path):
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), DEEP[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert np.array_equal(read_image(path), DEEP)


def test_wide_numbers_become_float32(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 4), 0.1, np.float64))
    tifffile.imwrite(tmp_path / "b.tif", np.full((3, 4), 70000, np.int32))
    assert read_image(tmp_path / "a.tif").dtype == np.float32
    assert read_image(tmp_path / "b.tif")[0, 0, 0] == 70000.0


def test_pixel_and_long_strip_are_images(tmp_path):
    assert read_image(save(tmp_path / "a.png", RGB[:1, :1])).shape == (1, 1, 3)
    assert read_image(save(tmp_path / "b.png", np.zeros((1, 20000, 3), np.uint8))).shape == (1, 20000, 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", r"empty \(0 bytes\)"),
        ("a.png", b"hello, I am text", r"is not an image.*begins with b'hello"),
        ("a.gif", b"GIF89a", r"ending \.gif is not read; expected one of \.png"),
        ("a", b"x", r"ending \(none\) is not read"),
        ("a.tif", b"II*\0\x08\0\0\0", "cannot be decoded"),
    ],
)
@pytest.mark.parametrize("read", [read_image, image_size])
def test_bad_files_are_named_with_their_fault(tmp_path, name, content, message, read):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert caught.value.path == tmp_path / name


@pytest.mark.parametrize("kind", ["a.jpg", "a.png", "a.webp", "a.tif", "deep.png", "deep.tif", "a.bmp"])
def test_truncated_files_are_errors(tmp_path, kind):
    path = tmp_path / kind
    array = RNG.integers(0, 65536 if "deep" in kind else 256, (64, 64, 3)).astype(
        np.uint16 if "deep" in kind else np.uint8
    )
    assert cv2.imwrite(str(path), array)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=kind):
        read_image(path)


def test_truncated_jpeg_with_a_thumbnail_is_an_error(tmp_path):
    thumbnail = io.BytesIO()
    Image.fromarray(RGB).save(thumbnail, "JPEG")
    whole = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(whole, "JPEG", comment=thumbnail.getvalue())
    with pytest.raises(DataError, match="truncated"):
        decode_image(whole.getvalue()[:-400])


def test_missing_file_names_the_nearest(tmp_path):
    save(tmp_path / "street.png", RGB)
    with pytest.raises(DataError, match=r"no such file; the nearest name there is street\.png"):
        read_image(tmp_path / "stret.png")


def test_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_decompression_bomb_is_refused_from_its_header(tmp_path, read):
    (tmp_path / "bomb.png").write_bytes(raw_png([b"\0" * 10], 60000, 8, 0, height=60000))
    with pytest.raises(DataError, match=r"is 60000 x 60000 pixels with 1 channel\(s\), above the limit of 268435456"):
        read(tmp_path / "bomb.png")


def test_tiff_bomb_is_refused_from_its_header(tmp_path):
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.zeros((2, 2), np.uint16))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(60000)
        tiff.pages[0].tags["ImageLength"].overwrite(60000)
    with pytest.raises(DataError, match="60000 x 60000"):
        read_image(path)


def test_limit_is_raised_by_argument_and_by_environment(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", RGB)
    with pytest.raises(DataError, match="above the limit of 34 pixels"):
        read_image(path, max_pixels=34)
    monkeypatch.setenv("SEGATLAS_MAX_PIXELS", "34")
    with pytest.raises(DataError, match="raise SEGATLAS_MAX_PIXELS"):
        read_image(path)
    assert read_image(path, max_pixels=35).shape == (7, 5, 3)
    monkeypatch.setenv("SEGATLAS_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="SEGATLAS_MAX_PIXELS=many"):
        read_image(path)


def test_pillows_own_limit_is_left_as_it_was(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    read_image(save(tmp_path / "a.png", RGB))
    assert before == Image.MAX_IMAGE_PIXELS


def test_as_image_takes_path_bytes_pillow_and_arrays(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    for source in (path, str(path), path.read_bytes(), Image.open(path), RGB):
        assert np.array_equal(as_image(source), RGB)
    assert as_image(GREY).shape == (7, 5, 1)
    assert as_image(GREY, 3).shape == (7, 5, 3)
    assert as_image(np.dstack([RGB, GREY]), 3).shape == (7, 5, 3)
    assert as_image(RGB / 255.0).dtype == np.float32


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 40, 50), np.uint8), r"looks like \(C, H, W\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((4, 4), np.int64), "type int64"),
        (17, "a int is not an image"),
        (np.zeros((4, 4, 2), np.uint8), "has 2 channels, expected 3"),
    ],
)
def test_what_is_no_image_is_refused(source, message):
    with pytest.raises(DataError, match=message):
        as_image(source, 3)
