"""Write a repaired copy of a dataset; the source is only read.

The copy is a plain folder dataset, `OUT/{split}/{images,masks}/KEY.*` with `classes.json`, and `fixes.json` that says
what was done to which file. What cannot be repaired is left out, and named there. Objects that lie beside the masks are
written to `OUT/{split}/instances`, each once, as the pixels that it has in its image.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from segatlas.data.checks.findings import CheckReport
from segatlas.data.checks.object_files import without_repeated, write_objects
from segatlas.data.checks.pairing import is_turned
from segatlas.data.checks.reading import Reading
from segatlas.data.checks.repairable import Standard, object_names, reason_to_leave_out, standard_of
from segatlas.data.checks.scan import Progress, ScanResult
from segatlas.data.checks.snapping import snap
from segatlas.data.checks.stats import ImageStats, MaskStats, pack
from segatlas.data.datasets.decoder import Decoder
from segatlas.data.datasets.listing import Item, LabelEncoding
from segatlas.data.datasets.truths import INSTANCES
from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.images import read_image, write_image
from segatlas.data.formats.masks import IGNORE, read_raw, write_mask
from segatlas.data.formats.pixels import upright
from segatlas.errors import DataError, UsageError
from segatlas.files import whole_folder
from segatlas.structures import InstancesTarget

FIXES_FILE = "fixes.json"
MENDED = {
    "area_mismatch": "areas or boxes of objects left to their masks",
    "polygon_outside": "polygons of objects cut at the image",
    "empty_object": "objects without a pixel left out",
    "repeated_object": "objects that were there twice left out once",
}
"""Kind of finding about objects -> what a copy does about it."""


def repair(found: CheckReport, out: str | Path, progress: Progress | None = None) -> Path:
    """Write a repaired copy to a new folder, which appears when all of it is there.

    Args:
        found: what `examine` returned for the whole dataset.
        out: the folder to make; missing or empty.
        progress: called with (pairs written, pairs in all).

    Raises:
        UsageError: `out` is not empty, or lies in the dataset itself.
        DataError: nothing would be left, the masks show fewer than two classes, or `out` cannot be written.
    """
    out, scan, reading = Path(out), found.scan, found.reading
    if scan is None or reading is None:
        raise DataError(
            "no copy is written: the layout comes first; do what `data check` says of it, then give --fix again",
            found.root,
        )
    check_new_folder(out, found.root)
    standard = standard_of(scan)
    if standard is None or scan.obstacle:
        raise DataError(f"cannot be repaired: {scan.obstacle}", found.root)
    with whole_folder(out, durable=False) as temporary:
        record, written = _write_pairs(scan, reading, standard, temporary, progress)
        write_classes(temporary / JSON_FILE, reading.classes, reading.palette)
        content: dict[str, object] = {
            "source": str(found.root),
            "notes": list(reading.notes),
            "written": dict(written),
        }
        content["files"] = record
        (temporary / FIXES_FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return out


def check_new_folder(out: Path, root: str | Path | None) -> None:
    """Raise UsageError unless `out` is missing or an empty folder, outside the dataset itself, if that has a root."""
    source = None if root is None else Path(root).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is not empty; give a new folder")
    if source is not None and out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{out}: lies in the dataset itself; give a folder outside {source}")


def _write_pairs(
    scan: ScanResult, reading: Reading, standard: Standard, root: Path, progress: Progress | None
) -> tuple[list[dict[str, object]], Counter[str]]:
    record: list[dict[str, object]] = []
    written: Counter[str] = Counter()
    pairs = list(scan.items())
    for number, (split, item) in enumerate(pairs, start=1):
        entry: dict[str, object] = {"split": split, "image": str(item.image), "mask": str(item.target or "")}
        reason = reason_to_leave_out(split, item, scan, reading, standard)
        if reason:
            record.append({**entry, "left_out": reason})
        else:
            done = _write_pair(split, item, scan, reading, standard, root)
            written[split] += 1
            if done:
                record.append({**entry, "done": done})
        if progress:
            progress(number, len(pairs))
    for split, part in scan.listing.parts.items():
        alone = {"no mask": part.images_without_mask, "no image": part.masks_without_image}
        alone["another file has the same stem"] = part.duplicates
        record += [
            {"split": split, "file": str(path), "left_out": why} for why, paths in alone.items() for path in paths
        ]
    return record, written


def _write_pair(
    split: str, item: Item, scan: ScanResult, reading: Reading, standard: Standard, root: Path
) -> list[str]:
    """Write one item, of which nothing speaks against it, and return what was done to it."""
    image = scan.images[item.image]
    done: list[str] = []
    label = None
    if item.target is not None:
        mask = scan.masks[item.target]
        label, done = _repaired_label(mask, reading, scan.listing.encoding)
        label = _fitted(label, image, mask, done)
    done += _write_image(image, root / split / "images" / item.key, standard)
    if label is not None:
        target = root / split / "masks" / item.key
        write_mask(target.with_name(f"{target.name}.png"), label, reading.palette)
    if INSTANCES in item.truths:
        done += _write_objects(split, item, scan, reading, root)
    return done


def _write_objects(split: str, item: Item, scan: ScanResult, reading: Reading, root: Path) -> list[str]:
    """Write the objects of an item and return what was done to them."""
    target = scan.listing.truths[INSTANCES].read(item, Decoder())
    assert isinstance(target, InstancesTarget)
    names = object_names(scan.listing, reading)
    write_objects(root / split / "instances", item.key, without_repeated(target), names)
    counts = Counter(kind for kind, _ in scan.truths[INSTANCES, item.image].problems if kind in MENDED)
    return [f"{count} {MENDED[kind]}" for kind, count in counts.items()]


def _repaired_label(mask: MaskStats, reading: Reading, encoding: LabelEncoding) -> tuple[np.ndarray, list[str]]:
    """Return the label (H, W) uint8, 0..K-1 or 255, and what was done to the mask."""
    if encoding.rule is not None:
        return encoding.rule.decode(read_bytes(mask.path), mask.path), ["colours became class indices"]
    raw = read_raw(mask.path, as_colors=encoding.colors is not None)
    codes = pack(raw) if reading.by_color else (raw[..., 0] if raw.ndim == 3 else raw)
    table = reading.table_of(mask.path)
    done = []
    if mask.is_lossy or mask.is_smoothed:
        real = tuple(code for code in reading.real if code in table) or tuple(table)
        snapped = snap(codes, real, by_color=reading.by_color, is_lossy=mask.is_lossy)
        changed = int(np.count_nonzero(snapped != codes))
        if changed:
            done.append(f"{changed} smeared pixels snapped to a class")
        codes = snapped
    found, inverse = np.unique(codes, return_inverse=True)
    targets = np.array([table.get(int(code), IGNORE) for code in found], np.uint8)
    label = targets[inverse.reshape(codes.shape)]
    outside = int(np.count_nonzero(~np.isin(codes, list(table))))
    if outside:
        done.append(f"{outside} pixels out of range set to 255")
    if mask.path in reading.white:
        done.append("255 became class 1")
    if reading.by_color:
        done.append("colours became class indices")
    return label, done


def _fitted(label: np.ndarray, image: ImageStats, mask: MaskStats, done: list[str]) -> np.ndarray:
    """Return the label in its image's upright size; adds to `done`."""
    if label.shape == image.size:
        return label
    if is_turned(image, mask):
        done.append(f"mask turned upright like its image (EXIF orientation {image.orientation})")
        return upright(label[..., None], image.orientation)[..., 0]
    (height, width), (rows, columns) = image.size, mask.size
    done.append(f"mask resized from {columns} x {rows} to {width} x {height}, nearest")
    resized: np.ndarray = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized


def _write_image(image: ImageStats, target: Path, standard: Standard) -> list[str]:
    """Copy an image, or write it anew where it is turned or of another kind than most."""
    target.parent.mkdir(parents=True, exist_ok=True)
    done = []
    if image.orientation != 1:
        done.append(f"image turned upright (EXIF orientation {image.orientation}) and written as PNG")
    if image.depth != standard.depth:
        done.append(f"image converted from {image.depth} to {standard.depth}")
    if image.channels != standard.channels:
        done.append(f"image converted from {image.channels} to {standard.channels} channels")
    if not done:
        shutil.copyfile(image.path, target.with_name(target.name + image.path.suffix))
        return done
    array = read_image(image.path, standard.channels)
    if image.depth != standard.depth:
        is_deep = standard.depth == "uint16"
        array = array.astype(np.uint16) * 257 if is_deep else (array // 257).astype(np.uint8)
    write_image(target, array)
    return done
