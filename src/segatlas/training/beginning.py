"""A new run until its first optimiser step: one that ends before leaves no folder behind."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from segatlas.recipe import Config
from segatlas.training.logbook import LOGGER
from segatlas.training.run import RunFolder, link_last
from segatlas.training.run_lock import RunLock


class Beginning(pl.Callback):
    """Knows whether a new run has taken a step; from the first one on it is the run that is called `last`.

    over: a step was taken, or the run is no new one.
    """

    def __init__(self, config: Config, *, new: bool):
        self.over = not new
        self._config = config
        self._folder: RunFolder | None = None

    def in_folder(self, folder: RunFolder) -> None:
        """Take note of the run's folder, in the process that writes there."""
        self._folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note the first step; batches that are accumulated are none."""
        if self.over or trainer.global_step == 0:
            return
        self.over = True
        if self._folder is not None:
            link_last(self._folder, self._config)

    def undo(self, lock: RunLock) -> None:
        """Take the folder back of a run that has not begun; else nothing happens."""
        if self.over or self._folder is None:
            return
        try:
            self._folder.discard(lock)
            LOGGER.warning("no step was taken: the run folder %s is removed", self._folder.root)
        except OSError as error:  # what ended the run is told, and not this
            LOGGER.warning("no step was taken, but %s cannot be removed: %s", self._folder.root, error)
