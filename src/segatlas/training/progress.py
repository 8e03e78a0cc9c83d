"""What a person sees while training: a bar in a terminal, plain lines elsewhere; the same numbers go to the logbook."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import lightning.pytorch as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from segatlas.metrics import Number
from segatlas.training.logbook import LOGGER, Logbook, terminal
from segatlas.training.plan import Plan

EVERY = 10
"""Steps between lines and between points of the loss curve, where the recipe does not say."""

SCORES_SAID = 2
"""Scores of a validation on its line of the log: the first ones of the task, and the one that is watched."""

WIDE = 100
"""Columns of a terminal whose bar has room for the speed."""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Optimiser steps between points of the loss curve (rows of metrics.csv), and between lines of the log."""

    point: int
    line: int

    @classmethod
    def of(cls, every: int | None, steps: int) -> Self:
        """Return the recipe's own interval, at most the whole run; without one, a short run has a point each step."""
        if every is not None:
            return cls(point=min(every, max(steps, 1)), line=min(every, max(steps, 1)))
        if steps < 10 * EVERY:
            return cls(point=1, line=max(1, steps // 10))
        return cls(point=EVERY, line=EVERY)


class _Stretch:
    """The steps since the last point or line: their mean loss, and images per second."""

    def __init__(self, images_per_step: int):
        self.images_per_step = images_per_step
        self.total, self.count = 0.0, 0  # of the losses
        self.restart_clock(0)

    def restart_clock(self, step: int) -> None:
        """Count time and images from now and `step` on."""
        self.since, self.since_step = time.perf_counter(), step

    def add(self, loss: float) -> None:
        """Count one step's loss."""
        self.total += loss
        self.count += 1

    def close(self, step: int) -> dict[str, float]:
        """Return the numbers of the steps up to `step`, and begin anew."""
        seconds = max(time.perf_counter() - self.since, 1e-9)
        rate = (step - self.since_step) * self.images_per_step / seconds
        values = {"loss": self.total / self.count, "images_per_s": rate}
        self.total, self.count = 0.0, 0
        self.restart_clock(step)
        return values


class TimeLeft(ProgressColumn):
    """The time left: that of the steps, or less where the run ends before them. most: seconds, asked for each time."""

    max_refresh = 0.5

    def __init__(self, most: Callable[[], float]):
        super().__init__()
        self._most = most

    def render(self, task: Task) -> Text:
        """Return the time, or dashes where nothing is known of it yet."""
        left = min(math.inf if task.time_remaining is None else task.time_remaining, self._most())
        return Text("-:--" if left == math.inf else _duration(left), style="progress.remaining")


class ProgressReporter(pl.Callback):
    """Counts images per second; keeps the mean loss since the last point and line, and reports at each of them.

    `scores`: names of the scores of a validation -> their records. `watched`: the one that chooses the best weights.
    `time_limit`: minutes after which the run ends in any case, from each start on.
    """

    def __init__(
        self,
        logbook: Logbook | None,
        *,
        scores: Mapping[str, Number],
        intervals: Intervals,
        images_per_step: int,
        quiet: bool,
        watched: str = "",
        time_limit: float | None = None,
    ):
        self.logbook, self.intervals = logbook, intervals
        first = [*scores][:SCORES_SAID]
        self.said = {name: number for name, number in scores.items() if name in (*first, watched)}
        self._limit = 60 * time_limit if time_limit else math.inf
        self._ends = math.inf
        self.bar: Progress | None = None
        if not quiet and terminal().is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeLeft(self._most_left),
                console=terminal(),
                transient=True,
            )
        self._task: Any = None
        self._batch_losses: list[float] = []  # of the step that is being accumulated
        self._reported_step = 0
        self._speed = ""
        self._point, self._line = _Stretch(images_per_step), _Stretch(images_per_step)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Open the bar at the step the run starts from."""
        self._reported_step = trainer.global_step
        self._ends = time.monotonic() + self._limit
        self._restart_clocks(trainer.global_step)
        if self.bar is not None:
            self.bar.start()
            self._task = self.bar.add_task(
                "train", total=pl_module.plan.steps, completed=trainer.global_step, numbers=""
            )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Collect the loss; write a row where a point is due, and say a line where one is."""
        self._batch_losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        step, rate = trainer.global_step, pl_module.learning_rate
        if self.bar is not None:
            numbers = f"loss {self._batch_losses[-1]:.4f}  lr {rate:.2e}"
            numbers += f"  {self._speed}" if terminal().width >= WIDE else ""
            self.bar.update(self._task, completed=step, description=f"epoch {pl_module.epoch + 1}", numbers=numbers)
        if step == self._reported_step:  # this batch's gradient is accumulated
            return
        self._reported_step = step
        loss = sum(self._batch_losses) / len(self._batch_losses)
        self._batch_losses = []
        for stretch in (self._point, self._line):
            stretch.add(loss)
        if step % self.intervals.point == 0:
            values = {**self._point.close(step), "lr": rate}
            self._speed = f"{values['images_per_s']:.1f} images/s"
            terms = {name: float(value) for name, value in pl_module.last_terms.items()}
            if self.logbook is not None:
                self.logbook.add(step, pl_module.epoch, values, terms if len(terms) > 1 else None)
        if step % self.intervals.line == 0:
            self._say(step, pl_module.plan, {**self._line.close(step), "lr": rate})

    def _say(self, step: int, plan: Plan, values: dict[str, float]) -> None:
        """Say a line; a bar tells the same on a terminal."""
        if self.bar is None:
            numbers = "loss {loss:.4f}  lr {lr:.2e}  {images_per_s:.1f} images/s".format(**values)
            left = (plan.steps - step) * plan.samples_per_step / max(values["images_per_s"], 1e-9)
            left = min(left, self._most_left())
            LOGGER.info("step %d/%d  %s  %s left", step, plan.steps, numbers, _duration(left))

    def _most_left(self) -> float:
        """Return the seconds that `time_limit` leaves; infinity without one."""
        return max(self._ends - time.monotonic(), 0.0)

    def _restart_clocks(self, step: int) -> None:
        for stretch in (self._point, self._line):
            stretch.restart_clock(step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the scores of a validation; its time does not count as training time."""
        if trainer.sanity_checking:
            return
        scores = pl_module.validation_scores
        if self.logbook is not None:
            values = {f"val_{name}": value for name, value in scores.items()}
            self.logbook.add(trainer.global_step, pl_module.epoch, values)
        told = "  ".join(f"{number.short} {number.text(scores[name])}" for name, number in self.said.items())
        LOGGER.info("step %d  validation: %s", trainer.global_step, told)
        self._restart_clocks(trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Take the bar away before the evaluation speaks."""
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the losses since the last line: the first line after a resume covers the same steps."""
        return {"point": [self._point.total, self._point.count], "line": [self._line.total, self._line.count]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the losses of a checkpoint."""
        self._point.total, self._point.count = state["point"]
        self._line.total, self._line.count = state["line"]

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
