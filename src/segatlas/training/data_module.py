"""Loaders for training and validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Dataset

from segatlas.data.collate import collate
from segatlas.data.dataset import SegmentationData
from segatlas.data.sample import Sample
from segatlas.data.stream import SampleStream
from segatlas.data.transforms import Pipeline, PreparedSample
from segatlas.data.transforms.copy_paste import copy_paste_of
from segatlas.errors import SegAtlasError
from segatlas.recipe import Config
from segatlas.structures import Batch
from segatlas.training.plan import Plan
from segatlas.training.sampler import BatchAddresses


class Images(Dataset[Sample | None]):
    """One process's part of a split, as read from disk: every `world`-th image from `rank` on.

    All parts have one length, for the processes must validate together; where the images run out, an item is None.
    """

    def __init__(self, dataset: SegmentationData, rank: int, world: int):
        self.dataset = dataset
        self.indices = range(rank, len(dataset), world)
        self.length = -(-len(dataset) // world)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> Sample | None:
        return self.dataset.load(self.indices[position]) if position < len(self.indices) else None


class Reporting(Dataset[PreparedSample | SegAtlasError]):
    """Gives a fault of the user's data out in place of the sample.

    Raised in a loader process, it would reach the main process as a text with a stack trace.
    """

    def __init__(self, stream: SampleStream):
        self.stream = stream

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, address: tuple[int, int]) -> PreparedSample | SegAtlasError:
        try:
            return self.stream[address]
        except SegAtlasError as error:
            return error


def collate_or_report(samples: list[PreparedSample | SegAtlasError]) -> Batch | SegAtlasError:
    """Return the batch, or the first fault among its samples."""
    good = []
    for sample in samples:
        if isinstance(sample, SegAtlasError):
            return sample
        good.append(sample)
    return collate(good)


def _only(samples: list[Sample | None]) -> Sample | None:
    return samples[0]


class BatchStream:
    """What is left of a run's batches, as one stream that only goes forward.

    The trainer asks for an iterator when and as often as it likes, before and after it knows the epoch; each is this
    stream. So the batch that comes next is the one after the last that was handed out, and loader processes may read
    ahead, over the ends of epochs too. A plain `DataLoader` would begin anew with each `iter`.
    """

    def __init__(self, loader: DataLoader[Any]):
        self.loader = loader
        self._batches: Iterator[Any] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if self._batches is None:
            self._batches = iter(self.loader)
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            raise StopIteration
        try:
            return next(self._batches)
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError) and error.filename is not None:
                raise  # a file of the data; without a name it is the way to a process that is gone
            raise RuntimeError("DataLoader worker exited unexpectedly, with a batch in its hands") from error

    def close(self) -> None:
        """Let the loader processes go."""
        self._batches = None


class SegmentationDataModule(pl.LightningDataModule):
    """Train and val loaders. Training begins at batch `start` of the plan."""

    def __init__(
        self,
        config: Config,
        train: SegmentationData,
        val: SegmentationData,
        pipeline: Pipeline,
        *,
        plan: Plan,
        start: int = 0,
    ):
        super().__init__()
        self.config, self.train, self.val, self.pipeline = config, train, val, pipeline
        self.plan, self.start = plan, start
        self._stream: BatchStream | None = None

    def train_dataloader(self) -> BatchStream:
        """Return the stream of augmented training batches."""
        assert self.trainer is not None
        config = self.config
        loader: DataLoader[Any] = DataLoader(
            Reporting(SampleStream(self.train, self.pipeline, config.seed, copy_paste_of(config.transforms))),
            batch_sampler=BatchAddresses(self.plan, seed=config.seed, rank=self.trainer.global_rank, start=self.start),
            collate_fn=collate_or_report,
            num_workers=config.data.workers,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )
        self._stream = BatchStream(loader)
        return self._stream

    def close(self) -> None:
        """Let the loader processes go."""
        if self._stream is not None:
            self._stream.close()

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of whole validation images."""
        assert self.trainer is not None
        part = Images(self.val, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(part, batch_size=1, collate_fn=_only, num_workers=0)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Move training batches; validation images are moved by the Predictor. Raises a fault met by the loader."""
        if isinstance(batch, SegAtlasError):
            raise batch
        if batch is None or isinstance(batch, Sample):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)
