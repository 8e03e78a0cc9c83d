"""What a person sees while training: a bar in a terminal, plain lines elsewhere; the same numbers go to the logbook."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segatlas.training.logbook import LOGGER, Logbook, terminal


class ProgressReporter(pl.Callback):
    """Counts pictures per second, keeps the mean loss since the last line, and reports every `every` steps."""

    def __init__(self, logbook: Logbook | None, *, every: int, pictures_per_step: int, quiet: bool):
        self.logbook, self.every, self.pictures_per_step = logbook, every, pictures_per_step
        self.bar: Progress | None = None
        if not quiet and terminal().is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=terminal(),
                transient=True,
            )
        self._task: Any = None
        self._batch_losses: list[float] = []  # of the step that is being accumulated
        self._total, self._count = 0.0, 0  # of the losses of the steps since the last line
        self._rate = ""
        self._since, self._since_step = time.perf_counter(), 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Open the bar at the step the run starts from."""
        self._since, self._since_step = time.perf_counter(), trainer.global_step
        if self.bar is not None:
            self.bar.start()
            self._task = self.bar.add_task(
                "train", total=pl_module.plan.steps, completed=trainer.global_step, numbers=""
            )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Collect the loss; every `every` steps write a row and a line."""
        self._batch_losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        step = trainer.global_step
        if self.bar is not None:
            numbers = f"loss {self._batch_losses[-1]:.4f}  lr {pl_module.learning_rate:.2e}  {self._rate}"
            self.bar.update(self._task, completed=step, description=f"epoch {pl_module.epoch + 1}", numbers=numbers)
        if trainer.fit_loop._should_accumulate():
            return
        self._total += sum(self._batch_losses) / len(self._batch_losses)
        self._count += 1
        self._batch_losses = []
        if step % self.every:
            return
        now = time.perf_counter()
        values = {
            "loss": self._total / self._count,
            "lr": pl_module.learning_rate,
            "pictures_per_s": (step - self._since_step) * self.pictures_per_step / max(now - self._since, 1e-9),
        }
        terms = {name: float(value) for name, value in pl_module.last_terms.items()}
        self._total, self._count, self._since, self._since_step = 0.0, 0, now, step
        numbers = "loss {loss:.4f}  lr {lr:.2e}  {pictures_per_s:.1f} pictures/s".format(**values)
        if self.logbook is not None:
            self.logbook.add(step, pl_module.epoch, values, terms if len(terms) > 1 else None)
        self._rate = f"{values['pictures_per_s']:.1f} pictures/s"
        if self.bar is None:
            left = (pl_module.plan.steps - step) * self.pictures_per_step / max(values["pictures_per_s"], 1e-9)
            LOGGER.info("step %d/%d  %s  %s left", step, pl_module.plan.steps, numbers, _duration(left))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the scores of a validation; its time does not count as training time."""
        if trainer.sanity_checking:
            return
        scores = pl_module.validation_scores
        if self.logbook is not None:
            values = {f"val_{name}": value for name, value in scores.items()}
            self.logbook.add(trainer.global_step, pl_module.epoch, values)
        LOGGER.info(
            "step %d  validation: mIoU %.2f %%  pixel accuracy %.2f %%",
            trainer.global_step,
            100 * scores["miou"],
            100 * scores["pixel_accuracy"],
        )
        self._since, self._since_step = time.perf_counter(), trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Take the bar away before the evaluation speaks."""
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the losses since the last line: the first line after a resume covers the same steps."""
        return {"total": self._total, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the losses of a checkpoint."""
        self._total, self._count = state["total"], state["count"]

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
