"""How long a run is and where it stands: all of it follows from one number, the optimiser step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from segatlas.config.schema import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The course of a run as a pure function of the optimiser step (0-based, the next one to be taken).

    A step takes `samples_per_step` samples of the epoch's order, shared by the processes and cut into batches. Batches
    are numbered over the whole run, for each process: batch `number` belongs to step `number // accumulate`.

    images: length of the train split.
    world: processes.
    batch, accumulate: images of a batch and batches of a step, of one process; less than the recipe says where the
        split is too small for it.
    samples: length of the run in samples of all processes.
    first_step, first_samples, first_epoch, first_offset: where the present number of samples a step began to count:
        all 0 unless a resume was allowed to change it.
    """

    images: int
    world: int
    batch: int
    accumulate: int
    samples: int
    first_step: int = 0
    first_samples: int = 0
    first_epoch: int = 0
    first_offset: int = 0

    @classmethod
    def of(cls, config: TrainConfig, images: int, world: int) -> Self:
        """Plan a run over a train split of `images` shared by `world` processes."""
        batch, accumulate = fitting_factors(images // world, config.batch_size, config.accumulate)
        plan = cls(images=images, world=world, batch=batch, accumulate=accumulate, samples=0)
        return plan.to_length(config)

    def to_length(self, config: TrainConfig) -> Self:
        """Return the plan that ends where the recipe's `steps` or `epochs` say."""
        if config.steps is not None:
            return replace(self, samples=self.first_samples + (config.steps - self.first_step) * self.samples_per_step)
        return replace(self, samples=config.passes * self.steps_per_epoch * self.samples_per_step)

    def at_other_step_size(self, step: int, other: Plan) -> Self:
        """Return the plan that goes on from `step` with the step size of `other`, to the same total of samples."""
        epoch, offset = self.place(step)
        return replace(
            self,
            world=other.world, batch=other.batch, accumulate=other.accumulate,
            first_step=step, first_samples=self.samples_at(step), first_epoch=epoch, first_offset=offset,
        )  # fmt: skip

    # ---- sizes
    @property
    def samples_per_step(self) -> int:
        """Samples of all processes in one optimiser step."""
        return self.world * self.batch * self.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Whole optimiser steps in one pass over the train split; what is left over is not used in that epoch."""
        return max(self.images // self.samples_per_step, 1)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run; the last one rounds up to the total of samples."""
        left = self.samples - self.first_samples
        return self.first_step + max(-(-left // self.samples_per_step), 0)

    @property
    def batches(self) -> int:
        """The number that follows the last batch of the run."""
        return self.steps * self.accumulate

    def steps_between_validations(self, config: TrainConfig) -> int:
        """Return the distance of validations in optimiser steps."""
        return config.val_every or config.passes_to_validation * self.steps_per_epoch

    # ---- positions
    def samples_at(self, step: int) -> int:
        """Return how many samples the run has seen before `step`."""
        return self.first_samples + (step - self.first_step) * self.samples_per_step

    def fraction(self, step: int) -> float:
        """Return how much of the run lies before `step`, 0..1."""
        return min(self.samples_at(step) / max(self.samples, 1), 1.0)

    def place(self, step: int) -> tuple[int, int]:
        """Return (epoch, offset): `step` takes the samples of that epoch's order from `offset` on."""
        after = step - self.first_step
        rest_of_first = (self.images - self.first_offset) // self.samples_per_step
        if after < rest_of_first:
            return self.first_epoch, self.first_offset + after * self.samples_per_step
        epochs, steps = divmod(after - rest_of_first, self.steps_per_epoch)
        return self.first_epoch + 1 + epochs, steps * self.samples_per_step

    def epoch_of(self, step: int) -> int:
        """Return the epoch (0-based) of the last step taken when the run stands at `step`."""
        return self.place(step - 1)[0] if step > self.first_step else self.place(step)[0]

    def batch_in_epoch(self, number: int) -> tuple[int, int]:
        """Return (epoch, index of the batch within it) of batch `number`."""
        step, part = divmod(number, self.accumulate)
        epoch, offset = self.place(step)
        return epoch, offset // self.samples_per_step * self.accumulate + part

    # ---- words and files
    def factors(self) -> str:
        """Return the step size in words."""
        processes = "1 process" if self.world == 1 else f"{self.world} processes"
        return (
            f"{self.samples_per_step} images a step ({processes} x batch {self.batch} x accumulate {self.accumulate})"
        )

    def to_dict(self) -> dict[str, int]:
        """Return plain numbers for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Return the plan in a checkpoint. Raises KeyError where a number is missing."""
        return cls(**{name: int(state[name]) for name in cls.__dataclass_fields__})


def fitting_factors(images: int, batch: int, accumulate: int) -> tuple[int, int]:
    """Return (batch, accumulate) for a process that has `images` of the train split.

    An epoch is whole optimiser steps: a smaller last batch or step would weigh its images more. A set too small for
    one step makes steps of as many whole batches as it has; one too small for a batch is one batch.
    """
    if images < batch:
        return max(images, 1), 1
    return batch, min(accumulate, images // batch)
