"""Loaders for training and validation, resumable in the middle of an epoch."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Dataset

from segatlas.config.schema import Config
from segatlas.data.collate import collate
from segatlas.data.dataset import SegmentationData
from segatlas.data.sample import Sample
from segatlas.data.stream import SampleStream
from segatlas.data.transforms import Pipeline, Prepared
from segatlas.errors import SegAtlasError
from segatlas.structures import Batch
from segatlas.training.sampler import ResumableSampler


class Pictures(Dataset[Sample | None]):
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


class Reporting(Dataset[Prepared | SegAtlasError]):
    """Gives a fault of the user's data out in place of the sample.

    Raised in a loader process, it would reach the main process as a text with a stack trace.
    """

    def __init__(self, stream: SampleStream):
        self.stream = stream

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, address: tuple[int, int]) -> Prepared | SegAtlasError:
        try:
            return self.stream[address]
        except SegAtlasError as error:
            return error


def collate_or_report(samples: list[Prepared | SegAtlasError]) -> Batch | SegAtlasError:
    """Return the batch, or the first fault among its samples."""
    good = []
    for sample in samples:
        if isinstance(sample, SegAtlasError):
            return sample
        good.append(sample)
    return collate(good)


def _only(samples: list[Sample | None]) -> Sample | None:
    return samples[0]


class SegmentationDataModule(pl.LightningDataModule):
    """Train and val loaders. Its state says how many samples of the epoch have been handed out."""

    def __init__(self, config: Config, train: SegmentationData, val: SegmentationData, pipeline: Pipeline):
        super().__init__()
        self.config, self.train, self.val, self.pipeline = config, train, val, pipeline
        self.sampler: ResumableSampler | None = None
        self._resume: tuple[int, int] | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of augmented training batches."""
        assert self.trainer is not None
        config = self.config
        self.sampler = ResumableSampler(
            len(self.train),
            seed=config.seed,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            batch=config.train.batch,
            accumulate=config.train.accumulate,
        )
        if self._resume is not None:
            self.sampler.resume(*self._resume)
        return DataLoader(
            Reporting(SampleStream(self.train, self.pipeline, config.seed)),
            sampler=self.sampler,
            batch_size=config.train.batch,
            collate_fn=collate_or_report,
            num_workers=config.data.workers,
            persistent_workers=config.data.workers > 0,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of whole validation pictures."""
        assert self.trainer is not None
        share = Pictures(self.val, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(share, batch_size=1, collate_fn=_only, num_workers=0)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Move training batches; validation pictures are moved by the Predictor. Raises a fault met by the loader."""
        if isinstance(batch, SegAtlasError):
            raise batch
        if batch is None or isinstance(batch, Sample):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many samples of it this process has been given."""
        assert self.trainer is not None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return {"epoch": self.trainer.current_epoch, "samples": batches * self.config.train.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind those samples."""
        self._resume = (state["epoch"], state["samples"])
