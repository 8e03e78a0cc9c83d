"""Fuzz the readers of images and masks: `python tools/fuzz_files.py --count 500 --seed 1`.

Each case is a file made byte by byte by `tests/fakes/image_files.py` (JPEG and WebP by Pillow), so that its array is
known, and one mutation of it: truncated, bytes flipped, header fields changed, chunks or strips dropped, sizes mixed,
another ending, bit depth or coding process changed. The file is then read as `predict`, `data check` and a dataset
read it, in this process.

What counts as a fault:

- raw error: a reader raises anything but a SegAtlasError;
- silent: a reader gives another array than the file's writer wrote, and no error, though the mutation can be noticed:
  PNG has checksums and a known amount of data, Deflate has a checksum, headers promise an amount of data, truncated
  files end early, two files of a pair have one size.

Flipped pixel bytes of formats without checksums (raw TIFF, BMP, PNM, LZW, GIF, JPEG, WebP) and meanings that are only
said (photometric, palette colours) cannot be noticed by anybody. Such cases are run too, for raw errors, and are
counted as "open". The exit code is 1 where there is a fault.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from fakes import image_files as files  # noqa: E402

from segatlas.checkpoint.card import Card, InputSpec  # noqa: E402
from segatlas.checkpoint.preprocessing import Preprocessing  # noqa: E402
from segatlas.config.schema import DataConfig  # noqa: E402
from segatlas.data import create_dataset  # noqa: E402
from segatlas.data.checks.stats import look_at_image, look_at_mask  # noqa: E402
from segatlas.data.datasets.listing import LabelEncoding  # noqa: E402
from segatlas.data.formats import read_header, read_image, read_mask  # noqa: E402
from segatlas.errors import SegAtlasError  # noqa: E402
from segatlas.inference.images import prepare  # noqa: E402

CLASSES = tuple(f"class_{index}" for index in range(255))
PALETTE = [(i, 255 - i, 7 * i % 256) for i in range(256)]
Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Case:
    """A whole file: its content, its ending, and the (H, W, C) image or (H, W) codes that it holds."""

    format: str
    ending: str
    data: bytes
    array: np.ndarray
    deflated: bool = False

    @property
    def is_mask(self) -> bool:
        return self.array.ndim == 2


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A mutated file. open: whether nobody can notice the change. partner: size of the other file of its pair."""

    name: str
    data: bytes
    ending: str
    open: bool = False
    partner: tuple[int, int] | None = None


def make_case(rng: Rng) -> Case:
    """Draw a format, a depth, a meaning and samples."""
    size = tuple(int(n) for n in rng.integers(12, 33, 2))
    is_mask = bool(rng.random() < 0.5)
    makers = (_png, _png, _png, _tiff, _tiff, _tiff, _bmp, _gif, _pnm, _webp, *(() if is_mask else (_jpeg,)))
    return makers[rng.integers(len(makers))](rng, size, is_mask)


def _values(rng: Rng, size: tuple[int, ...], largest: int) -> np.ndarray:
    dtype = np.uint8 if largest < 256 else np.uint16
    return rng.integers(0, largest + 1, size).astype(dtype)


def _png(rng: Rng, size: tuple[int, int], is_mask: bool) -> Case:
    interlaced, pieces = bool(rng.random() < 0.3), int(rng.integers(1, 4))
    if is_mask:
        depth = int(rng.choice((1, 2, 4, 8, 16)))
        codes = _values(rng, size, min(2**depth - 1, 254))
        if depth == 16:
            color_type = int(rng.choice((0, 2, 4, 6)))
        else:
            color_type = int(rng.choice((0, 3, 2, 4, 6) if depth == 8 else (0, 3)))
        samples = np.repeat(codes[..., None], 3 if color_type in (2, 6) else 1, axis=2)
        if color_type in (4, 6):
            samples = np.concatenate([samples, codes[::-1, ::-1, None]], axis=2)
        table = bytes(v for color in PALETTE[: 2**depth] for v in color) if color_type == 3 else b""
        array = codes
    else:
        depth, channels = int(rng.choice((8, 16))), int(rng.choice((1, 3)))
        samples = array = _values(rng, (*size, channels), 2**depth - 1).astype(np.uint16 if depth == 16 else np.uint8)
        color_type, table = {1: 0, 3: 2}[channels], b""
    extra = files.chunk(b"gAMA", (45455).to_bytes(4, "big")) + files.chunk(b"tEXt", b"Comment\0made by hand")
    data = files.png(samples, depth, color_type, interlaced=interlaced, palette=table, before=extra, pieces=pieces)
    return Case(format="PNG", ending=".png", data=data, array=array, deflated=True)


