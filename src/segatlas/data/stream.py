"""Samples on their way to a data loader: every random draw is a function of (seed, epoch, index) and nothing else."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
from torch.utils.data import Dataset

from segatlas.data.dataset import SegmentationData
from segatlas.data.sample import Sample
from segatlas.data.transforms import Prepared

GIBIBYTE = 1 << 30


class SamplePipeline(Protocol):
    """What turns a sample into arrays for the network: `Pipeline` or `EvalPipeline`."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Prepared:
        """Prepare `sample` with random numbers from `generator`."""
        ...


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random numbers of one sample in one epoch; all three are whole numbers from 0."""
    return np.random.default_rng([seed, epoch, index])


class SampleStream(Dataset[Prepared]):
    """A map-style data set for `torch.utils.data.DataLoader`, addressed by (epoch, index).

    What comes out depends on (seed, epoch, index) only: not on the number of workers, the order, or what was loaded
    before. The sampler of the loader must yield (epoch, index) pairs.

    Decoding a picture costs more than transforming it, so decoded samples are kept in memory, first come first kept,
    until `cache_bytes` are used; 0 keeps none. The budget holds for each loader process, and what a worker keeps lives
    as long as the worker: use `persistent_workers=True`.
    """

    def __init__(
        self, dataset: SegmentationData, pipeline: SamplePipeline, seed: int, *, cache_bytes: int = GIBIBYTE
    ) -> None:
        self.dataset = dataset
        self.pipeline = pipeline
        self.seed = seed
        self.cache_bytes = cache_bytes
        self._kept: dict[int, Sample] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, address: tuple[int, int]) -> Prepared:
        """Load, draw and apply.

        Args:
            address: (epoch, index), 0 <= index < len(self).

        Raises:
            DataError: the sample cannot be read or does not fit the pipeline.
        """
        epoch, index = address
        cv2.setNumThreads(0)  # here, not at import: loader processes must not compete with torch's threads
        return self.pipeline(self._load(index), sample_generator(self.seed, epoch, index))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the kept samples behind when a worker process gets its copy by pickling."""
        return {**self.__dict__, "_kept": {}, "_kept_bytes": 0}

    def _load(self, index: int) -> Sample:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = self.dataset.load(index)
        size = _bytes(sample)
        if self._kept_bytes + size <= self.cache_bytes:
            self._kept[index] = sample
            self._kept_bytes += size
        return sample


def _bytes(sample: Sample) -> int:
    arrays = [sample.image, sample.label, *(source.array for source in sample.sources.values())]
    return sum(array.nbytes for array in arrays if array is not None)
