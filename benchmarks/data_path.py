"""The data path of one worker: from files to a normalised float crop, against mmseg's recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from benchmarks.foreign import mmseg
from benchmarks.material import camvid_folder, cityscapes_folder, decode, region_labels, street_image
from benchmarks.rows import SEED, Call, Equality, Peer, Row, Target

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SCALE = (0.5, 2.0)
MOST_OF_ONE = 0.75
"""A crop is drawn again, up to ten times, while one class covers more than this fraction."""
TRIES = 10
CITY_SAMPLES, CAMVID_SAMPLES = 2, 8


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """name: of the dataset. size: (width, height) of its images. crop: (height, width)."""

    name: Literal["cityscapes", "camvid"]
    size: tuple[int, int]
    crop: tuple[int, int]


CITYSCAPES = Recipe(name="cityscapes", size=(2048, 1024), crop=(512, 1024))
CAMVID = Recipe(name="camvid", size=(480, 360), crop=(288, 384))


@dataclass(frozen=True, kw_only=True)
class Files:
    """root: of a dataset whose train split is `pairs` of (image, label) files."""

    recipe: Recipe
    root: Path
    pairs: tuple[tuple[Path, Path], ...]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="segatlas-peers-")


def make_files(recipe: Recipe, small: bool) -> Files:
    """Lay out a few images as the dataset does: links to real ones where there are any, else written ones."""
    root = Path(_folder().name) / recipe.name
    places = list(city_places(root) if recipe is CITYSCAPES else camvid_places(root))
    sources = list(city_sources() if recipe is CITYSCAPES else camvid_sources())
    pairs = []
    for index, (image, label) in enumerate(places):
        for place in (image, label):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
        if sources:
            for place, source in zip((image, label), sources[index % len(sources)], strict=True):
                place.symlink_to(source)
        else:
            width, height = recipe.size
            cv2.imwrite(str(image), np.roll(street_image()[:height, :width, ::-1], index * 7, axis=1))
            cv2.imwrite(str(label), np.roll(region_labels(height, width) % 11, index * 7, axis=1))
        pairs.append((image, label))
    return Files(recipe=recipe, root=root, pairs=tuple(pairs))


def city_places(root: Path) -> Iterator[tuple[Path, Path]]:
    for index in range(CITY_SAMPLES):
        stem = f"aachen/aachen_{index:06d}_000019"
        yield root / f"leftImg8bit/train/{stem}_leftImg8bit.png", root / f"gtFine/train/{stem}_gtFine_labelTrainIds.png"


def camvid_places(root: Path) -> Iterator[tuple[Path, Path]]:
    for index in range(CAMVID_SAMPLES):
        yield root / f"train/0001TP_{index:06d}.png", root / f"trainannot/0001TP_{index:06d}.png"


def city_sources() -> Iterator[tuple[Path, Path]]:
    folder = cityscapes_folder()
    if folder is None:
        return
    for image in sorted((folder / "leftImg8bit").glob("*/*/*.png")):
        split, city = image.parent.parent.name, image.parent.name
        stem = image.name.removesuffix("_leftImg8bit.png")
        yield image, folder / "gtFine" / split / city / f"{stem}_gtFine_labelTrainIds.png"


def camvid_sources() -> Iterator[tuple[Path, Path]]:
    folder = camvid_folder()
    if folder is None:
        return
    for image in sorted((folder / "train").glob("*.png"))[:CAMVID_SAMPLES]:
        yield image, folder / "trainannot" / image.name


def epochs(given: Files) -> Iterator[list[tuple[int, int]]]:
    """Yield the (epoch, index) of all samples of one epoch after the other, for ever. A call is one epoch."""
    for epoch in count():
        yield [(epoch, index) for index in range(len(given.pairs))]


# Ours.


def our_stream(given: Files, store: Path) -> Any:
    """Return our samples, decoded once and then taken from a store in that folder."""
    from segatlas.config.schema import DataConfig
    from segatlas.data import Store, create_dataset
    from segatlas.data.stream import SampleStream

    section = DataConfig(name=given.recipe.name, root=str(given.root))
    dataset = create_dataset(section, "train", SEED, Store(store, reserve=0))
    return SampleStream(dataset, our_pipeline(given), SEED)


def our_pipeline(given: Files) -> Any:
    from segatlas.config.transforms import PhotometricConfig, TransformsConfig
    from segatlas.data.transforms import Pipeline

    asked = TransformsConfig(
        scale=SCALE, crop=given.recipe.crop, class_balance=MOST_OF_ONE, photometric=PhotometricConfig(probability=1.0)
    )
    mean, std = (tuple(value / 255 for value in values) for values in (MEAN, STD))
    return Pipeline.from_config(asked, mean=mean, std=std, max_value=255.0, channels=3)


def cold(given: Files) -> Call:
    """Every call is a first epoch: its store is empty, so each image is decoded and kept."""
    rounds = epochs(given)

    def call() -> list[np.ndarray]:
        stream = our_stream(given, Path(tempfile.mkdtemp(dir=_folder().name)))
        return [stream[address].image for address in next(rounds)]

    return call


def warm(given: Files) -> Call:
    """Every call is a later epoch: images come from the store."""
    stream = our_stream(given, Path(_folder().name) / "store")
    rounds = epochs(given)
    for address in next(rounds):
        _ = stream[address]
    return lambda: [stream[address].image for address in next(rounds)]


# mmseg's, by its own classes, and the same steps in plain cv2.


def mmseg_own(given: Files) -> Call:
    mmseg("mmseg.datasets.transforms")  # fills the registry
    compose = mmseg("mmcv.transforms").Compose
    names: dict[str, dict[str, Any]] = {
        "LoadImageFromFile": {},
        "LoadAnnotations": {},
        "RandomResize": {"scale": given.recipe.size, "ratio_range": SCALE, "keep_ratio": True},
        "RandomCrop": {"crop_size": given.recipe.crop, "cat_max_ratio": MOST_OF_ONE},
        "RandomFlip": {"prob": 0.5},
        "PhotoMetricDistortion": {},
        "PackSegInputs": {},
    }
    mmseg("mmengine.registry").init_default_scope("mmseg")
    steps = compose([{"type": name, **fields} for name, fields in names.items()])
    np.random.seed(SEED)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def sample(image: Path, label: Path) -> torch.Tensor:
        found = steps(
            {"img_path": str(image), "seg_map_path": str(label), "reduce_zero_label": False, "seg_fields": []}
        )
        # What its data preprocessor does to a batch: to RGB, to float, normalise.
        return (found["inputs"][[2, 1, 0]].float() - mean) / std

    return lambda: [sample(*pair) for pair in given.pairs]


def mmseg_steps(given: Files) -> Call:
    random = np.random.default_rng(SEED)
    mean, std = np.asarray(MEAN, np.float32), np.asarray(STD, np.float32)

    def sample(path: Path, label: Path) -> np.ndarray:
        image, truth = decode(path, cv2.IMREAD_COLOR), decode(label, cv2.IMREAD_UNCHANGED)
        factor = random.uniform(*SCALE)
        size = (round(given.recipe.size[0] * factor), round(given.recipe.size[1] * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        truth = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)
        image, truth = balanced_crop(image, truth, given.recipe.crop, random)
        if random.random() < 0.5:
            image, truth = cv2.flip(image, 1), cv2.flip(truth, 1)
        image = distort(image, random)
        values = (image[..., ::-1].astype(np.float32) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    return lambda: [sample(*pair) for pair in given.pairs]


def balanced_crop(
    image: np.ndarray, truth: np.ndarray, crop: tuple[int, int], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a random window; draw again while one class covers too much of it."""
    height, width = crop
    for _ in range(TRIES):
        top = int(random.integers(0, max(truth.shape[0] - height, 0) + 1))
        left = int(random.integers(0, max(truth.shape[1] - width, 0) + 1))
        values, numbers = np.unique(truth[top : top + height, left : left + width], return_counts=True)
        numbers = numbers[values != 255]
        if len(numbers) > 1 and numbers.max() < MOST_OF_ONE * numbers.sum():
            break
    window = np.s_[top : top + height, left : left + width]
    return image[window], truth[window]


