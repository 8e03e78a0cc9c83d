"""Faults of a set as a whole: no image, a split that training needs, a split without a label, values out of range."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segatlas.data.checks.findings import Finding
from segatlas.data.checks.reading import Reading
from segatlas.data.checks.scan import ScanResult
from segatlas.data.formats.masks import IGNORE
from segatlas.data.formats.nifti import is_volume_name
from segatlas.data.value_range import NO_DATA_REPAIR, no_data_doubt, range_doubt, range_repair


@dataclass(frozen=True, kw_only=True)
class ValueEnds:
    """The smallest and the largest stored value of an image, and its type."""

    path: Path
    depth: str
    lowest: float
    highest: float


def check_splits(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find a set without any image, and the lack of a split that training cannot do without."""
    listing = scan.listing
    images = {name: len(part.items) + len(part.images_without_mask) for name, part in listing.parts.items()}
    if not sum(images.values()):
        yield Finding(
            kind="no_image",
            severity="error",
            files=(listing.root,),
            fault=f"no image was found where data.name={listing.name} has them",
            repair="look at the layout of the dataset in the documentation, or name its files in data.lists",
        )
        return
    if listing.chosen is not None or any(fault.kind == "list" for fault in listing.faults):
        return  # one split was asked for, or a list that is named already could not be read
    there = ", ".join(name for name, count in images.items() if count)
    if not images.get("train"):
        yield _missing_split(listing.root, "there is no train split, so nothing can be trained", there)
    has_val = bool(images.get("val")) or (
        listing.holds_out_val and not listing.has_part("val") and images.get("train", 0) > 1
    )
    if not has_val and images.get("train"):
        more = ", and one image of train is too few to hold one out" if listing.holds_out_val else ""
        yield _missing_split(listing.root, f"there is no val split{more}: training validates on it", there)


def _missing_split(root: Path, fault: str, there: str) -> Finding:
    return Finding(
        kind="missing_split",
        severity="error",
        files=(root,),
        fault=f"{fault}; there is: {there}",
        repair="add one; or look only at a split that is there: segatlas data check ... --split NAME",
    )


def check_labels(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find splits in which no pixel of any mask is labelled."""
    codes: dict[str, set[int]] = defaultdict(set)
    files: dict[str, list[Path]] = defaultdict(list)
    unknown = set()
    for split, item in scan.items():
        mask = scan.masks.get(item.target) if item.target is not None else None
        if mask is None or mask.fault:
            continue
        if reading.codes_of(mask) is None or reading.bad_codes(mask) or mask.path in reading.white:
            unknown.add(split)
        codes[split].update(reading.label_counts(mask))
        files[split].append(mask.path)
    for split, labels in codes.items():
        if labels == {IGNORE} and split not in unknown and reading.classes:
            yield no_label(split, files[split])
    for split, part in scan.listing.parts.items():
        keys = [("SemanticTarget", item.image) for item in part.items]
        looks = [scan.truths[key] for key in keys if key in scan.truths]
        if looks and not any(look.objects or look.fault or look.misfit for look in looks):
            yield no_label(split, list(dict.fromkeys(look.path for look in looks)))


def no_label(split: str, masks: Sequence[Path]) -> Finding:
    """Return the finding about a split in which no pixel is labelled."""
    return Finding(
        kind="no_label",
        severity="error",
        files=tuple(masks),
        fault=f"no pixel of the {len(masks)} masks of {split} is labelled: all are 255 or data.ignore",
        repair="export the masks again; are the values that mean classes listed in data.ignore?",
    )


def check_range(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find images whose values fill a small part of the declared range only, or go beyond it."""
    ends: dict[str, list[ValueEnds]] = defaultdict(list)
    for split, item in scan.items():
        image = scan.images[item.image]
        is_windowed = scan.max_value is None and is_volume_name(item.image)  # values are those of data.window, 0..1
        if not image.fault and not is_windowed:
            ends[split].append(
                ValueEnds(path=image.path, depth=image.depth, lowest=image.lowest, highest=image.highest)
            )
    yield from range_findings(ends, scan.max_value)


OTHER_SCALE_REPAIR = "the splits together fit; bring all images to one scale"


def range_findings(ends: Mapping[str, Sequence[ValueEnds]], declared: float | None) -> Iterator[Finding]:
    """Say what is doubtful about the values of images of the commonest type: of all splits together, else of one."""
    together = [one for of_split in ends.values() for one in of_split]
    if not together:
        return
    depth = Counter(one.depth for one in together).most_common(1)[0][0]
    found = list(_range_of(depth, together, declared))
    if not found:
        for split, of_split in ends.items():
            found += [
                replace(finding, fault=f"split {split}: {finding.fault}", repair=OTHER_SCALE_REPAIR)
                for finding in _range_of(depth, of_split, declared)
            ]
    yield from found


def _range_of(depth: str, ends: Sequence[ValueEnds], declared: float | None) -> Iterator[Finding]:
    ends = [one for one in ends if one.depth == depth]
    if not ends:
        return
    smallest, largest = min(ends, key=lambda one: one.lowest), max(ends, key=lambda one: one.highest)
    doubts = (
        (
            range_doubt(depth, len(ends), largest.highest, declared),
            largest.path,
            range_repair(depth, largest.highest),
        ),
        (no_data_doubt(depth, len(ends), smallest.lowest, declared), smallest.path, NO_DATA_REPAIR),
    )
    for fault, path, repair in doubts:
        if fault:
            yield Finding(kind="value_range", severity="warning", files=(path,), fault=fault, repair=repair)
