"""Faults of a set as a whole: no image, a split that training needs, a split without a label, values out of range."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from segatlas.data.doctor.findings import Finding
from segatlas.data.doctor.reading import Reading
from segatlas.data.doctor.survey import Survey
from segatlas.data.formats.masks import IGNORE
from segatlas.data.value_range import range_doubt, range_repair


def check_splits(survey: Survey, reading: Reading) -> Iterator[Finding]:
    """Find a set without any image, and the lack of a split that training cannot do without."""
    inventory = survey.inventory
    images = {name: len(part.matched) + len(part.pictures_without_mask) for name, part in inventory.parts.items()}
    if not sum(images.values()):
        yield Finding(
            kind="no_image",
            severity="error",
            files=(inventory.root,),
            fault=f"no image was found where data.name={inventory.name} has them",
            repair="look at the layout of the data set in the documentation, or name its files in data.lists",
        )
        return
    if inventory.chosen is not None or any(finding.kind == "list" for finding in inventory.findings):
        return  # one split was asked for, or a list that is named already could not be read
    there = ", ".join(name for name, count in images.items() if count)
    if not images.get("train"):
        yield _missing_split(inventory.root, "there is no train split, so nothing can be trained", there)
    has_val = bool(images.get("val")) or (
        inventory.holds_out_val and not inventory.has_part("val") and images.get("train", 0) > 1
    )
    if not has_val and images.get("train"):
        more = ", and one image of train is too few to hold one out" if inventory.holds_out_val else ""
        yield _missing_split(inventory.root, f"there is no val split{more}: training validates on it", there)


def _missing_split(root: Path, fault: str, there: str) -> Finding:
    return Finding(
        kind="missing_split",
        severity="error",
        files=(root,),
        fault=f"{fault}; there is: {there}",
        repair="add one; or look only at a split that is there: segatlas data check ... --split NAME",
    )


def check_labels(survey: Survey, reading: Reading) -> Iterator[Finding]:
    """Find splits in which no pixel of any mask is labelled."""
    codes: dict[str, set[int]] = defaultdict(set)
    files: dict[str, list[Path]] = defaultdict(list)
    unknown = set()
    for split, pair in survey.pairs():
        mask = survey.masks.get(pair.mask) if pair.mask is not None else None
        if mask is None or mask.fault:
            continue
        if reading.codes_of(mask) is None or reading.bad_codes(mask) or mask.path in reading.white:
            unknown.add(split)
        codes[split].update(reading.label_counts(mask))
        files[split].append(mask.path)
    for split, labels in codes.items():
        if labels == {IGNORE} and split not in unknown and reading.classes:
            yield no_label(split, files[split])


def no_label(split: str, masks: Sequence[Path]) -> Finding:
    """Return the finding about a split in which no pixel is labelled."""
    return Finding(
        kind="no_label",
        severity="error",
        files=tuple(masks),
        fault=f"no pixel of the {len(masks)} masks of {split} is labelled: all are 255 or data.ignore",
        repair="export the masks again; are the values that mean classes listed in data.ignore?",
    )


def check_range(survey: Survey, reading: Reading) -> Iterator[Finding]:
    """Find images whose values fill a small part of the declared range only, or go beyond it."""
    peaks: dict[str, list[tuple[float, Path]]] = defaultdict(list)
    for picture in survey.pictures.values():
        if not picture.fault:
            peaks[picture.depth].append((picture.highest, picture.path))
    yield from range_findings(peaks, survey.max_value)


def range_findings(peaks: Mapping[str, Sequence[tuple[float, Path]]], max_value: float | None) -> Iterator[Finding]:
    """Compare the largest value of images of the most frequent depth with the declared range.

    peaks: depth -> the largest value of each image, and its file. max_value: the declared one; None = the type's own.
    """
    if not peaks:
        return
    depth = max(peaks, key=lambda name: len(peaks[name]))
    peak, path = max(peaks[depth])
    doubt = range_doubt(depth, len(peaks[depth]), peak, max_value)
    if doubt:
        repair = range_repair(depth, peak)
        yield Finding(kind="value_range", severity="warning", files=(path,), fault=doubt, repair=repair)
