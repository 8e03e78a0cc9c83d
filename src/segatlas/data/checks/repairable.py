"""What a repaired copy would hold and what has to be left out of it, known before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from segatlas.data.checks.pairing import is_turned
from segatlas.data.checks.reading import Reading
from segatlas.data.checks.rules import same_images
from segatlas.data.checks.scan import ScanResult
from segatlas.data.checks.stats import ImageStats, MaskStats
from segatlas.data.datasets.listing import FileListing, Item
from segatlas.data.datasets.truths import INSTANCES, SEGMENTS
from segatlas.data.formats.pixels import can_convert, common_channels

UNREAD = ("bad_annotation", "unlisted_segment")
"""Kinds of findings about single objects with which the others of an image cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Standard:
    """What all images are brought to, and pairs that are dropped for being in another split too."""

    channels: int
    depth: str
    dropped: dict[tuple[str, str], str]


def obstacle_to_repair(scan: ScanResult, reading: Reading) -> str:
    """Return why no repaired copy can be written, or "" where it can."""
    lost = lost_in_copy(scan.listing, keeps=(INSTANCES,))
    if lost:
        return lost
    if scan.images and not scan.masks and any(item.truths for _, item in scan.items()):
        return "it has no masks; segatlas data convert --to coco writes objects anew"
    standard = standard_of(scan)
    if standard is None:
        return "no image is readable" if scan.images else "there is no image with a mask"
    if len(reading.classes) < 2 or not reading.table:
        return "the masks do not show two classes"
    if any(mask.is_palette and reading.bad_codes(mask) for mask in scan.readable_masks()):
        return "masks with a palette hold indices of no class, which a copy would lose: name the palette's colours in \
data.label_colors"
    if lost := lost_entries(scan.listing):
        return lost
    foreign = [name for name in object_names(scan.listing, reading) if name not in reading.classes]
    if foreign:
        return f"objects have the class {foreign[0]!r}, masks have none of it: name the classes in data.classes"
    pairs = [item for split, item in scan.items() if split == "train"]
    if not any(not reason_to_leave_out("train", item, scan, reading, standard) for item in pairs):
        return "no pair of train would be left"
    return ""


def object_names(listing: FileListing, reading: Reading) -> tuple[str, ...]:
    """Return the names of the classes of objects; () where there are none."""
    if not any(INSTANCES in item.truths for part in listing.parts.values() for item in part.items):
        return ()
    table = listing.class_tables.get(INSTANCES)
    return reading.classes if table is None else table.names


def lost_entries(listing: FileListing) -> str:
    """Return in words which entries of annotation files belong to no object that can be written; "" for none."""
    fault = next((one.fault for one in listing.faults if one.kind in ("bad_annotation", "unknown_class")), "")
    return f"objects whose image or class is not known would be lost: {fault}" if fault else ""


def lost_in_copy(listing: FileListing, keeps: Collection[str] = ()) -> str:
    """Return in words what a folder of images and masks would lose of a dataset; "" where it is nothing.

    keeps: truths that the copy holds as well; segments that are in masks and objects are then no loss.
    """
    found = [(name in listing.truths, one.label) for part in listing.parts.values()
             for name, one in part.companions.items()
             if name not in keeps and not (keeps and name == "SegmentsTarget")]  # fmt: skip
    told = {name for part in listing.parts.values() for name in part.companions}
    further = {name for part in listing.parts.values() for item in part.items for name in item.sources} - told
    found += [(False, name) for name in sorted(further)]
    if not found:
        return ""
    named = f"a copy holds images and masks alone, not: {', '.join(sorted({label for _, label in found}))}"
    if not all(is_truth for is_truth, _ in found):
        return named
    return f"{named}; a recipe of a semantic task in place of the folder, with data.root={listing.root}, writes that"


def standard_of(scan: ScanResult) -> Standard | None:
    """Return what most readable images are; None where there is none."""
    images = [image for image in scan.images.values() if not image.fault]
    if not images:
        return None
    depths = Counter(image.depth for image in images)
    dropped = {}
    for group in same_images(scan).values():
        last_split, last = group[-1]
        for split, item in group:
            if split != last_split:
                dropped[split, item.key] = f"the same image is in {last_split} ({last.image}); kept there"
    return Standard(
        channels=scan.listing.channels or common_channels(image.channels for image in images),
        depth=max(depths, key=lambda depth: (depths[depth], depth)),
        dropped=dropped,
    )


def reason_to_leave_out(split: str, item: Item, scan: ScanResult, reading: Reading, standard: Standard) -> str:
    """Return why a pair cannot be part of the copy, or "" where it can."""
    image = scan.images[item.image]
    mask = scan.masks[item.target] if item.target is not None else None
    if image.fault:
        return f"image: {image.fault}"
    if (split, item.key) in standard.dropped:
        return standard.dropped[split, item.key]
    if mask is not None and mask.fault:
        return f"mask: {mask.fault}"
    if mask is not None and reading.codes_of(mask) is None:
        return "mask: stored as colours, the others as indices" if mask.is_color else "mask: holds indices"
    if mask is not None and _has_another_shape(image, mask):
        (height, width), (rows, columns) = image.size, mask.size
        return f"mask of {columns} x {rows} pixels for an image of {width} x {height}: another aspect ratio"
    objects = scan.listing.parts[split].companions.get(INSTANCES)
    if objects is not None and item.image in objects.missing:
        return f"no {objects.words}"
    if INSTANCES in item.truths and (fault := _fault_of_objects(item, scan)):
        return f"objects: {fault}"
    if not can_convert(image.channels, standard.channels):
        return f"image: {image.channels} channels, the copy has {standard.channels}"
    if image.depth != standard.depth and "float32" in (image.depth, standard.depth):
        return f"image: {image.depth}, most are {standard.depth}"
    return ""


def _fault_of_objects(item: Item, scan: ScanResult) -> str:
    """Return why the objects of an image cannot be copied, "" where they can."""
    image, truth = scan.images[item.image], scan.truths[INSTANCES, item.image]
    segments = scan.truths.get((SEGMENTS, item.image), truth)  # a panoptic map, of which these may be the things
    unread = [text for look in (truth, segments) for kind, text in look.problems if kind in UNREAD]
    if truth.fault or truth.misfit or unread:
        return truth.fault or truth.misfit or unread[0]
    if truth.size != image.size:
        (height, width), (rows, columns) = image.size, truth.size
        return f"of {columns} x {rows} pixels for an image of {width} x {height}"
    return ""


def _has_another_shape(image: ImageStats, mask: MaskStats) -> bool:
    if image.size == mask.size or is_turned(image, mask):
        return False
    (height, width), (rows, columns) = image.size, mask.size
    return abs(rows * width / columns - height) > 1 and abs(columns * height / rows - width) > 1
