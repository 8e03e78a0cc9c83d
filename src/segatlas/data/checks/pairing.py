"""Faults between files that belong together: an image, its mask, further inputs, truths of other types."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from segatlas.data.checks.findings import FIX_OPTION, Finding, Severity
from segatlas.data.checks.reading import Reading
from segatlas.data.checks.scan import ScanResult
from segatlas.data.checks.stats import ImageStats, MaskStats, TruthStats
from segatlas.data.datasets.foreign import FIRST_CHANNEL, brush_advice, channel_renames, masks_meant, without_channel
from segatlas.data.datasets.listing import Companions, Item, Part
from segatlas.data.formats.nifti import is_volume_name

Attached = tuple[str, str, Path, ImageStats | MaskStats | TruthStats | None]
"""Kind of finding, name, file, and what the file shows."""

Found = list[tuple[Path, str]]
"""Files at fault, each with its detail."""


def fix_command(scan: ScanResult) -> str:
    """Return what to type for a repaired copy: the whole command, or after a look at all files only its option."""
    if scan.obstacle is None:
        return f"segatlas data check {shlex.quote(str(scan.listing.root))} tells whether --fix can"
    if scan.obstacle:
        return f"by hand, for --fix can write no copy ({scan.obstacle})"
    return FIX_OPTION


def check_pairs(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find empty splits, files without partner, and several files of one stem."""
    fix = fix_command(scan)
    for split, part in scan.listing.parts.items():
        folders = scan.listing.folders.get(split)
        images, masks = (folders[0], folders[1]) if folders else (scan.listing.root, scan.listing.root)
        if not scan.listing.has_part(split) and any(map(scan.listing.has_part, scan.listing.parts)):
            yield Finding(
                kind="empty_split",
                severity="error",
                files=(images,),
                fault=f"split {split} has no image",
                repair=f"put images into {images}, or delete the folder",
            )
        yield from _without_partner(_masks_of(part, masks), images, fix, ("missing_mask", "missing_image"))
        for one in part.companions.values():
            yield from _without_partner(one, images, fix, ("missing_file", "file_without_image"))
        duplicates = (*part.duplicates, *(path for one in part.companions.values() for path in one.duplicates))
        if duplicates:
            yield Finding(
                kind="duplicate_stem",
                severity="error",
                files=duplicates,
                fault="another file beside it has the same stem, so it is not clear which one is meant",
                repair=f"delete or rename one of them, or keep the first by name: {fix}",
            )


def _masks_of(part: Part, folder: Path) -> Companions:
    """Return what does not fit among the masks of a split, in the form of all other files."""
    return Companions(
        label="masks", words="mask", folder=folder, missing=part.images_without_mask, extra=part.masks_without_image
    )


def _without_partner(found: Companions, images: Path, fix: str, kinds: tuple[str, str]) -> Iterator[Finding]:
    """Tell of images that have no file of a kind, and of files of that kind that have no image."""
    renames = _channel_repair(found)
    if found.missing and found.is_table:
        yield Finding(
            kind=kinds[0],
            severity="error",
            files=found.missing,
            fault=f"{found.folder} has no row of them",
            repair="add the rows (an image that shows nothing has one with its name alone), or take the images out",
        )
    elif found.missing:
        there = "" if found.folder.is_dir() else f"; there is no folder {found.folder}"
        if kinds[0] == "missing_mask" and (other := masks_meant(found.folder)) is not None:
            there += f", but {other}: rename it to {found.folder.name}"
        advice = brush_advice(found.extra) if kinds[0] == "missing_mask" else ""
        what = "" if kinds[0] == "missing_mask" else f"no {found.words}: "
        yield Finding(
            kind=kinds[0],
            severity="error",
            files=found.missing,
            fault=f"{what}no file of the same stem in {found.folder}{there}",
            repair=advice or renames or f"add the {found.label} (equal stems), or leave the images out: {fix}",
        )
    if found.extra and not (kinds[0] == "missing_mask" and found.missing and brush_advice(found.extra)):
        yield Finding(
            kind=kinds[1],
            severity="warning",
            files=found.extra,
            fault=f"no file of the same stem in {images}; training leaves them out",
            repair=renames or f"add the images (equal stems), or leave the {found.label} out: {fix}",
        )