def distort(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, each in half of the samples; uint8 BGR throughout."""

    def shifted(values: np.ndarray, factor: float, shift: float) -> np.ndarray:
        return (values.astype(np.float32) * factor + shift).clip(0, 255).astype(np.uint8)

    def half() -> bool:
        return bool(random.random() < 0.5)

    if half():
        image = shifted(image, 1.0, random.uniform(-32, 32))
    contrast_first = half()
    if contrast_first and half():
        image = shifted(image, random.uniform(0.5, 1.5), 0.0)
    if half():
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = shifted(hsv[..., 1], random.uniform(0.5, 1.5), 0.0)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if half():
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + random.integers(-18, 18)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not contrast_first and half():
        image = shifted(image, random.uniform(0.5, 1.5), 0.0)
    return image


def same_pixels(given: Files, own: object, other: object) -> Equality:
    """Compare what our dataset gives, by way of the store, with a plain decode of the files, value by value."""
    dataset = our_stream(given, Path(_folder().name) / "store").dataset
    for index, (image, label) in enumerate(given.pairs):
        sample = dataset.load(index)
        truth = decode(label, cv2.IMREAD_UNCHANGED)
        truth = np.where(truth < len(dataset.classes), truth, 255)
        if not np.array_equal(sample.image, decode(image, cv2.IMREAD_COLOR)[..., ::-1]) or not np.array_equal(
            sample.label, truth
        ):
            return Equality(holds=False, text=f"{image.name} differs from a plain decode")
    return Equality(holds=True, text=f"{len(given.pairs)} images and labels decoded alike, every value")


def make_row(recipe: Recipe, *, is_warm: bool, time: float) -> Row:
    width, height = recipe.size
    target = Target(time=time)
    samples = CITY_SAMPLES if recipe is CITYSCAPES else CAMVID_SAMPLES
    return Row(
        key=f"data_{recipe.name}_" + ("warm" if is_warm else "cold"),
        group="data",
        part=f"data path of one worker, {recipe.name}, " + ("store warm" if is_warm else "first epoch"),
        inputs=f"{samples} samples, {width} x {height} to {recipe.crop[1]} x {recipe.crop[0]}",
        material=partial(make_files, recipe),
        ours=warm if is_warm else cold,
        peers={
            "mmseg transforms": Peer(make=mmseg_own, target=target),
            "mmseg's steps in cv2": Peer(make=mmseg_steps, target=target),
        },
        equal=same_pixels,
        threads=(1,),
        calls=8,
        memory=False,
    )


ROWS = (
    make_row(CITYSCAPES, is_warm=True, time=12),
    make_row(CITYSCAPES, is_warm=False, time=1.1),
    make_row(CAMVID, is_warm=True, time=5),
)
