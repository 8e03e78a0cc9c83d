"""Frames of a video in pairs: each sample with the labelled frame before it, and with what is known of that.

A pair is two labelled frames of one drive and one split, at most `gap` frames apart. A frame without such a one before
it is left out, for networks that take no further input, too, so that all are scored on the same images.

The sources are `before`, the image of the earlier frame, and with `prior` its mask: as an earlier model has predicted
it, or the true one, which nobody has at the time of prediction. The latter is an upper bound, and is called an oracle.

How far apart two frames are need not be the same in all splits: in CamVid it is 30 frames in train and test, and 2 in
val, where a prior then looks better than it is. `tail` holds out the end of each drive of train in place of val, to
choose by; with `tail=0` the official val is scored.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import Field

from segatlas.config.section import Section
from segatlas.data.datasets.listing import Companions, FileListing, Item, Part
from segatlas.data.formats.listing import list_images
from segatlas.errors import DataError, UsageError
from segatlas.structures import SourceKind

logger = logging.getLogger(__name__)

BEFORE, PRIOR = "before", "prior"
ORACLE = "camvid with an oracle prior"

DriveAndFrame = Callable[[str], tuple[str, int]]
"""From the stem of an image to its drive and its frame number."""


class PreviousFrames(Section):
    """The labelled frame before each frame, as a further input."""

    gap: int = Field(60, ge=1, description="frames between the two at most")
    prior: Literal["predicted", "oracle"] | None = Field(
        None,
        description="also the earlier frame's mask; predicted: that of `priors`; oracle: the true one, an upper bound",
    )
    priors: str | None = Field(
        None, description="folder of predicted masks by stem, as `segatlas data make-priors` writes them"
    )
    tail: float = Field(
        0.0, ge=0, lt=1, description="val is this fraction of each drive of train, its end; 0: the dataset's own val"
    )


def sources_of_pairs(*, has_prior: bool) -> Mapping[str, SourceKind]:
    """Return the further inputs of such samples."""
    return {BEFORE: "image", PRIOR: "label"} if has_prior else {BEFORE: "image"}


def with_previous_frames(
    listing: FileListing, asked: PreviousFrames, splits: Sequence[str], drive_and_frame: DriveAndFrame
) -> FileListing:
    """Return some splits of a listing, each frame with the one before it.

    Args:
        listing: all splits, without further inputs.
        asked: which pairs.
        splits: those that are wanted.
        drive_and_frame: what a stem tells.

    Raises:
        UsageError: a predicted prior without a folder of predictions, or such a folder without a predicted prior.
    """
    if (asked.prior == "predicted") != (asked.priors is not None):
        told = "is needed for data.pairs.prior=predicted" if asked.priors is None else "needs prior=predicted"
        raise UsageError(f"data.pairs.priors: {told}; segatlas data make-priors writes such a folder")
    parts = dict(listing.parts)
    if asked.tail and "train" in parts:
        parts["train"], parts["val"] = _without_tail(parts["train"], asked.tail, drive_and_frame)
    predicted = None if asked.priors is None else Path(asked.priors).expanduser()
    paired = {split: _paired(part, split, asked, predicted, drive_and_frame) for split, part in parts.items()}
    return replace(
        listing,
        parts={split: part for split, part in paired.items() if split in splits},
        folders={} if asked.tail else {name: pair for name, pair in listing.folders.items() if name in splits},
        sources=sources_of_pairs(has_prior=asked.prior is not None),
        source_codes={} if asked.prior is None else {PRIOR: "masks" if asked.prior == "oracle" else "classes"},
    )


def _by_drive(items: Sequence[Item], drive_and_frame: DriveAndFrame) -> dict[str, list[tuple[int, Item]]]:
    """Return frame number and item of each drive, in order of the frames."""
    drives: dict[str, list[tuple[int, Item]]] = defaultdict(list)
    for item in items:
        drive, frame = drive_and_frame(item.image.stem)
        drives[drive].append((frame, item))
    return {drive: sorted(frames, key=lambda one: one[0]) for drive, frames in drives.items()}


def _without_tail(train: Part, fraction: float, drive_and_frame: DriveAndFrame) -> tuple[Part, Part]:
    """Return train without the end of each drive, and these ends."""
    held: set[str] = set()
    for frames in _by_drive(train.items, drive_and_frame).values():
        count = round(fraction * len(frames))
        held |= {item.key for _, item in frames[len(frames) - count :]}
    items = [tuple(item for item in train.items if (item.key in held) == is_tail) for is_tail in (False, True)]
    return replace(train, items=items[0]), Part(items=items[1], error=train.error)


def _paired(
    part: Part, split: str, asked: PreviousFrames, predicted: Path | None, drive_and_frame: DriveAndFrame
) -> Part:
    """Return the frames of a split that have one before them, each with it."""
    stems = {path.stem: path for paths in list_images(predicted).values() for path in paths} if predicted else {}
    items: dict[str, Item] = {}
    lost: list[Item] = []
    for frames in _by_drive(part.items, drive_and_frame).values():
        for (earlier, before), (frame, item) in pairwise(frames):
            if frame - earlier > asked.gap:
                continue
            sources = {BEFORE: before.image}
            prior = before.target if asked.prior == "oracle" else stems.get(before.image.stem)
            if asked.prior is not None and prior is not None:
                sources[PRIOR] = prior
            elif asked.prior is not None:
                lost.append(before)
            items[item.key] = replace(item, sources=sources)
    logger.info("%s: %d of %d frames have a labelled one before them", split, len(items), len(part.items))
    error, companions = part.error, dict(part.companions)
    if asked.prior is not None and predicted is not None:
        if lost and error is None:
            error = DataError(f"has no predicted mask: expected {predicted / lost[0].image.stem}.png", lost[0].image)
        missing = tuple(item.image for item in lost)
        companions[PRIOR] = Companions(
            label="priors", words="predicted mask", folder=predicted, missing=missing, error=error
        )
    kept = tuple(items[item.key] for item in part.items if item.key in items)
    return replace(part, items=kept, companions=companions, error=error)
