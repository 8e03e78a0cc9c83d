"""Confusion matrices of 2-megapixel pairs, in memory and from files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.foreign import mmseg, peer_module
from benchmarks.material import CLASSES, HEIGHT, WIDTH, prediction_of, region_labels, street_labels
from benchmarks.rows import SEED, Call, Equality, Peer, Row, Target
from segatlas.labels import IGNORE

Counts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pixels right, predicted and labelled of each class."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """(label, prediction), (H, W) uint8 each, and the same as PNG files."""

    maps: tuple[tuple[np.ndarray, np.ndarray], ...]
    files: tuple[tuple[Path, Path], ...]


def make_pairs(small: bool) -> Pairs:
    whole = region_labels(64, 64) if small else street_labels()
    labels = [np.ascontiguousarray(side) for side in (whole, whole[:, ::-1])]
    maps = tuple((label, prediction_of(label)) for label in labels)
    files = []
    for index, pair in enumerate(maps):
        paths = (scratch() / f"{small}_{index}_label.png", scratch() / f"{small}_{index}_prediction.png")
        for path, values in zip(paths, pair, strict=True):
            cv2.imwrite(str(path), values)
        files.append(paths)
    return Pairs(maps=maps, files=tuple(files))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="segatlas-peers-")


def scratch() -> Path:
    """Return a folder that lasts as long as the process."""
    return Path(_folder().name)


def ours(given: Pairs) -> Call:
    from segatlas.ops import confusion

    return lambda: [counts_of(np.asarray(confusion(guess, label, CLASSES))) for label, guess in given.maps]


def counts_of(matrix: np.ndarray) -> Counts:
    """Return the counts of a (K, K) matrix, rows truth, columns prediction."""
    return np.diag(matrix), matrix.sum(0), matrix.sum(1)


def mmseg_metric(given: Pairs) -> Call:
    """Call mmseg's own counting on tensors as its evaluation holds them: int64."""
    metric = mmseg("mmseg.evaluation.metrics").IoUMetric
    pairs = [(as_tensor(label), as_tensor(guess)) for label, guess in given.maps]

    def call() -> list[Counts]:
        found = []
        for label, guess in pairs:
            right, _, predicted, labelled = metric.intersect_and_union(guess, label, CLASSES, IGNORE)
            found.append((right.numpy(), predicted.numpy(), labelled.numpy()))
        return found

    return call


def mmseg_steps(given: Pairs) -> Call:
    """Do what mmseg's counting does: leave out what is ignored, then three histograms of floats."""

    def histogram(values: torch.Tensor) -> np.ndarray:
        return torch.histc(values.float(), bins=CLASSES, min=0, max=CLASSES - 1).numpy()

    def call() -> list[Counts]:
        found = []
        for label_map, guess_map in given.maps:
            label, guess = as_tensor(label_map), as_tensor(guess_map)
            labelled = label != IGNORE
            label, guess = label[labelled], guess[labelled]
            found.append((histogram(guess[guess == label]), histogram(guess), histogram(label)))
        return found

    return call


def as_tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64))


def numpy_unique(given: Pairs) -> Call:
    """Count the distinct pairs of values, as the Cityscapes scripts do without their compiled part."""

    def call() -> list[Counts]:
        found = []
        for label, guess in given.maps:
            codes, numbers = np.unique(label.astype(np.int32) * 256 + guess, return_counts=True)
            table = np.zeros(256 * 256, np.int64)
            table[codes] = numbers
            found.append(counts_of(table.reshape(256, 256)[:CLASSES, :CLASSES]))
        return found

    return call


def numpy_bincount(given: Pairs) -> Call:
    """Count pairs packed in 16 bits."""

    def call() -> list[Counts]:
        found = []
        for label, guess in given.maps:
            table = np.bincount((label.astype(np.uint16) << 8 | guess).ravel(), minlength=256 * 256)
            found.append(counts_of(table.reshape(256, 256)[:CLASSES, :CLASSES]))
        return found

    return call


