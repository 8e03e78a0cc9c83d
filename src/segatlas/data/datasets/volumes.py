"""What datasets of volumes share: the slices of each volume are the samples, see `segatlas.data.formats.nifti`.

A listing has volumes, each with its label volume, so that `data check` reads every file once; opening a split cuts them
into slices, called VOLUME/0000 and so on. Values are cut to the window and become 0..1 of float32, the same in each
channel: the recipe's `model.input.max_value` is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.folder import hold_out
from segatlas.data.datasets.listing import Fault, Item, Part
from segatlas.data.datasets.paired import PairedFiles, size_message
from segatlas.data.formats.masks import translate
from segatlas.data.formats.nifti import (
    VolumeHeader,
    decode_volume,
    read_header,
    read_slice,
    volume_in_memory,
    whole_numbers,
    windowed,
)
from segatlas.data.formats.pixels import fit_channels
from segatlas.data.sample import Sample
from segatlas.data.store import Store
from segatlas.errors import DataError, UsageError
from segatlas.structures import SemanticTarget, Target, VolumeSlices

SAME_PLACE = 0.5
"""Voxels that corners of an image and its label may lie apart in space."""


class VolumeFiles(PairedFiles):
    """One split of a dataset of NIfTI volumes; a subclass lists them and says which classes their labels have.

    slices: how they are cut and which values are 0 and 1.
    """

    slices: VolumeSlices

    def __init__(
        self,
        cfg: DataConfig,
        split: str,
        seed: int = 0,
        store: Store | None = None,
        target: str = "SemanticTarget",
    ):
        self.slices = self.slices_of(cfg)
        super().__init__(cfg, split, seed, store, target)
        fit_channels(np.zeros((1, 1, 1)), self.channels, "data.channels: a slice")

    @classmethod
    def slices_of(cls, cfg: DataConfig) -> VolumeSlices:
        """Return how the recipe has volumes cut. UsageError for a window that does not rise."""
        own = cfg.options(cls.options)
        low, high = getattr(own, "window", VolumeSlices.window)
        if not low < high:
            raise UsageError(f"data.window: got {low:g}, {high:g}; expected two rising numbers")
        return VolumeSlices(window=(low, high), axis=getattr(own, "axis", VolumeSlices.axis))

    def cut(self, items: Sequence[Item], *, labelled: bool) -> tuple[Item, ...]:
        """Return the slices of volumes; labelled: only those whose label shows more than its class 0.

        Raises:
            DataError: a volume cannot be read; none of its slices shows a further class, where such are asked for.
        """
        return tuple(one for item in items for one in self._slices(item, labelled))

    def _slices(self, item: Item, labelled: bool) -> Iterator[Item]:
        count = read_header(item.image).slices(self.slices.axis)
        chosen: Sequence[int] = range(count)
        if labelled and item.target is not None:
            chosen = np.flatnonzero(self._has_label(item.target)).tolist()
            if not chosen:
                raise DataError("all of it is class 0, so it has no slice for data.slices=labelled", item.target)
        for index in chosen:
            yield replace(item, key=f"{item.key}/{index:04d}", slice=index)

    def _has_label(self, path: Path) -> np.ndarray:
        """Return of each slice of a label volume whether it shows more than class 0."""
        header = read_header(path)
        return np.array(
            [bool(self._label(path, header, index).any()) for index in range(header.slices(self.slices.axis))]
        )

    def load(self, index: int) -> Sample:
        """Read one slice.

        Raises:
            DataError: a file cannot be read, a label is out of range, or image and label differ in size.
        """
        item = self.items[index]
        header, place = read_header(item.image), item.slice or 0
        if place >= header.slices(self.slices.axis):
            raise DataError(
                f"has {header.slices(self.slices.axis)} slices now, and had more when it was opened", item.image
            )
        image = fit_channels(windowed(self._slice(item.image, header, place), self.slices, item.image), self.channels)
        target = self.truth(index)
        if isinstance(target, SemanticTarget) and (size := np.shape(target.labels)) != image.shape[:2]:
            raise DataError(size_message(size, image.shape[:2], item.image), item.target)
        return Sample(image=image, target=target, key=item.key, index=index)

    def truth(self, index: int) -> Target | None:
        """Read the label of one slice alone; None without. DataError as `load`."""
        item = self.items[index]
        if item.target is None:
            return None
        header = read_header(item.target)
        if (item.slice or 0) >= header.slices(self.slices.axis):
            raise DataError(f"has {header.slices(self.slices.axis)} slices, fewer than {item.image}", item.target)
        return SemanticTarget(self._label(item.target, header, item.slice or 0))

    def _label(self, path: Path, header: VolumeHeader, index: int) -> np.ndarray:
        """Return the label of a slice, (rows, columns) uint8 of 0..K-1 or 255. DataError for other values."""
        rule = self.label_rule(path)
        codes = whole_numbers(self._slice(path, header, index), path, index)
        try:
            return translate(codes, rule.num_classes, label_map=rule.label_map, ignore=rule.ignore)
        except DataError as error:
            raise DataError(f"slice {index}: {error}", path) from error

    def _slice(self, path: Path, header: VolumeHeader, index: int) -> np.ndarray:
        """Return the values of a slice; of a packed volume from the store, or from the last one in memory."""
        if path.suffix.lower() != ".gz":
            return read_slice(path, header, self.slices, index)
        if self.decoder.store is None:
            found: np.ndarray = volume_in_memory(path, self.slices)[index]
        else:
            kind = f"volume cut along axis {self.slices.axis}"
            found = self.decoder.file(path, kind, lambda data: decode_volume(data, self.slices, path))[index]
        return found


def check_volumes(part: Part) -> tuple[Part, tuple[Fault, ...]]:
    """Return a split without the volumes that cannot be used, and what is wrong with them, by headers alone.

    The split's error is the first of them. It is that of a header that cannot be read, or of a label of another shape.
    A label that lies elsewhere in space than its image is a warning: slices are taken as they are stored.
    """
    good, errors = [], []
    elsewhere: dict[Path, float] = {}
    for item in part.items:
        try:
            apart = _compare(item)
        except DataError as error:
            errors.append(error)
            continue
        good.append(item)
        if apart > SAME_PLACE and item.target is not None:
            elsewhere[item.target] = apart
    faults = tuple(_fault(error) for error in errors) + ((_elsewhere(elsewhere),) if elsewhere else ())
    if not errors:
        return part, faults
    return replace(part, items=tuple(good), error=part.error or errors[0]), faults


def _compare(item: Item) -> float:
    """Return how far corners of image and label lie apart in space, in voxels; 0 without a label.

    Raises:
        DataError: a header cannot be read, or the label is of another shape.
    """
    image = read_header(item.image)
    if item.target is None:
        return 0.0
    label = read_header(item.target)
    if label.shape != image.shape:
        shapes = " x ".join(map(str, label.shape)), " x ".join(map(str, image.shape))
        raise DataError(f"is of {shapes[0]} voxels, its image {item.image} of {shapes[1]}", item.target)
    corners = np.array([(*place, 1) for place in product(*((0, length - 1) for length in image.shape))])
    places = [corners @ np.array(header.affine)[:3].T for header in (image, label)]
    return float(np.linalg.norm(places[0] - places[1], axis=1).max() / min(image.spacing))


def _elsewhere(apart: Mapping[Path, float]) -> Fault:
    return Fault(
        kind="place_mismatch",
        severity="warning",
        files=tuple(apart),
        fault=f"lie elsewhere in space than their images, by up to {max(apart.values()):.1f} voxels, as their affines "
        "say; slices are taken as they are stored: is a label turned or shifted on its image?",
        repair="look at them (segatlas data preview); export a label that is turned on the voxels of its image",
    )


def _fault(error: DataError) -> Fault:
    is_shape = "its image" in str(error)
    return Fault(
        kind="size_mismatch" if is_shape else "unreadable",
        files=() if error.path is None else (error.path,),
        fault=str(error).removeprefix(f"{error.path}: "),
        repair="export the label on the voxels of its image"
        if is_shape
        else "get the file again, or correct its header",
    )


def held_out(items: Sequence[Item], fraction: float, seed: int, *, val: bool) -> tuple[Item, ...]:
    """Return the volumes held out as val, or those that stay in train: whole volumes, never slices of one in both."""
    held = hold_out([item.key for item in items], fraction, seed)
    return tuple(item for item in items if (item.key in held) == val)