def _channel_repair(found: Companions) -> str:
    """Return what to do where names of images alone end in nnU-Net's number of a channel, else ""."""
    masks = {_stem(path) for path in found.extra}
    stems = {path: _stem(path) for path in found.missing}
    first = next((path for path, stem in stems.items() if without_channel(stem) in masks), None)
    if first is None:
        return ""
    new = first.name.replace(FIRST_CHANNEL, "")
    more = any(not stem.endswith(FIRST_CHANNEL) and stem[:-5] in masks for stem in stems.values())
    others = "\nfiles of further channels (_0001 and on) are not read: move them elsewhere" if more else ""
    return (
        f"nnU-Net ends names of images in their channel: rename {first.name} to {new}, and so on; "
        f"{channel_renames(first.parent)}{others}"
    )


def _stem(path: Path) -> str:
    return path.name[: path.name.lower().rindex(".nii")] if is_volume_name(path) else path.stem


def check_sizes(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find masks that do not cover their image."""
    turned: Found = []
    unclear: Found = []
    other: Found = []
    for item, image, mask in readable_pairs(scan):
        if image.size == mask.size:
            if image.orientation in (2, 3, 4) or (image.orientation > 1 and mask.size[0] == mask.size[1]):
                unclear.append((item.image, f"EXIF orientation {image.orientation}"))
        elif is_turned(image, mask):
            text = f"mask {_size(mask.size)}, upright image {_size(image.size)}"
            turned.append((item.image, f"EXIF orientation {image.orientation}: {text}"))
        elif item.target is not None:
            other.append((item.target, f"mask {_size(mask.size)}, image {_size(image.size)}"))
    fix = fix_command(scan)
    yield from _told(
        turned,
        "exif_turn",
        "error",
        "the camera's turn is stored beside the pixels, and the mask was drawn on the pixels as they lie",
        f"turn both upright: {fix}",
    )
    yield from _told(
        other,
        "size_mismatch",
        "error",
        "image and mask have different sizes",
        f"export the masks again in the images' size, or resize them (nearest, equal aspect ratio): {fix}",
    )
    yield from _told(
        unclear,
        "exif_unclear",
        "warning",
        "the image is turned when it is read; its mask fits both ways, so nobody can tell whether it lies right",
        f"look at them: segatlas data preview {shlex.quote(str(scan.listing.root))}",
    )


def check_companions(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find further inputs and truths of another size than their image, and truths whose numbers mean nothing."""
    sizes: dict[tuple[str, str], Found] = defaultdict(list)
    for split, item in scan.items():
        image = scan.images[item.image]
        words = {name: one.words for name, one in scan.listing.parts[split].companions.items()}
        sources: list[Attached] = [
            ("source_mismatch", name, path, scan.source(path)) for name, path in item.sources.items()
        ]
        truths: list[Attached] = [
            ("size_mismatch", name, path, scan.truths.get((name, item.image))) for name, path in item.truths.items()
        ]
        for kind, name, path, look in (*sources, *truths):
            if look is not None and not look.fault and not image.fault and look.size != image.size:
                what = f"{name} " if kind == "source_mismatch" else ""
                detail = f"{what}{_size(look.size)}, image {_size(image.size)}"
                sizes[kind, words.get(name, name)].append((told_at(item, path), detail))
    for (kind, what), found in sizes.items():
        fault = f"{what} and image have different sizes"
        repair = "export them again on the pixels of the images, or take the images and all that belongs to them away"
        yield from _told(found, kind, "error", fault, repair)
    told: dict[tuple[Path, str], None] = {}
    for (_, path), truth in scan.truths.items():
        if truth.misfit:
            told[truth.path, _with_image(path, truth.path, truth.misfit)] = None
    misfits = list(told)
    fault = "its numbers are not those of a truth of this dataset"
    yield from _told(misfits, "unusable", "error", fault, "export them again, or take the images and masks away")


def check_objects(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find splits whose maps of objects show not one: nothing can be learned or scored there."""
    for split, part in scan.listing.parts.items():
        keys = [("InstancesTarget", item.image) for item in part.items]
        looks = [scan.truths[key] for key in keys if key in scan.truths]
        if looks and not any(look.objects or look.fault or look.misfit or look.problems for look in looks):
            yield no_object(split, list(dict.fromkeys(look.path for look in looks)))


def check_truths(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find what is wrong with single objects and segments."""
    found: dict[str, dict[tuple[Path, str], None]] = defaultdict(dict)
    for (_, image), truth in scan.truths.items():
        for kind, text in truth.problems:
            found[kind][truth.path, _with_image(image, truth.path, text)] = None
    for kind, told in found.items():
        severity, fault, repair = PROBLEMS[kind]
        yield from _told(list(told), kind, severity, fault, repair)


def _with_image(image: Path, path: Path, text: str) -> str:
    """Return a text that names the image where the file is that of many."""
    return text if path.stem == image.stem else f"{image.name}: {text}"


PROBLEMS: dict[str, tuple[Severity, str, str]] = {
    "bad_annotation": ("error", "entries that cannot be read", "correct or delete them"),
    "polygon_outside": (
        "warning",
        "polygons that leave their image; what lies outside is not drawn",
        "is the image that which was annotated? Else cut the polygons",
    ),
    "area_mismatch": (
        "warning",
        "areas or boxes that are not those of the masks; training and scores go by the masks",
        "write the annotations anew: segatlas data convert ... --to coco, or --to panoptic",
    ),
    "empty_object": ("warning", "objects without a pixel; they are left out", "delete their entries"),
    "repeated_object": ("warning", "objects that are there twice", "delete one of each"),
    "unlisted_segment": (
        "error",
        "map and table differ: each segment is in both, and 0 is ignore",
        "write map and table together again, or delete what is in one only",
    ),
    "nothing_labelled": (
        "warning",
        "images of which nothing is labelled",
        "nothing is learned from them, or that they show nothing: label them, or take them out",
    ),
    "region_without_label": (
        "warning",
        "regions of the whole mask beside without a label; training does not learn from the whole mask",
        "label them too, where the labels should name every object",
    ),
    "contradiction": (
        "warning",
        "labels of another class than the whole mask beside has",
        "which of the two is right? Correct the other one",
    ),
    "bad_box": (
        "error",
        "boxes without a pixel of their image, or of an image of another size",
        "correct or delete them",
    ),
    "box_cut": ("warning", "boxes that leave their image; they are cut", "is the image that which was annotated?"),
    "overlap": (
        "error",
        "objects overlap, but a pixel of a panoptic map has one segment",
        "cut the objects, or train the task instance, which takes them as they are",
    ),
}
"""Kind of finding about single objects -> severity, fault, repair."""


def no_object(split: str, files: list[Path]) -> Finding:
    """Return the finding about a split without an object."""
    what = "nothing can be learned" if split == "train" else "scores of objects are undefined there"
    return Finding(
        kind="no_object",
        severity="error",
        files=tuple(files),
        fault=f"the {len(files)} maps of objects of {split} show none, so {what}",
        repair=f"export them again, or move images with objects to {split}",
    )


def told_at(item: Item, path: Path) -> Path:
    """Return the file to name: the image where the truth is an entry of a file of many."""
    return path if path.suffix.lower() != ".json" else item.image


def _told(found: Found, kind: str, severity: Severity, fault: str, repair: str) -> Iterator[Finding]:
    """Yield the finding about some files, if there are any."""
    if found:
        files, details = zip(*found, strict=True)
        yield Finding(kind=kind, severity=severity, files=files, details=details, fault=fault, repair=repair)


def readable_pairs(scan: ScanResult) -> Iterator[tuple[Item, ImageStats, MaskStats]]:
    """Yield the pairs whose two files could be decoded."""
    for _, item in scan.items():
        if item.target is not None:
            image, mask = scan.images[item.image], scan.masks[item.target]
            if not image.fault and not mask.fault:
                yield item, image, mask


def is_turned(image: ImageStats, mask: MaskStats) -> bool:
    """Whether a mask fits its image only as the camera stored it, on its side."""
    return image.orientation >= 5 and image.size != mask.size and image.size == mask.size[::-1]


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