def smp_stats(given: Pairs) -> Call:
    metrics = peer_module("segmentation_models_pytorch").metrics
    pairs = [(as_tensor(label)[None], as_tensor(guess)[None]) for label, guess in given.maps]

    def call() -> list[Counts]:
        found = []
        for label, guess in pairs:
            right, wrong, missed, _ = (
                part[0].numpy()
                for part in metrics.get_stats(guess, label, mode="multiclass", num_classes=CLASSES, ignore_index=IGNORE)
            )
            found.append((right, right + wrong, right + missed))
        return found

    return call


def same_counts(given: Pairs, own: list[Counts], other: list[Counts]) -> Equality:
    wrong = sum(
        int(np.abs(mine.astype(np.int64) - theirs.astype(np.int64)).sum())
        for ours_of, theirs_of in zip(own, other, strict=True)
        for mine, theirs in zip(ours_of, theirs_of, strict=True)
    )
    return Equality(holds=wrong == 0, text="identical counts" if wrong == 0 else f"{wrong} counts differ")


def our_files(given: Pairs) -> Call:
    from segatlas.data.formats.masks import read_mask
    from segatlas.metrics import create
    from segatlas.structures import SemanticTarget

    def call() -> float:
        metrics = create(["confusion"], [f"class {index}" for index in range(CLASSES)])
        for label, guess in given.files:
            result = SimpleNamespace(semantic=read_mask(guess))
            metrics.update(result, SemanticTarget(read_mask(label)))
        return metrics.compute().miou

    return call


def mmseg_files(given: Pairs) -> Call:
    """Read both maps with mmseg's loader, count and sum up with its metric."""
    loader: Any = mmseg("mmseg.datasets.transforms").LoadAnnotations()
    metric = mmseg("mmseg.evaluation.metrics").IoUMetric

    def read(path: Path) -> torch.Tensor:
        found = loader({"seg_map_path": str(path), "reduce_zero_label": False, "seg_fields": []})
        return as_tensor(found["gt_seg_map"])

    def call() -> float:
        areas = [metric.intersect_and_union(read(guess), read(label), CLASSES, IGNORE) for label, guess in given.files]
        total = [sum(parts) for parts in zip(*areas, strict=True)]
        return float(np.nanmean(metric.total_area_to_metrics(*total, ["mIoU"])["IoU"]))

    return call


def same_score(given: Pairs, own: float, other: float) -> Equality:
    return Equality(holds=abs(own - other) < 1e-6, text=f"mIoU {own:.6f} and {other:.6f}")


MAPS = ("clean", "shifted", "scattered", "random")
SIZES = ((16, 16), (360, 480), (1024, 2048))
TYPES = (np.uint8, np.int32, np.int64)
MANY_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Maps:
    """(label, prediction) pairs of one content, and how many classes they have; `ignore` is the label left out."""

    pairs: tuple[tuple[np.ndarray, np.ndarray], ...]
    classes: int
    ignore: int


def make_maps(size: tuple[int, int], kind: str, small: bool) -> Maps:
    """Return one pair of maps in three types: the truth, or it moved, with 5 % errors besides, or nothing but noise."""
    random = np.random.default_rng(SEED)
    label = cv2.resize(street_labels(), size[::-1], interpolation=cv2.INTER_NEAREST)
    guess = np.where(label == IGNORE, 0, label).astype(np.uint8)
    if kind in ("shifted", "scattered"):
        guess = np.roll(guess, (3, 2), axis=(0, 1))
    if kind == "scattered":
        wrong = random.random(size) < 0.05
        guess[wrong] = random.integers(0, CLASSES, int(wrong.sum()))
    if kind == "random":
        label, guess = random.integers(0, CLASSES, (2, *size), dtype=np.uint8)
    return Maps(pairs=tuple((label.astype(t), guess.astype(t)) for t in TYPES), classes=CLASSES, ignore=IGNORE)


