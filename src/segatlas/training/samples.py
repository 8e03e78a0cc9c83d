"""An image sheet at each validation: image | truth | prediction | error, for a fixed choice of images."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np

from segatlas import drawing
from segatlas.data.dataset import SegmentationData
from segatlas.inference.images import with_sources
from segatlas.training.run import RunFolder


class SampleSheets(pl.Callback):
    """Draws evenly spread validation images after each validation epoch, with the weights that were validated."""

    def __init__(self, folder: RunFolder, val: SegmentationData, count: int):
        self.folder, self.val = folder, val
        self.indices = np.unique(np.linspace(0, len(val) - 1, count).round().astype(int)).tolist()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write samples/step_NNNNNN.png. Runs before the averaged weights are swapped back."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        rows = []
        for index in self.indices:
            sample = self.val.load(index)
            assert sample.label is not None
            prediction = pl_module.predictor.predict(with_sources(sample, pl_module.card))
            rows.append(drawing.sample_row(sample.image, sample.label, prediction.semantic, self.val.palette))
        path = self.folder.samples / f"step_{trainer.global_step:06d}.png"
        drawing.save_image(drawing.sheet(rows, drawing.SAMPLE_TITLES), path)
