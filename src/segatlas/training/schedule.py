"""Learning rate as a function of the optimiser step. Nothing here has state, so a resume cannot change it."""

from __future__ import annotations

import math

from segatlas.config.schema import ScheduleConfig

LONGEST_WARMUP = 100
"""Optimiser steps, where the recipe leaves the warm-up open."""


def lr_factor(
    schedule: ScheduleConfig,
    step: int,
    total: int,
    drops: int = 0,
    *,
    fraction: float | None = None,
    base: float | None = None,
) -> float:
    """Return what a learning rate is multiplied by at optimiser step `step` (0-based) of `total`.

    `drops` counts how often a plateau has lowered the rate so far. `fraction` (0..1) is how much of the run lies
    before `step`; default step / total, which is the same where all steps are of one size. `base` is the rate that is
    multiplied, which only a final rate of its own (`min_lr`) needs.
    """
    done = min(step / max(total, 1), 1.0) if fraction is None else fraction
    warmup = ramp_end = warmup_steps(schedule, total)
    if schedule.span == "rest":  # the last step of the warm-up has the full rate, the last of the run the final one
        done = min(max(done * total - warmup, 0.0) / max(total - 1 - warmup, 1), 1.0)
        ramp_end = max(warmup - 1, 1)
    least = schedule.min_ratio if schedule.min_lr is None or not base else schedule.min_lr / base
    factor = _after_warmup(schedule, step, done, drops, least)
    if step < warmup:
        ramp = schedule.warmup_ratio + (1 - schedule.warmup_ratio) * step / ramp_end
        return factor * ramp
    return factor


def encoder_lr_factor(
    schedule: ScheduleConfig,
    step: int,
    total: int,
    drops: int = 0,
    *,
    fraction: float | None = None,
    base: float | None = None,
) -> float:
    """Return `lr_factor` for the encoder, which with an `encoder_warmup` begins where the others' warm-up ends."""
    before = warmup_steps(schedule, total)
    if not schedule.encoder_warmup or not total:
        return lr_factor(schedule, step, total, drops, fraction=fraction, base=base)
    if step < before:
        return 0.0
    done = min(step / total, 1.0) if fraction is None else fraction
    rest = total - before
    own = schedule.model_copy(update={"warmup": schedule.encoder_warmup})
    left = max(done * total - before, 0.0) / max(rest, 1)
    return lr_factor(own, step - before, rest, drops, fraction=min(left, 1.0), base=base)


def warmup_steps(schedule: ScheduleConfig, total: int) -> int:
    """Return the steps of the warm-up: the recipe's, but at most a third of the run; of "auto" a short one."""
    if schedule.warmup == "auto":
        return min(LONGEST_WARMUP, total // 20)
    return min(schedule.warmup, total // 3)


def _after_warmup(schedule: ScheduleConfig, step: int, done: float, drops: int, least: float) -> float:
    if schedule.name == "poly":
        return least + (1 - least) * (1 - done) ** schedule.power
    if schedule.name == "cosine":
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done))
    if schedule.name == "linear":
        return least + (1 - least) * min((1 - done) / (1 - schedule.hold), 1.0)
    if schedule.name == "exponential":
        return least**done
    if schedule.name == "step" and schedule.every is not None:
        return schedule.factor ** (step // schedule.every)
    if schedule.name == "step":
        return schedule.factor ** sum(done >= milestone for milestone in schedule.milestones)
    if schedule.name == "plateau":
        return schedule.factor**drops
    return 1.0


class Plateau:
    """Counts validations without improvement and says how often the rate has dropped."""

    def __init__(self, patience: int):
        self.patience, self.drops = patience, 0
        self._best, self._waited = -math.inf, 0

    def update(self, value: float) -> None:
        """Take the watched metric of one validation (larger is better)."""
        if value > self._best:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > self.patience:
            self.drops, self._waited = self.drops + 1, 0

    def state_dict(self) -> dict[str, float]:
        """Return plain numbers for a checkpoint."""
        return {"drops": self.drops, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up the state of a checkpoint."""
        self.drops, self._best, self._waited = int(state["drops"]), state["best"], int(state["waited"])
