"""Checkpoints: last and best, written whole or not at all, only between optimiser steps."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from segatlas.config.schema import TrainConfig
from segatlas.errors import TrainingError
from segatlas.files import whole_file
from segatlas.training.logbook import LOGGER
from segatlas.training.module import SegmentationModule
from segatlas.training.run import RunFolder

WRITE_FAILURES = ("no space left", "file write failed", "unexpected pos", "iostream error", "disk quota")
"""How torch words a failed write, which it raises as a plain RuntimeError."""


class Interrupted(BaseException):
    """Ctrl-C was pressed and the checkpoint of `run` is written (`saved`), or pressed again, or before any step."""

    def __init__(self, run: Path, saved: bool):
        self.run, self.saved = run, saved
        super().__init__("interrupted")


class WholeCheckpoints(TorchCheckpointIO):
    """How bytes of a checkpoint reach the disk: beside their place, flushed, then renamed.

    Lightning's own way holds a second copy in memory and writes it to the system's temporary folder first, where a kill
    leaves all of it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint whole or not at all. Raises OSError or, as torch words it, RuntimeError."""
        with whole_file(path, error=None) as temporary:
            torch.save(checkpoint, temporary)


class RunCheckpoints(Checkpoint):
    """Writes last.ckpt every `checkpoint_every` steps and at each validation, best.ckpt and model/ at each new best.

    Ctrl-C once writes last.ckpt at the next step and stops; twice, or alone before the first step, stops at once.
    `time_limit` ends at a step, too: between the batches of one gradients would be lost, and batch norms would see the
    first ones again on resume.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig):
        self.folder, self.config = folder, config
        self.best = -math.inf
        self.best_scores: dict[str, float] = {}
        self.start: float | None = None
        self.waited, self.reference = 0, -math.inf
        self._judged_step = 0  # batches that are accumulated leave the count of steps where it is
        self._ends = math.inf
        self._interrupts = 0
        self._nothing_to_save = True
        self._process: int | None = None  # whose signals `catch_interrupts` has taken over

    # ---- when
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save at step boundaries when due or when interrupted."""
        step = trainer.global_step
        if step == self._judged_step:
            return
        self._judged_step, self._nothing_to_save = step, False
        is_over = step >= pl_module.plan.steps
        if is_over or self._time_is_up(trainer):
            trainer.should_stop = True  # makes the trainer validate once more, also off the usual rhythm
            if not is_over:
                self._tell_time_is_up(step, pl_module.plan.steps)
        if trainer.should_stop or _validation_is_due(trainer):
            return  # a validation follows and saves; a checkpoint before it would lose it on resume
        every = self.config.checkpoint_every
        interrupted = self._interrupted(trainer)
        if interrupted or (every and step % every == 0):
            self.save(trainer, self.folder.last)
        if interrupted:
            raise Interrupted(self.folder.root, saved=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Compare with the best so far; save last, and best if it is one."""
        value = pl_module.validation_scores[self.config.metric]
        if math.isnan(value):
            if not trainer.sanity_checking:  # before the first step nothing is kept
                self.save(trainer, self.folder.last)
            written = "" if trainer.sanity_checking else f"; {self.folder.last} is written"
            raise TrainingError(
                f"{self.config.metric} is undefined: nothing in the truth of the validation images is labelled, so no "
                f"checkpoint can be the best{written}. Choose another val split (see segatlas data check)"
            )
        if trainer.sanity_checking:  # of a trained network, before its first step
            self.best, self.best_scores, self.start = value, dict(pl_module.validation_scores), value
            self.save(trainer, self.folder.best)
            self._keep_model(trainer, pl_module)
            LOGGER.info("start  validation: %s", self.start_text)
            return
        counts = _validation_is_due(trainer)  # one more, where the time is up, must not change what a resume does
        if counts:
            pl_module.plateau.update(value)
            self._count_waiting(value)
        improved = value > self.best
        if improved:
            self.best, self.best_scores = value, dict(pl_module.validation_scores)
        # last.ckpt comes last: it knows the best score, so a run stopped before that repeats this validation on resume.
        if improved:
            self._keep_best(trainer, pl_module)
        else:
            self.save(trainer, self.folder.last)
        stopping = self.config.early_stopping
        if counts and stopping and self.waited >= stopping.patience:
            LOGGER.info("stopping early: %s has not improved for %d validations", self.config.metric, self.waited)
            trainer.should_stop = True
        if self._interrupted(trainer):
            raise Interrupted(self.folder.root, saved=True)

    def _count_waiting(self, value: float) -> None:
        """Count the validations since the last that was better by enough than all before it."""
        stopping = self.config.early_stopping
        enough = value > self.reference + (stopping.min_delta if stopping else 0)
        self.waited = 0 if enough else self.waited + 1
        self.reference = max(self.reference, value)

    # ---- how
    def save(self, trainer: pl.Trainer, path: Path) -> None:
        """Write a checkpoint by `WholeCheckpoints`. Raises TrainingError when the disk is full."""
        try:
            trainer.save_checkpoint(path, weights_only=False)
        except (OSError, RuntimeError) as error:
            if not _is_disk_error(error):
                raise
            raise _cannot_write(path, error) from error
        trainer.strategy.barrier("checkpoint")

    def _keep_best(self, trainer: pl.Trainer, module: SegmentationModule) -> None:
        """Write best.ckpt, then what the module keeps of it, then make best.ckpt the last one too."""
        self.save(trainer, self.folder.best)
        if trainer.is_global_zero:
            self._keep_model(trainer, module)
            put(self.folder.best, self.folder.last)

    def _keep_model(self, trainer: pl.Trainer, module: SegmentationModule) -> None:
        """Write what the module keeps of best.ckpt."""
        if trainer.is_global_zero:
            metric = {self.config.metric: self.best, "split": "val", "step": trainer.global_step}
            module.keep(self.folder.best, self.folder, metric)

    @property
    def kept_start(self) -> bool:
        """Tell whether the weights that the run began with are the best."""
        return self.start is not None and self.best <= self.start

    @property
    def start_text(self) -> str:
        """Return the score of the weights that the run began with."""
        return f"{self.config.metric} {100 * (self.start or 0):.2f} %"

    # ---- interrupts
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin behind the steps that were taken, begin to count the time, and take SIGTERM back from the trainer.

        The trainer's own answer is to end with status 0 and without a checkpoint, wherever our stop is still to come:
        within an accumulated step, before and in a validation.
        """
        if self.config.time_limit:
            self._ends = time.monotonic() + 60 * self.config.time_limit
        self._judged_step = trainer.global_step
        self._nothing_to_save &= trainer.global_step == 0 and trainer.world_size == 1
        if self._process is not None:
            signal.signal(signal.SIGTERM, self._interrupt)

    def catch_interrupts(self) -> Any:
        """Take over SIGINT and SIGTERM; return a function that gives them back."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        self._process = os.getpid()
        previous = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}

        def give_back() -> None:
            for number, handler in previous.items():
                signal.signal(number, handler)

        return give_back

    def _time_is_up(self, trainer: pl.Trainer) -> bool:
        if self._ends == math.inf:
            return False
        return trainer.strategy.reduce_boolean_decision(time.monotonic() >= self._ends, all=False)

    def _tell_time_is_up(self, step: int, steps: int) -> None:
        LOGGER.warning(
            "the time is up after step %d of %d (train.time_limit=%g minutes); to go on: segatlas train --resume %s",
            step, steps, self.config.time_limit, shlex.quote(str(self.folder.root)),
        )  # fmt: skip

    def _interrupted(self, trainer: pl.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._interrupts > 0, all=False)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader process got a copy of this: the run itself decides at Ctrl-C
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self._interrupts += 1
        if self._interrupts > 1 or self._nothing_to_save:
            raise Interrupted(self.folder.root, saved=False)
        LOGGER.warning("interrupted: writing a checkpoint after this step (press again to stop at once)")

    # ---- state
    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers for a checkpoint."""
        return {
            "best": self.best, "best_scores": self.best_scores, "waited": self.waited, "reference": self.reference,
            "start": self.start,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.best, self.best_scores, self.waited = state["best"], state["best_scores"], state["waited"]
        self.reference, self.start = state.get("reference", self.best), state.get("start")


def _validation_is_due(trainer: pl.Trainer) -> bool:
    """Return whether the batch just taken ends a stretch between validations; false for one out of turn at a stop."""
    return (trainer.fit_loop.total_batch_idx + 1) % int(trainer.val_check_batch or 1) == 0


def put(checkpoint: Path, target: Path) -> None:
    """Make `target` the same checkpoint, whole or not at all. Raises TrainingError when it cannot be written."""
    try:
        with whole_file(target, error=None) as temporary:
            temporary.unlink()
            _link_or_copy(checkpoint, temporary)
    except OSError as error:
        raise _cannot_write(target, error) from error


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # no hard links on this file system
        shutil.copyfile(source, target)


def _cannot_write(path: Path, error: Exception) -> TrainingError:
    kept = f"; the previous checkpoint {path} is untouched" if path.exists() else ""
    return TrainingError(f"cannot write {path}: {error}{kept}. Free some space, then use --resume")


def _is_disk_error(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, OSError) or any(words in text for words in WRITE_FAILURES)
