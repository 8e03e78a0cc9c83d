"""Samples on their way to a data loader: every random draw is a function of (seed, epoch, index) and nothing else."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from torch.utils.data import Dataset

from segatlas.data.dataset import SegmentationData
from segatlas.data.sample import Sample
from segatlas.data.transforms import PreparedSample
from segatlas.data.transforms.copy_paste import CopyPaste

PASTE = 1
"""Sets the random numbers of pasting apart from those of the sample itself."""


class SamplePipeline(Protocol):
    """What turns a sample into arrays for the network: `Pipeline`."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> PreparedSample:
        """Prepare `sample` with random numbers from `generator`."""
        ...


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random numbers of one sample in one epoch; all three are whole numbers from 0."""
    return np.random.default_rng([seed, epoch, index])


class SampleStream(Dataset[PreparedSample]):
    """A map-style dataset for `torch.utils.data.DataLoader`, addressed by (epoch, index).

    What comes out depends on (seed, epoch, index) only: not on the number of workers, the order, or what was loaded
    before. The sampler of the loader must yield (epoch, index) pairs. copy_paste: which samples get objects of another
    one of the set.
    """

    def __init__(
        self, dataset: SegmentationData, pipeline: SamplePipeline, seed: int, copy_paste: CopyPaste | None = None
    ) -> None:
        self.dataset = dataset
        self.pipeline = pipeline
        self.seed = seed
        self.copy_paste = copy_paste

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, address: tuple[int, int]) -> PreparedSample:
        """Load, draw and apply.

        Args:
            address: (epoch, index), 0 <= index < len(self).

        Raises:
            DataError: the sample cannot be read or does not fit the pipeline.
        """
        epoch, index = address
        cv2.setNumThreads(0)  # here, not at import: loader processes must not compete with torch's threads
        sample = self.pipeline(self.dataset.load(index), sample_generator(self.seed, epoch, index))
        if self.copy_paste is None:
            return sample
        generator = np.random.default_rng([self.seed, epoch, index, PASTE])
        second = self.copy_paste.draw(generator, len(self.dataset))
        if second is None:
            return sample
        return self.copy_paste.apply(sample, self.pipeline(self.dataset.load(second), generator), generator)
