"""What a repaired copy would hold and what has to be left out of it, known before anything is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from segatlas.data.datasets.paired import Pair
from segatlas.data.doctor.facts import MaskFacts, PictureFacts
from segatlas.data.doctor.reading import Reading
from segatlas.data.doctor.rules import is_turned, same_pictures
from segatlas.data.doctor.survey import Survey
from segatlas.data.formats.pixels import can_convert, common_channels


@dataclass(frozen=True, kw_only=True)
class Standard:
    """What all pictures are brought to, and pairs that are dropped for being in another split too."""

    channels: int
    depth: str
    dropped: dict[tuple[str, str], str]


def obstacle_to_repair(survey: Survey, reading: Reading) -> str:
    """Return why no repaired copy can be written, or "" where it can."""
    standard = standard_of(survey)
    if standard is None:
        return "no picture is readable"
    if len(reading.classes) < 2 or not reading.table:
        return "the masks do not show two classes"
    pairs = [pair for split, pair in survey.pairs() if split == "train"]
    if not any(not reason_to_leave_out("train", pair, survey, reading, standard) for pair in pairs):
        return "no pair of train would be left"
    return ""


def standard_of(survey: Survey) -> Standard | None:
    """Return what most readable pictures are; None where there is none."""
    pictures = [picture for picture in survey.pictures.values() if not picture.fault]
    if not pictures:
        return None
    depths = Counter(picture.depth for picture in pictures)
    dropped = {}
    for group in same_pictures(survey).values():
        last_split, last = group[-1]
        for split, pair in group:
            if split != last_split:
                dropped[split, pair.key] = f"the same picture is in {last_split} ({last.image}); kept there"
    return Standard(
        channels=survey.inventory.channels or common_channels(picture.channels for picture in pictures),
        depth=max(depths, key=lambda depth: (depths[depth], depth)),
        dropped=dropped,
    )


def reason_to_leave_out(split: str, pair: Pair, survey: Survey, reading: Reading, standard: Standard) -> str:
    """Return why a pair cannot be part of the copy, or "" where it can."""
    picture = survey.pictures[pair.image]
    mask = survey.masks[pair.mask] if pair.mask is not None else None
    if picture.fault:
        return f"picture: {picture.fault}"
    if (split, pair.key) in standard.dropped:
        return standard.dropped[split, pair.key]
    if mask is not None and mask.fault:
        return f"mask: {mask.fault}"
    if mask is not None and reading.codes_of(mask) is None:
        return "mask: stored as colours, the others as indices" if mask.is_color else "mask: holds indices"
    if mask is not None and _has_another_shape(picture, mask):
        (height, width), (rows, columns) = picture.size, mask.size
        return f"mask of {columns} x {rows} pixels for a picture of {width} x {height}: another aspect ratio"
    if not can_convert(picture.channels, standard.channels):
        return f"picture: {picture.channels} channels, the copy has {standard.channels}"
    if picture.depth != standard.depth and "float32" in (picture.depth, standard.depth):
        return f"picture: {picture.depth}, most are {standard.depth}"
    return ""


def _has_another_shape(picture: PictureFacts, mask: MaskFacts) -> bool:
    if picture.size == mask.size or is_turned(picture, mask):
        return False
    (height, width), (rows, columns) = picture.size, mask.size
    return abs(rows * width / columns - height) > 1 and abs(columns * height / rows - width) > 1