def _tiff(rng: Rng, size: tuple[int, int], is_mask: bool) -> Case:
    codec = int(rng.choice((files.NONE, files.LZW, files.DEFLATE, files.PACKBITS)))
    order, big = str(rng.choice(("<", ">"))), bool(rng.random() < 0.2)
    tile = (16, 16) if rng.random() < 0.3 else None
    channels = 1 if is_mask else int(rng.choice((1, 2, 3, 4, 6)))
    bits = int(rng.choice((1, 2, 4, 8, 12, 16) if is_mask else (8, 16)))
    dtype = np.uint8 if bits <= 8 else np.uint16
    samples = _values(rng, (*size, channels), min(2**bits - 1, 254) if is_mask else 2**bits - 1).astype(dtype)
    predictor = 2 if bits in (8, 16) and codec in (files.LZW, files.DEFLATE) and rng.random() < 0.5 else 1
    rgb = channels == 3
    page = files.directory(
        samples,
        bits,
        photometric=2 if rgb else 1,
        planar=bool(channels > 1 and rng.random() < 0.3),
        tile=tile,
        compression=codec,
        predictor=predictor,
        order=order,
        extra_samples=[0] * (channels - 1) if channels > 1 and not rgb else (),
    )
    array = samples[..., 0] if is_mask else samples
    deflated = codec == files.DEFLATE
    return Case(
        format="TIFF", ending=".tif", data=files.tiff(page, order=order, big=big), array=array, deflated=deflated
    )


def _bmp(rng: Rng, size: tuple[int, int], is_mask: bool) -> Case:
    if not is_mask:
        image = _values(rng, (*size, 3), 255)
        return Case(format="BMP", ending=".bmp", data=files.bmp(image, 24), array=image)
    depth = int(rng.choice((1, 4, 8)))
    codes = _values(rng, size, min(2**depth - 1, 254))
    return Case(format="BMP", ending=".bmp", data=files.bmp(codes, depth, PALETTE[: 2**depth]), array=codes)


def _gif(rng: Rng, size: tuple[int, int], is_mask: bool) -> Case:
    codes = _values(rng, size, 254)
    array = codes if is_mask else np.array(PALETTE, np.uint8)[codes]
    return Case(format="GIF", ending=".png", data=files.gif(codes, PALETTE), array=array)


def _pnm(rng: Rng, size: tuple[int, int], is_mask: bool) -> Case:
    plain = bool(rng.random() < 0.3)
    if is_mask:
        largest = int(rng.choice((1, 5, 100, 255, 1000, 65535)))
        samples = _values(rng, (*size, 1), min(largest, 254)).astype(np.uint8 if largest < 256 else np.uint16)
        data = files.pnm(samples, largest, plain=plain)
        return Case(format="PNM", ending=".pgm", data=data, array=samples[..., 0])
    largest, channels = int(rng.choice((255, 4095, 65535))), int(rng.choice((1, 3)))
    samples = _values(rng, (*size, channels), largest)
    data = files.pnm(samples, largest, plain=plain)
    return Case(format="PNM", ending=".pgm" if channels == 1 else ".ppm", data=data, array=samples)


def _webp(rng: Rng, size: tuple[int, int], is_mask: bool) -> Case:
    image = np.repeat(_values(rng, (*size, 1), 254), 3, axis=2) if is_mask else _values(rng, (*size, 3), 255)
    data = _by_pillow(image, "WEBP", lossless=True, exact=True)
    return Case(format="WebP", ending=".webp", data=data, array=image[..., 0] if is_mask else image)


def _jpeg(rng: Rng, size: tuple[int, int], is_mask: bool) -> Case:
    assert not is_mask
    data = _by_pillow(_values(rng, (*size, 3), 255), "JPEG", progressive=bool(rng.random() < 0.5))
    with Image.open(io.BytesIO(data)) as image:
        return Case(format="JPEG", ending=".jpg", data=data, array=np.array(image))