def make_many(kind: type, small: bool) -> Maps:
    """Return noise of 1,000 classes, a tenth of it left out."""
    random = np.random.default_rng(SEED)
    label, guess = random.integers(0, MANY_CLASSES, (2, HEIGHT, WIDTH)).astype(kind)
    label[: HEIGHT // 10] = MANY_CLASSES
    return Maps(pairs=((label, guess),), classes=MANY_CLASSES, ignore=MANY_CLASSES)


def our_matrices(given: Maps) -> Call:
    from segatlas.ops import confusion

    return lambda: [confusion(guess, label, given.classes, given.ignore) for label, guess in given.pairs]


def hotcoco_matrices(given: Maps) -> Call:
    count = peer_module("hotcoco.metrics").pixel_confusion
    return lambda: [count(label, guess, given.classes, ignore_index=given.ignore) for label, guess in given.pairs]


def plain_matrices(given: Maps) -> Call:
    """Leave out what is ignored, then one histogram of pair numbers."""

    def call() -> list[np.ndarray]:
        found = []
        for label, guess in given.pairs:
            labelled = label != given.ignore
            numbers = label[labelled].astype(np.int64) * given.classes + guess[labelled]
            table = np.bincount(numbers, minlength=given.classes**2)
            found.append(table.reshape(given.classes, given.classes))
        return found

    return call


def same_matrices(given: Maps, own: list[np.ndarray], other: list[np.ndarray]) -> Equality:
    wrong = sum(int((np.asarray(a) != np.asarray(b).astype(np.int64)).sum()) for a, b in zip(own, other, strict=True))
    return Equality(holds=wrong == 0, text="identical counts" if wrong == 0 else f"{wrong} counts differ")


def make_matrix_row(size: tuple[int, int], kind: str) -> Row:
    height, width = size
    return Row(
        key=f"confusion_{height}x{width}_{kind}",
        group="confusion",
        part=f"confusion matrix, {kind} maps of {height} x {width}",
        inputs=f"one pair as uint8, int32 and int64, {CLASSES} classes and 255",
        material=partial(make_maps, size, kind),
        ours=our_matrices,
        peers={name: Peer(make=make, target=Target(time=1)) for name, make in MATRICES.items()},
        equal=same_matrices,
        threads=(1,),
        calls=200 if height < 100 else 10,
        memory=False,
    )


def make_many_row(kind: type) -> Row:
    name = np.dtype(kind).name
    return Row(
        key=f"confusion_{MANY_CLASSES}_{name}",
        group="confusion",
        part=f"confusion matrix, {MANY_CLASSES} classes in {name}",
        inputs=f"noise of {HEIGHT} x {WIDTH}, a tenth of it ignored",
        material=partial(make_many, kind),
        ours=our_matrices,
        peers={name: Peer(make=make, target=Target(time=1)) for name, make in MATRICES.items()},
        equal=same_matrices,
        threads=(1,),
        calls=2,
        memory=False,
    )


MATRICES = {"hotcoco pixel_confusion": hotcoco_matrices, "NumPy, bincount of pairs": plain_matrices}

ROWS = (
    Row(
        key="confusion",
        group="confusion",
        part="confusion matrix of 2 pairs of 2 megapixels",
        inputs=f"uint8 maps in memory, {CLASSES} classes and 255",
        material=make_pairs,
        ours=ours,
        peers={
            "mmseg IoUMetric": Peer(make=mmseg_metric, target=Target(time=20)),
            "mmseg's steps": Peer(make=mmseg_steps, target=Target(time=20)),
            "NumPy, unique pairs": Peer(make=numpy_unique, target=Target(time=2)),
            "NumPy, 16-bit bincount": Peer(make=numpy_bincount, target=Target(time=2)),
            "smp get_stats": Peer(make=smp_stats),
        },
        equal=same_counts,
        threads=(1,),
        calls=4,
        memory=False,
    ),
    Row(
        key="file_to_miou",
        group="confusion",
        part="file to mIoU, 2 pairs of 2 megapixels",
        inputs="PNG label and prediction",
        material=make_pairs,
        ours=our_files,
        peers={"mmseg LoadAnnotations + IoUMetric": Peer(make=mmseg_files, target=Target(time=4))},
        equal=same_score,
        threads=(1,),
        calls=4,
        memory=False,
    ),
    *(make_matrix_row(size, kind) for size in SIZES for kind in MAPS),
    *(make_many_row(kind) for kind in TYPES[1:]),
)
