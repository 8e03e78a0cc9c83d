"""The table of mask files: format x depth x meaning, each read as the numbers that were written, or refused by name."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import image_files as files
from PIL import Image

from segatlas.data.formats.images import decode_image, read_image
from segatlas.data.formats.masks import decode_mask, decode_raw
from segatlas.data.formats.reading import read_shape
from segatlas.errors import DataError

RNG = np.random.default_rng(5)
SIZE = (11, 13)
PALETTE = [(3 * i % 256, 255 - i, 7 * i % 256) for i in range(256)]
GAMMA = files.chunk(b"gAMA", (45455).to_bytes(4, "big"))


def codes(bits: int, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, min(2**bits, 2**31 - 1), SIZE).astype(dtype)


def equal_channels(values: np.ndarray, count: int) -> np.ndarray:
    return np.stack([values] * count, axis=-1)


def with_alpha(values: np.ndarray, count: int) -> np.ndarray:
    alpha = RNG.integers(0, np.iinfo(values.dtype).max, (*SIZE, 1)).astype(values.dtype)
    return np.concatenate([equal_channels(values, count), alpha], axis=-1)


def png_cases() -> Iterator[tuple[str, bytes, np.ndarray]]:
    for interlaced in (False, True):
        name = "interlaced PNG" if interlaced else "PNG"
        for bits in (1, 2, 4, 8, 16):
            values = codes(bits, np.uint16 if bits == 16 else np.uint8)
            transparent = files.chunk(b"tRNS", int(values[0, 0]).to_bytes(2, "big"))
            grey = files.png(values[..., None], bits, 0, interlaced=interlaced, before=GAMMA + transparent)
            yield f"{name} grey {bits}", grey, values
            if bits < 16:
                table = bytes(value for color in PALETTE[: 2**bits] for value in color)
                transparent = files.chunk(b"tRNS", bytes(range(2 ** min(bits, 4))))
                indices = files.png(values[..., None], bits, 3, palette=table, before=transparent)
                yield f"{name} palette {bits}", indices, values
        for bits in (8, 16):
            values = codes(bits, np.uint16 if bits == 16 else np.uint8)
            for kind, samples in (
                (2, equal_channels(values, 3)),
                (4, with_alpha(values, 1)),
                (6, with_alpha(values, 3)),
            ):
                transparent = files.chunk(b"tRNS", bytes(6)) if kind == 2 else b""
                yield (
                    f"{name} colour type {kind} of {bits}",
                    files.png(samples, bits, kind, interlaced=interlaced, before=GAMMA + transparent, pieces=3),
                    values,
                )


def tiff_cases() -> Iterator[tuple[str, bytes, np.ndarray]]:
    for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16, 32):
        values = codes(bits, np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
        for photometric in (0, 1):
            yield f"TIFF {bits} photometric {photometric}", _tiff(values, bits, photometric=photometric), values
        for compression in (files.LZW, files.DEFLATE, files.PACKBITS):
            yield f"TIFF {bits} codec {compression}", _tiff(values, bits, compression=compression), values
        if bits <= 8:
            table = RNG.integers(0, 65536, 3 * 2**bits).tolist()
            yield f"TIFF palette {bits}", _tiff(values, bits, photometric=3, colors=table), values
    for bits, kind, dtype in (
        (8, 2, np.int8),
        (16, 2, np.int16),
        (32, 2, np.int32),
        (64, 2, np.int64),
        (64, 1, np.uint64),
    ):
        values = codes(6, dtype) - dtype(0 if kind == 1 else 20)
        yield f"TIFF {dtype.__name__}", _tiff(values, bits, sample_format=kind), values
    for bits, dtype in ((16, np.float16), (32, np.float32), (64, np.float64)):
        values = codes(7, dtype)
        for predictor in (1, 3):
            data = _tiff(values, bits, sample_format=3, compression=files.DEFLATE, predictor=predictor)
            yield f"TIFF {dtype.__name__} predictor {predictor}", data, values
    for order in "<>":
        for big in (False, True):
            for tile in (None, (16, 16)):
                for predictor in (1, 2):
                    values = codes(16, np.uint16)
                    data = _tiff(
                        values, 16, order=order, big=big, tile=tile, predictor=predictor, compression=files.LZW
                    )
                    yield f"TIFF {order} big {big} tile {tile} predictor {predictor}", data, values
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        values = codes(bits, dtype)
        for planar in (False, True):
            data = _tiff(equal_channels(values, 3), bits, photometric=2, planar=planar)
            yield f"TIFF RGB {bits} planar {planar}", data, values
            data = _tiff(with_alpha(values, 3), bits, photometric=2, planar=planar, extra_samples=[2])
            yield f"TIFF RGBA {bits} planar {planar}", data, values
            data = _tiff(with_alpha(values, 1), bits, planar=planar, extra_samples=[1], compression=files.LZW)
            yield f"TIFF grey with alpha {bits} planar {planar}", data, values


def other_cases() -> Iterator[tuple[str, bytes, np.ndarray]]:
    grey = [(i, i, i) for i in range(256)]
    for bits in (1, 4, 8):
        values = codes(bits)
        yield f"BMP palette {bits}", files.bmp(values, bits, PALETTE[: 2**bits]), values
        ramp = grey[: 2**bits] if bits > 1 else [grey[0], grey[255]]
        yield f"BMP grey {bits}", files.bmp(values, bits, ramp), values
        yield f"BMP white first {bits}", files.bmp(values, bits, ramp[::-1]), values
    values = codes(8)
    yield "BMP RGB", files.bmp(equal_channels(values, 3), 24), values
    yield "GIF palette", files.gif(values, PALETTE), values
    yield "GIF grey", files.gif(values, grey), values
    for largest in (1, 3, 12, 100, 255, 256, 1000, 4095, 65535):
        values = RNG.integers(0, largest + 1, SIZE).astype(np.uint8 if largest < 256 else np.uint16)
        for plain in (False, True):
            yield f"PGM {largest} plain {plain}", files.pnm(values[..., None], largest, plain=plain), values
    yield "PPM", files.pnm(equal_channels(values, 3), 65535), values
    for mode, samples in (("L", codes(8)), ("RGB", equal_channels(codes(8), 3))):
        stream = io.BytesIO()
        Image.fromarray(samples).save(stream, "WEBP", lossless=True, exact=True)
        yield f"lossless WebP {mode}", stream.getvalue(), samples[..., 0] if samples.ndim == 3 else samples


def _tiff(values: np.ndarray, bits: int, *, order: str = "<", big: bool = False, **options) -> bytes:
    samples = values[..., None] if values.ndim == 2 else values
    return files.tiff(files.directory(samples, bits, order=order, **options), order=order, big=big)


@pytest.mark.parametrize("cases", [png_cases, tiff_cases, other_cases], ids=lambda cases: cases.__name__)
def test_every_kind_of_mask_gives_the_numbers_that_were_written(cases: Callable):
    wrong = []
    for name, data, expected in cases():
        try:
            found = decode_mask(data, name=name)
        except DataError as error:
            wrong.append(f"{name}: {error}")
            continue
        if not np.array_equal(found, expected.astype(np.int64)):
            wrong.append(f"{name}: {found[0, :4]} instead of {expected[0, :4]}")
    assert not wrong


def refused() -> Iterator[tuple[str, bytes, str]]:
    color = RNG.integers(0, 65536, (*SIZE, 4)).astype(np.uint16)
    byte = color.astype(np.uint8)
    yield "16-bit colours", files.png(color[..., :3], 16, 2), "a colour mask of uint16 channels"
    yield "four inks", _tiff(byte, 8, photometric=5), r"4 channel\(s\) of uint8 of four inks are not a mask"
    yield "two channels", _tiff(byte[..., :2], 8, extra_samples=[0]), r"2 channel\(s\) of uint8 are not a mask"
    yield "complex", _tiff(np.zeros(SIZE, np.complex64), 64, sample_format=6), "complex numbers, which are no image"
    yield "five bits a channel", files.tiff(files.directory(byte[..., :3] >> 3, 5, photometric=2)), "values to 31"
    yield "Lab", _tiff(byte[..., :3], 8, photometric=8), "its samples mean CIELAB, which is not read"
    yield "fractions", _tiff(np.full(SIZE, 0.5, np.float32), 32, sample_format=3), "143 of 143 pixels hold fractions"
    yield (
        "24 bits",
        _tiff(np.zeros((*SIZE, 3), np.uint8), 8, tags={258: (3, [24]), 277: (3, [1])}),
        "samples of 24 bits",
    )
    yield "JPEG XL in TIFF", _tiff(byte[..., :1], 8, tags={259: (3, [50002])}), r"JPEGXL, is not read here: pip install"
    stream = io.BytesIO()
    Image.fromarray(byte[..., :3]).save(stream, "TGA")
    yield "another format", stream.getvalue(), "is a TGA file, which is not read; save it as PNG or TIFF"
    frames = [Image.fromarray(byte[..., i]) for i in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    yield "animation", stream.getvalue(), "an animation of 3 images"


@pytest.mark.parametrize(("data", "message"), [pytest.param(*case[1:], id=case[0]) for case in refused()])
def test_what_is_no_mask_is_refused_by_name(monkeypatch, data: bytes, message: str):
    monkeypatch.setattr("segatlas.data.formats.tiff.find_spec", lambda name: None)  # without the geo extra
    with pytest.raises(DataError, match=message) as caught:
        decode_mask(data, name="a.png")
    assert "truncated or damaged" not in str(caught.value)


def short() -> Iterator[tuple[str, bytes]]:
    values = codes(8)[..., None]
    for interlaced in (False, True):
        for kind, bits, samples in (
            (0, 8, values),
            (0, 1, values & 1),
            (0, 16, values),
            (2, 8, equal_channels(values[..., 0], 3)),
            (2, 16, equal_channels(values[..., 0], 3)),
            (4, 8, with_alpha(values[..., 0], 1)),
            (6, 8, with_alpha(values[..., 0], 3)),
        ):
            for height in (len(values) + 1, len(values) - 1):
                name = f"PNG of {height} rows, type {kind}, {bits} bits, interlaced {interlaced}"
                yield name, files.png(samples, bits, kind, interlaced=interlaced, height=height)
    table = bytes(value for color in PALETTE for value in color)
    yield "palette PNG", files.png(values, 8, 3, palette=table, height=40)
    for codec in (files.NONE, files.LZW, files.DEFLATE, files.PACKBITS):
        tags, strips = files.directory(values, 8, compression=codec)
        yield f"TIFF {codec}, last strip cut", files.tiff((tags, [*strips[:-1], strips[-1][: len(strips[-1]) // 2]]))
        yield f"TIFF {codec}, strip missing", files.tiff((tags, strips[:-1]))
        yield f"TIFF {codec}, strip empty", files.tiff((tags, [*strips[:-1], b""]))
        tags, tiles = files.directory(values, 8, compression=codec, tile=(16, 16))
        yield f"TIFF {codec}, tile cut", files.tiff((tags, [tiles[0][:-30]]))
    for name, whole in (
        ("BMP", files.bmp(values[..., 0], 8, PALETTE)),
        ("GIF", files.gif(values[..., 0], PALETTE)),
        ("PGM", files.pnm(values, 255)),
        ("plain PGM", files.pnm(values, 255, plain=True)),
        ("PBM", files.pnm(values & 1, 1)),
        ("TIFF", _tiff(values, 8)),
    ):
        yield f"half a {name}", whole[: len(whole) // 2]


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in short()])
def test_missing_pixels_are_noticed_in_images_and_masks(data: bytes):
    for decode in (decode_image, decode_mask):
        with pytest.raises(DataError, match=r"truncated or damaged|header is damaged"):
            decode(data, name="a.png")


def test_images_of_few_bits_are_spread_and_white_is_255():
    values = codes(4)[..., None]
    assert np.array_equal(decode_image(files.png(values, 4, 0)), values * 17)
    assert np.array_equal(decode_image(_tiff(values, 4)), values * 17)
    assert np.array_equal(decode_image(_tiff(values, 4, photometric=0)), (15 - values) * 17)
    deep = codes(16, np.uint16)[..., None]
    assert np.array_equal(decode_image(_tiff(deep, 16, photometric=0)), 65535 - deep)
    assert np.array_equal(decode_image(files.pnm(values & 1, 1)), (1 - (values & 1)) * 255)
    twelve = codes(12, np.uint16)[..., None]
    assert np.array_equal(decode_image(_tiff(twelve, 12)), twelve)
    assert np.array_equal(decode_image(files.pnm(twelve, 4095)), twelve)


def test_colours_of_a_mask_are_those_of_its_palette():
    values = codes(4)
    table = bytes(value for color in PALETTE[:16] for value in color)
    expected = np.array(PALETTE, np.uint8)[values]
    assert np.array_equal(decode_raw(files.png(values[..., None], 4, 3, palette=table), "a", as_colors=True), expected)
    assert np.array_equal(decode_raw(files.bmp(values, 4, PALETTE[:16]), "a", as_colors=True), expected)
    assert np.array_equal(decode_raw(files.gif(values, PALETTE), "a", as_colors=True), expected)


@pytest.mark.parametrize(
    ("kind", "largest"), [("P1", ""), ("P2", "255\n"), ("P4", ""), ("P5", "255\n"), ("P6", "255\n")]
)
@pytest.mark.parametrize("length", [5000, 65000])
def test_header_and_decoder_agree_on_netpbm_files_with_a_long_comment(tmp_path: Path, kind, largest, length):
    pixels = {"P1": b"1 0 0 1\n", "P2": b"7 0 0 7\n", "P4": b"\x80\x40", "P5": bytes(4), "P6": bytes(12)}[kind]
    path = tmp_path / "a.ppm"
    path.write_bytes(f"{kind}\n#{'x' * length}\n2 2\n{largest}".encode() + pixels)
    shape = read_shape(path)
    assert (shape.height, shape.width, shape.channels) == read_image(path).shape


@pytest.mark.parametrize("content", [b"P5 #" + b"x" * 70000 + b"\n2 2\n255\n" + bytes(4), b"P2 2 2 " + b" " * 70000])
def test_header_and_decoder_refuse_a_netpbm_header_of_more_than_65536_bytes(tmp_path: Path, content: bytes):
    (tmp_path / "a.pgm").write_bytes(content)
    for read in (read_shape, read_image):
        with pytest.raises(DataError, match="its header is damaged, or longer than 65536 bytes"):
            read(tmp_path / "a.pgm")


def test_a_number_of_a_netpbm_header_is_never_read_in_part(tmp_path: Path):
    start = b"P2 2 2 #"
    content = start + b"x" * (65536 - len(start) - 3) + b"\n25" + b"5\n7 0 0 7\n"
    (tmp_path / "a.pgm").write_bytes(content)
    for read in (read_shape, read_image):
        with pytest.raises(DataError, match="longer than 65536 bytes"):
            read(tmp_path / "a.pgm")
