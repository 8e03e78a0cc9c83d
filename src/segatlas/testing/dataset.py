"""What every dataset promises, whatever its files look like; tried on the samples of one split."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from unittest import mock

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.formats.guards import is_volume_name, read_bytes
from segatlas.data.formats.images import decode_image
from segatlas.data.formats.masks import decode_raw
from segatlas.data.sample import Sample
from segatlas.errors import UsageError
from segatlas.structures import IGNORE, InstancesTarget, SegmentsTarget, SemanticTarget
from segatlas.testing.rules import Rule, require

MOST_SAMPLES = 8
"""Of a split that are looked at: first, last, and some between."""

DTYPES = (np.uint8, np.uint16, np.float32)


class DatasetCase:
    """A split that can be opened again and again."""

    def __init__(self, opening: Callable[[], SegmentationData]):
        self.opening = opening

    @cached_property
    def data(self) -> SegmentationData:
        """The split, opened once."""
        return self.opening()

    @cached_property
    def again(self) -> SegmentationData:
        """The split, opened once more, from a disk that lists files the other way round."""
        with folders_reversed():
            return self.opening()

    @cached_property
    def indices(self) -> tuple[int, ...]:
        """Which samples are looked at."""
        count = len(self.data)
        return tuple(dict.fromkeys(np.linspace(0, count - 1, min(count, MOST_SAMPLES)).astype(int).tolist()))

    def samples(self) -> Iterator[tuple[int, Sample]]:
        """Load the samples that are looked at, each anew."""
        for index in self.indices:
            yield index, self.data.load(index)


def check_dataset(
    kind: type[PairedFiles] | Callable[[], SegmentationData],
    root: str | Path | None = None,
    *,
    split: str = "train",
    target: str = "SemanticTarget",
    only: Collection[str] = (),
    skip: Collection[str] = (),
    **options: Any,
) -> None:
    """Check a dataset, registered or not, on files that are there.

    Args:
        kind: the class, a subclass of `PairedFiles`; or, without `root`, a function that opens a split anew each time.
        root: the folder with its files.
        split: which split is opened.
        target: which truth the samples carry, by the name of its type.
        only: names of the rules to try, () = all.
        skip: names of rules to leave out.
        options: the dataset's own keys, as in a recipe's `data:`; and those that all datasets have.

    Raises:
        BrokenRules: naming every rule that does not hold.
        UsageError: no such rule, or kind and root do not go together.
    """
    is_class = isinstance(kind, type) and issubclass(kind, PairedFiles)
    if is_class != (root is not None) or not callable(kind):
        found = f"{kind!r} {'without root' if root is None else 'with root'}"
        raise UsageError(f"kind: got {found}; expected a subclass of PairedFiles with root, or a function without")

    def opened() -> SegmentationData:
        if root is None or not (isinstance(kind, type) and issubclass(kind, PairedFiles)):
            return kind()  # type: ignore[call-arg]
        common = {key: value for key, value in options.items() if key in DataConfig.model_fields}
        own = {key: value for key, value in options.items() if key not in common}
        cfg = DataConfig(name=kind.name, root=str(root), **common).checked(kind.options(**own))
        return kind(cfg, split, target=target)

    name = getattr(kind, "name", getattr(kind, "__name__", "the dataset"))
    require(str(name), RULES, DatasetCase(opened), only=only, skip=skip)


def opens(case: DatasetCase) -> Iterator[str]:
    """It opens, and the split has samples."""
    if not isinstance(case.data, SegmentationData):
        yield f"a {type(case.data).__name__} lacks a part of segatlas.data.dataset.SegmentationData"
    elif len(case.data) == 0:
        yield "no sample"


def class_list(case: DatasetCase) -> Iterator[str]:
    """It has 1 to 255 classes of different names, a colour and, where things are told, a flag for each."""
    names, palette, things = case.data.classes, case.data.palette, case.data.things
    if not 1 <= len(names) <= IGNORE or len(set(names)) != len(names):
        yield f"{len(names)} names of classes, {len(set(names))} different ones"
    if len(palette) != len(names) or any(
        len(color) != 3 or not 0 <= min(color) <= max(color) <= 255 for color in palette
    ):
        yield f"{len(palette)} colours for {len(names)} classes, or one that is no (red, green, blue) of 0..255"
    if things is not None and len(things) != len(names):
        yield f"{len(things)} flags of things for {len(names)} classes"


def unique_keys(case: DatasetCase) -> Iterator[str]:
    """Each sample has a key of its own."""
    keys = [case.data.key(index) for index in range(len(case.data))]
    twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
    if twice is not None:
        yield f"{keys.count(twice)} samples have the key {twice!r}"


def same_samples(case: DatasetCase) -> Iterator[str]:
    """Opened again it has the same samples."""
    first, again = _keys(case.data), _keys(case.again)
    if differing := set(first) ^ set(again):
        yield f"{len(first)} samples, then {len(again)}; {min(differing)!r} is in one of them only"


def same_order(case: DatasetCase) -> Iterator[str]:
    """Opened again its samples come in the same order, in whichever order the disk lists its files."""
    first, again = _keys(case.data), _keys(case.again)
    if first != again:
        index = next(index for index, (a, b) in enumerate(zip(first, again, strict=True)) if a != b)
        yield f"sample {index} is {first[index]!r}, then {again[index]!r}"


def sample_key(case: DatasetCase) -> Iterator[str]:
    """A sample carries the key and the index under which it was asked for."""
    for index, sample in case.samples():
        if (sample.key, sample.index) != (case.data.key(index), index):
            yield f"sample {index}, {case.data.key(index)!r}, says {sample.index}, {sample.key!r}"


def images(case: DatasetCase) -> Iterator[str]:
    """An image is (height, width, channels) of the channels that the dataset states: uint8, uint16 or float32."""
    for _, sample in case.samples():
        image = sample.image
        if image.ndim != 3 or image.shape[2] != case.data.channels or image.dtype not in DTYPES or 0 in image.shape:
            yield f"{sample.key}: {image.dtype} {image.shape}, and the dataset states {case.data.channels} channels"


def targets(case: DatasetCase) -> Iterator[str]:
    """A truth covers its image, pixel by pixel."""
    for _, sample in case.samples():
        if sample.target is not None and np.shape(sample.target[0])[-2:] != sample.image.shape[:2]:
            yield f"{sample.key}: truth of {np.shape(sample.target[0])[-2:]}, image of {sample.image.shape[:2]}"


def labels(case: DatasetCase) -> Iterator[str]:
    """Labels are uint8 classes 0..K-1 or 255, which means ignore; classes of objects are 0..K-1."""
    count = len(case.data.classes)
    for _, sample in case.samples():
        truth = sample.target
        if isinstance(truth, SemanticTarget):
            found = np.asarray(truth.labels)
            wrong = np.unique(found[(found != IGNORE) & ((found < 0) | (found >= count))])
            if found.dtype != np.uint8:
                yield f"{sample.key}: labels of {found.dtype}"
        elif isinstance(truth, InstancesTarget | SegmentsTarget):
            kinds = np.asarray(truth.classes)
            wrong = np.unique(kinds[(kinds < 0) | (kinds >= count)])
        else:
            continue
        if wrong.size:
            yield f"{sample.key}: {wrong.tolist()[:5]} for {count} classes"


def ignored(case: DatasetCase) -> Iterator[str]:
    """Codes that its masks declare to mean ignore arrive as 255."""
    listed = getattr(case.data, "listed", None)
    if listed is None or listed.encoding.rule is not None or listed.encoding.colors is not None:
        return
    for index, sample in case.samples():
        file = case.data.files(index)[1]
        if sample.label is None or file is None or is_volume_name(file):
            continue
        codes = decode_raw(read_bytes(file), file)
        for code in listed.encoding.ignore if codes.shape == sample.label.shape else ():
            found = np.unique(sample.label[codes == code])
            if set(found.tolist()) - {IGNORE}:
                yield f"{file}: code {code} becomes {found.tolist()[:5]}"


def sources(case: DatasetCase) -> Iterator[str]:
    """Samples carry the further inputs that it states, of those kinds, on the pixels of the image."""
    stated = dict(case.data.sources)
    for _, sample in case.samples():
        found = {name: source.kind for name, source in sample.sources.items()}
        if found != stated:
            yield f"{sample.key}: {found or 'none'}, and the dataset states {stated or 'none'}"
        for name, source in sample.sources.items():
            if source.array.shape[:2] != sample.image.shape[:2]:
                yield f"{sample.key}: {name} is {source.array.shape[:2]}, its image {sample.image.shape[:2]}"


def own_files(case: DatasetCase) -> Iterator[str]:
    """An image and its further inputs come from the files that the listing gives them."""
    for index, sample in case.samples():
        items = getattr(case.data, "items", None)
        stated: dict[str, Path] = dict(items[index].sources) if items is not None else {}
        given: list[tuple[str, Path, np.ndarray, int | None]] = [
            ("image", case.data.files(index)[0], sample.image, case.data.channels)
        ]
        given += [
            (name, stated[name], source.array, case.data.channels if source.kind == "image" else None)
            for name, source in sample.sources.items()
            if name in stated and source.kind != "label"
        ]
        for name, file, array, channels in given:
            if is_volume_name(file):
                continue  # its slices have a test of their own
            if not np.array_equal(array, decode_image(read_bytes(file), channels, name=file)):
                yield f"{sample.key}: {name} is not what {file} holds"


def repeatable(case: DatasetCase) -> Iterator[str]:
    """Loaded again a sample is the same; a dataset does not augment."""
    for index, sample in case.samples():
        if not _same(sample, case.data.load(index)):
            yield f"{sample.key} differs"


def own_arrays(case: DatasetCase) -> Iterator[str]:
    """What is written into a sample, if that is possible at all, is not in the next one that is loaded."""
    index = case.indices[0]
    sample, before = case.data.load(index), case.data.load(index)
    kept = [array.copy() for array in _arrays(before)]
    for array in _arrays(sample):
        if array.flags.writeable:
            array[...] = array.max() if array.max() != array.flat[0] else 0
    changed = any(
        not np.array_equal(found, was) for found, was in zip(_arrays(case.data.load(index)), kept, strict=True)
    )
    if changed:
        yield f"{sample.key} is what was written into it"


def pickles(case: DatasetCase) -> Iterator[str]:
    """It can be sent to the processes that load ahead, and gives the same there."""
    there: SegmentationData = pickle.loads(pickle.dumps(case.data))
    index = case.indices[0]
    if not _same(there.load(index), case.data.load(index)):
        yield f"{case.data.key(index)} differs"


@contextmanager
def folders_reversed() -> Iterator[None]:
    """List the files of each folder the other way round: their order is that of the disk, and means nothing."""
    listdir, scandir = os.listdir, os.scandir

    class Reversed:
        def __init__(self, path: Any = "."):
            with scandir(path) as found:
                self.entries = iter([*found][::-1])

        def __iter__(self) -> Iterator[Any]:
            return self.entries

        def __next__(self) -> Any:
            return next(self.entries)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            self.entries = iter(())

    with mock.patch("os.listdir", lambda path=".": listdir(path)[::-1]), mock.patch("os.scandir", Reversed):
        yield


def _keys(data: SegmentationData) -> list[str]:
    return [data.key(index) for index in range(len(data))]


def _arrays(sample: Sample) -> list[np.ndarray]:
    truth = () if sample.target is None else tuple(np.asarray(part) for part in sample.target)
    return [sample.image, *truth, *(source.array for source in sample.sources.values())]


def _same(one: Sample, other: Sample) -> bool:
    first, second = _arrays(one), _arrays(other)
    return len(first) == len(second) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(first, second, strict=True)
    )


RULES = (
    Rule(check=opens),
    Rule(check=class_list, needs=("opens",)),
    Rule(check=unique_keys, needs=("opens",)),
    Rule(check=same_samples, needs=("opens",)),
    Rule(check=same_order, needs=("same_samples",)),
    Rule(check=sample_key, needs=("opens",)),
    Rule(check=images, needs=("opens",)),
    Rule(check=targets, needs=("images",)),
    Rule(check=labels, needs=("class_list",)),
    Rule(check=repeatable, needs=("images",)),
    Rule(check=ignored, needs=("targets", "labels", "repeatable")),
    Rule(check=sources, needs=("images",)),
    Rule(check=own_files, needs=("sources", "repeatable")),
    Rule(check=own_arrays, needs=("repeatable",)),
    Rule(check=pickles, needs=("repeatable",)),
)
