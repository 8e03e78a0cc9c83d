from __future__ import annotations

import pickle
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from segatlas.config.transforms import PhotometricConfig, TransformsConfig
from segatlas.data.collate import collate
from segatlas.data.sample import Sample
from segatlas.data.stream import SampleStream, sample_generator
from segatlas.data.transforms import Pipeline, PreparedSample
from segatlas.structures import SemanticTarget

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Memory:
    """A dataset of six small samples."""

    name, split, classes, palette, channels = "memory", "train", ("a", "b"), ((0, 0, 0), (1, 1, 1)), 3
    sources: ClassVar = {}

    def __len__(self) -> int:
        return 6

    def key(self, index: int) -> str:
        return str(index)

    def files(self, index: int) -> tuple[Path, Path | None]:
        return Path(f"{index}.png"), None

    def load(self, index: int) -> Sample:
        draws = np.random.default_rng(index)
        image = draws.integers(0, 256, (20, 24, 3)).astype(np.uint8)
        labels = draws.integers(0, 2, (20, 24)).astype(np.uint8)
        return Sample(image=image, target=SemanticTarget(labels), key=str(index), index=index)


@pytest.fixture(autouse=True)
def opencv_threads() -> object:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def stream(seed: int = 0) -> SampleStream:
    transforms = TransformsConfig(scale=(0.5, 2.0), crop=(16, 16), photometric=PhotometricConfig())
    return SampleStream(Memory(), Pipeline.from_config(transforms, MEAN, STD, 255.0, 3), seed)


def same(first: PreparedSample, second: PreparedSample) -> bool:
    images = np.array_equal(first.image, second.image)
    return images and np.array_equal(first.label, second.label) and first.key == second.key


def test_sample_generator_depends_on_each_of_its_three_numbers() -> None:
    addresses = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32 - 1, 7, 7), (7, 7, 2**32 - 1)]
    first, again = ([sample_generator(*address).integers(2**63) for address in addresses] for _ in range(2))
    assert first == again
    assert len(set(first)) == len(addresses)


def test_samples_do_not_depend_on_the_order_or_on_what_came_before() -> None:
    forwards, backwards = stream(), stream()
    addresses = [(epoch, index) for epoch in range(2) for index in range(6)]
    first = {address: forwards[address] for address in addresses}
    second = {address: backwards[address] for address in reversed(addresses)}
    assert all(same(first[address], second[address]) for address in addresses)


def test_another_epoch_or_seed_draws_another_sample() -> None:
    assert not same(stream()[0, 3], stream()[1, 3])
    assert not same(stream()[0, 3], stream(seed=1)[0, 3])


def test_worker_count_does_not_change_the_batches() -> None:
    addresses = [(1, index) for index in (4, 2, 0, 5, 1, 3)]
    without, with_two = (
        DataLoader(stream(), batch_size=2, sampler=addresses, num_workers=workers, collate_fn=collate)
        for workers in (0, 2)
    )
    for alone, shared in zip(without, with_two, strict=True):
        assert torch.equal(alone.inputs.image, shared.inputs.image)
        assert shared.inputs.image.is_contiguous(memory_format=torch.channels_last)
        assert shared.inputs.image.is_shared()
        assert torch.equal(alone.targets, shared.targets)
        assert alone.keys == shared.keys


def test_a_pickled_stream_gives_the_same_samples() -> None:
    data = stream()
    assert same(pickle.loads(pickle.dumps(data))[0, 0], data[0, 0])


def test_opencv_threads_are_off_while_samples_are_made() -> None:
    cv2.setNumThreads(2)
    stream()[0, 0]
    assert cv2.getNumThreads() == 1
