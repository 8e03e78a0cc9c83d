"""Samples on their way to a data loader: every random draw is a function of (seed, epoch, index) and nothing else."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from torch.utils.data import Dataset

from segatlas.data.dataset import SegmentationData
from segatlas.data.sample import Sample
from segatlas.data.transforms import PreparedSample


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
    before. The sampler of the loader must yield (epoch, index) pairs.
    """

    def __init__(self, dataset: SegmentationData, pipeline: SamplePipeline, seed: int) -> None:
        self.dataset = dataset
        self.pipeline = pipeline
        self.seed = seed

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
        return self.pipeline(self.dataset.load(index), sample_generator(self.seed, epoch, index))
