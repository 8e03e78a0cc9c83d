"""An image sheet at each validation: image | truth | prediction | error, for a fixed choice of images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import lightning.pytorch as pl
import numpy as np

from segatlas import drawing
from segatlas.data.dataset import SegmentationData
from segatlas.inference import Predictor
from segatlas.inference.images import with_sources
from segatlas.tasks import Task
from segatlas.training.logbook import Logbook
from segatlas.training.run import RunFolder


class SampleSheets(pl.Callback):
    """Draws evenly spread validation images after each validation epoch, with the weights that were validated."""

    def __init__(self, folder: RunFolder, val: SegmentationData, count: int, task: Task, logbook: Logbook | None):
        self.folder, self.val, self.task, self.logbook = folder, val, task, logbook
        self.indices = np.unique(np.linspace(0, len(val) - 1, count).round().astype(int)).tolist()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write samples/step_NNNNNN.png. Runs before the averaged weights are swapped back."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        rows = [sheet_row(self.task, pl_module.predictor, self.val, index) for index in self.indices]
        path = self.folder.samples / f"step_{trainer.global_step:06d}.png"
        sheet = drawing.sheet(rows, drawing.SAMPLE_TITLES)
        drawing.save_image(sheet, path)
        if self.logbook is not None:
            self.logbook.sheet(trainer.global_step, path, sheet)


def sheet_row(task: Task, predictor: Predictor, dataset: SegmentationData, index: int) -> Sequence[np.ndarray]:
    """Predict one image of a dataset and return the task's row of a sheet: see `drawing.SAMPLE_TITLES`."""
    module, _, name = task.sheet.partition(":")
    sample = dataset.load(index)
    result = predictor.predict(with_sources(sample, predictor.card))
    row: Sequence[np.ndarray] = getattr(import_module(module), name)(
        sample.image, sample.target, result, dataset.palette
    )
    return row