def _by_pillow(array: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def truncated(case: Case, rng: Rng) -> Mutant:
    """Cut the end off: pixels are missing, or bytes that no pixel hangs on."""
    length = int(rng.integers(0, len(case.data)))
    # Of a JPEG, the markers alone tell: the end one is gone. A TIFF's directory is at its end here.
    return Mutant(name="truncated", data=case.data[:length], ending=case.ending)


def flipped(case: Case, rng: Rng) -> Mutant:
    """Change up to eight bytes anywhere."""
    data = bytearray(case.data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
        data[place] ^= int(rng.integers(1, 256))
    return Mutant(name="bytes flipped", data=bytes(data), ending=case.ending, open=case.format != "PNG")


def pixels_flipped(case: Case, rng: Rng) -> Mutant:
    """Change bytes of compressed pixels, past the first header; Deflate has a checksum."""
    if case.format != "TIFF":
        return flipped(case, rng)
    data, end = bytearray(case.data), _directory_place(case.data)
    for place in rng.integers(16, max(17, end), int(rng.integers(1, 5))):
        data[place] ^= int(rng.integers(1, 256))
    # Bytes between the strips may be padding, so an unchanged array is right, too.
    return Mutant(name="pixel bytes flipped", data=bytes(data), ending=case.ending, open=not case.deflated)


def other_ending(case: Case, rng: Rng) -> Mutant:
    """Give the file the ending of another format: the content decides."""
    endings = [ending for ending in (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm") if ending != case.ending]
    return Mutant(name="another ending", data=case.data, ending=str(rng.choice(endings)))


def with_tail(case: Case, rng: Rng) -> Mutant:
    """Add bytes behind the end: they belong to no pixel."""
    return Mutant(name="bytes behind", data=case.data + rng.bytes(int(rng.integers(1, 99))), ending=case.ending)


def hole(case: Case, rng: Rng) -> Mutant:
    """Take bytes out of the middle. Formats without checksums, fixed sizes or code ends cannot tell."""
    start = int(rng.integers(len(case.data) // 4, len(case.data)))
    end = min(len(case.data), start + int(rng.integers(1, 40)))
    is_open = not (case.format in ("PNG", "BMP") or (case.format == "PNM" and case.data[1:2] in b"456"))
    return Mutant(name="bytes taken out", data=case.data[:start] + case.data[end:], ending=case.ending, open=is_open)


def mixed_sizes(case: Case, rng: Rng) -> Mutant:
    """Pair the whole file with one of another size."""
    height, width = case.array.shape[:2]
    partner = (height + int(rng.integers(1, 9)), width - int(rng.integers(0, 9)))
    return Mutant(name="sizes mixed", data=case.data, ending=case.ending, partner=partner)


def header_changed(case: Case, rng: Rng) -> Mutant:
    """Change one field of the header so that it promises another amount of pixels, checksums mended."""
    change = {"PNG": _png_header, "TIFF": _tiff_header, "BMP": _bmp_header, "PNM": _pnm_header, "JPEG": _jpeg_header}
    if case.format not in change:
        return truncated(case, rng)
    field, data, is_open = change[case.format](case.data, rng)
    return Mutant(name=f"header: {field}", data=data, ending=case.ending, open=is_open)


def part_dropped(case: Case, rng: Rng) -> Mutant:
    """Drop a chunk, a strip or a segment."""
    if case.format == "PNG":
        chunks = _png_chunks(case.data)
        number = int(rng.integers(len(chunks)))
        dropped = chunks.pop(number)
        return Mutant(
            name=f"chunk {dropped[4:8].decode()} dropped", data=case.data[:8] + b"".join(chunks), ending=case.ending
        )
    if case.format == "JPEG":
        places = [
            p for p in range(len(case.data) - 1) if case.data[p] == 0xFF and case.data[p + 1] in (0xC4, 0xDA, 0xDB)
        ]
        place = int(rng.choice(places))
        length = 2 + int.from_bytes(case.data[place + 2 : place + 4], "big")
        is_open = case.data[place + 1] != 0xDA  # without its tables libjpeg takes the standard ones
        data = case.data[:place] + case.data[place + length :]
        return Mutant(name="segment dropped", data=data, ending=case.ending, open=is_open)
    return header_changed(case, rng)


def _png_chunks(data: bytes) -> list[bytes]:
    place, chunks = 8, []
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        chunks.append(data[place:end])
        place = end
    return chunks


def _png_header(data: bytes, rng: Rng) -> tuple[str, bytes, bool]:
    chunks = _png_chunks(data)
    content = bytearray(chunks[0][8:21])
    field = str(rng.choice(("width", "height", "fewer rows", "depth", "colour type", "interlace", "method")))
    width, height = int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")
    if field == "width":
        content[:4] = (2 * width + 7).to_bytes(4, "big")
    elif field == "height":
        content[4:8] = (height + int(rng.integers(1, 50))).to_bytes(4, "big")
    elif field == "fewer rows":
        content[4:8] = (height - int(rng.integers(1, height))).to_bytes(4, "big")
    elif field == "depth":
        content[8] = int(rng.choice([d for d in (1, 2, 4, 8, 16, 3) if d != content[8]]))
    elif field == "colour type":
        content[9] = int(rng.choice([c for c in (0, 2, 3, 4, 6, 7) if c != content[9]]))
    else:
        content[12 if field == "interlace" else 10] ^= 1
    chunks[0] = files.chunk(b"IHDR", bytes(content))
    return field, data[:8] + b"".join(chunks), False


def _directory_place(data: bytes) -> int:
    order = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    return int.from_bytes(data[8:16] if big else data[4:8], order)  # type: ignore[arg-type]


def _tiff_header(data: bytes, rng: Rng) -> tuple[str, bytes, bool]:
    order = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    start, out = _directory_place(data), bytearray(data)
    size, first = (20, start + 8) if big else (12, start + 2)
    count = int.from_bytes(data[start : start + (8 if big else 2)], order)  # type: ignore[arg-type]
    fields = {256: "width", 257: "height", 258: "bits", 277: "samples", 273: "offsets", 279: "byte counts"}
    fields |= {324: "offsets", 325: "byte counts", 259: "compression", 262: "photometric", 317: "predictor"}
    entries = {}
    for number in range(count):
        place = first + number * size
        tag = int.from_bytes(data[place : place + 2], order)  # type: ignore[arg-type]
        if tag in fields:
            entries[tag] = place
    tag = int(rng.choice(sorted(entries)))
    place = entries[tag] + (12 if big else 8)
    is_short = int.from_bytes(data[entries[tag] + 2 : entries[tag] + 4], order) == 3  # type: ignore[arg-type]
    length = 2 if is_short else 8 if big else 4
    value = int.from_bytes(data[place : place + length], order)  # type: ignore[arg-type]
    changed = {256: 3 * value + 9, 257: 3 * value + 20, 273: value + len(data), 324: value + len(data)}.get(tag)
    if changed is None:
        changed = {279: value // 3, 325: value // 3}.get(tag, int(rng.choice((0, 1, 2, 3, 5, 7, 16, 32, 999))))
    out[place : place + length] = (changed % 256**length).to_bytes(length, order)  # type: ignore[arg-type]
    # Only what promises another amount of data can be noticed; arrays of offsets lie elsewhere in the file.
    return fields[tag], bytes(out), tag not in (256, 257)


def _bmp_header(data: bytes, rng: Rng) -> tuple[str, bytes, bool]:
    out, field = bytearray(data), str(rng.choice(("width", "height", "palette")))
    place = {"width": 18, "height": 22, "palette": 46}[field]
    value = int.from_bytes(data[place : place + 4], "little")
    out[place : place + 4] = (2 * value + 300 if field == "palette" else 3 * value + 9).to_bytes(4, "little")
    return field, bytes(out), field == "palette"


def _pnm_header(data: bytes, rng: Rng) -> tuple[str, bytes, bool]:
    head, size, rest = data.split(b"\n", 3)[:2], data.split(b"\n", 3)[2], data.split(b"\n", 3)[3]
    width, height = (int(word) for word in size.split())
    more = f"{width} {height + int(rng.integers(1, 9))}".encode()
    return "height", b"\n".join([*head, more, rest]), False


def _jpeg_header(data: bytes, rng: Rng) -> tuple[str, bytes, bool]:
    place = next(p for p in range(len(data)) if data[p] == 0xFF and data[p + 1] in (0xC0, 0xC2))
    out, field = bytearray(data), str(rng.choice(("process", "bits", "components")))
    if field == "process":
        out[place + 1] = int(
            rng.choice([m for m in (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC)) if m != out[place + 1]])
        )
        return field, bytes(out), {data[place + 1], out[place + 1]} == {0xC0, 0xC1}
    out[place + (4 if field == "bits" else 9)] = 12 if field == "bits" else int(rng.choice((1, 2, 4)))
    return field, bytes(out), False


MUTATIONS: tuple[Callable[[Case, Rng], Mutant], ...] = (
    truncated,
    flipped,
    pixels_flipped,
    other_ending,
    with_tail,
    hole,
    mixed_sizes,
    header_changed,
    header_changed,
    part_dropped,
)


def read_as_users_do(case: Case, mutant: Mutant, folder: Path) -> dict[str, np.ndarray | SegAtlasError | Exception]:
    """Return what each way of reading gives: an array, or the error that it raises."""
    kind, other = ("masks", "images") if case.is_mask else ("images", "masks")
    path = folder / "train" / kind / f"a{mutant.ending}"
    for place in (path.parent, folder / "train" / other):
        place.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mutant.data)
    size = mutant.partner or case.array.shape[:2]
    Image.fromarray(np.zeros((*size, 3) if case.is_mask else size, np.uint8)).save(folder / "train" / other / "a.png")
    channels = 3 if case.is_mask else case.array.shape[2]
    config = DataConfig.model_validate(
        {"root": str(folder), "classes": CLASSES, "channels": channels, "store": "off", "label_map": None}
    )
    ways: dict[str, Callable[[], np.ndarray]] = {"dataset": lambda: _sample(config, case)}
    if mutant.partner is None:
        ways["data check"] = lambda: _looked_at(path, case)
        ways["reader"] = lambda: read_mask(path) if case.is_mask else read_image(path)
        if not case.is_mask:
            ways["predict"] = lambda: prepare(path, _card(channels), check_scale=False).values
            ways["header"] = lambda: np.zeros(_header_shape(path), np.uint8)
    results: dict[str, np.ndarray | SegAtlasError | Exception] = {}
    for name, way in ways.items():
        try:
            results[name] = way()
        except Exception as error:
            results[name] = error
    return results


def _sample(config: DataConfig, case: Case) -> np.ndarray:
    sample = create_dataset(config, "train").load(0)
    if not case.is_mask:
        return sample.image
    assert sample.label is not None
    return sample.label


def _looked_at(path: Path, case: Case) -> np.ndarray:
    """Look as `data check` does; where it finds no fault, give the array, checked against its counts."""
    facts = look_at_mask(path, LabelEncoding()) if case.is_mask else look_at_image(path)
    if facts.fault:
        raise SegAtlasError(facts.fault)
    array = read_mask(path) if case.is_mask else read_image(path)
    return array if facts.size == array.shape[:2] else np.zeros((0, 0))


def _header_shape(path: Path) -> tuple[int, int, int]:
    header = read_header(path)
    array = read_image(path)
    return (header.height, header.width, header.channels) if array.shape[2] == header.channels else (0, 0, 0)


def _card(channels: int) -> Card:
    return Card(
        architecture="unet",
        config={},
        classes=("a", "b"),
        palette=((0, 0, 0), (255, 0, 0)),
        inputs=(InputSpec(channels=channels),),
        preprocessing=Preprocessing(mean=(0.0,) * channels, std=(1.0,) * channels),
    )


def judge(case: Case, mutant: Mutant, results: dict[str, object]) -> dict[str, str]:
    """Return for each way of reading: refused, equal, open, raw or silent."""
    verdicts = {}
    for way, found in results.items():
        if isinstance(found, SegAtlasError):
            verdicts[way] = "refused"
        elif isinstance(found, Exception):
            verdicts[way] = "raw"
        elif mutant.partner is not None:
            verdicts[way] = "silent"  # a pair of two sizes was taken
        else:
            assert isinstance(found, np.ndarray)
            is_equal = found.shape == case.array.shape and (way == "header" or np.array_equal(found, case.array))
            verdicts[way] = "equal" if is_equal else "open" if mutant.open else "silent"
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run the case of this number alone")
    options = parser.parse_args()
    table: dict[str, Counter[str]] = {}
    faults, slowest, whole = [], 0.0, 0
    for number in range(options.count) if options.only is None else [options.only]:
        rng = np.random.default_rng([options.seed, number])
        case = make_case(rng)
        mutant = MUTATIONS[rng.integers(len(MUTATIONS))](case, rng)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            results = read_as_users_do(case, mutant, Path(folder))
            slowest = max(slowest, time.perf_counter() - start)
        verdicts = judge(case, mutant, results)
        worst = next(v for v in ("raw", "silent", "open", "equal", "refused") if v in verdicts.values())
        table.setdefault(case.format, Counter())[worst] += 1
        whole += 1
        if worst in ("raw", "silent"):
            ways = ", ".join(f"{way}: {verdict}" for way, verdict in verdicts.items())
            kind = "mask" if case.is_mask else "image"
            faults.append(f"case {number}: {case.format} {kind}, {mutant.name}: {ways}")
            faults += [f"    {way}: {type(r).__name__}: {r}" for way, r in results.items() if verdicts[way] == "raw"]
    columns = ("refused", "equal", "open", "raw", "silent")
    print(f"| format | files | {' | '.join(columns)} |")
    print("| --- |" + " ---: |" * (1 + len(columns)))
    for name, counts in sorted(table.items()):
        print(f"| {name} | {counts.total()} | {' | '.join(str(counts[column]) for column in columns)} |")
    total = sum(table.values(), Counter())
    print(f"| all | {whole} | {' | '.join(str(total[column]) for column in columns)} |")
    print("\n".join(faults))
    print(f"slowest file {slowest:.2f} s", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
