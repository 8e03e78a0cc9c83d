"""What a recipe leaves open (`auto`) that follows from the data of train: its samples, its length, its warm-up.

The run's config.yaml holds what was chosen, so that a resume and a second run need no choice.
"""

from __future__ import annotations

from pathlib import Path

from segatlas.config.schema import DEFAULT_EPOCHS, TrainConfig
from segatlas.data import create_dataset
from segatlas.data.choices import chosen, chosen_transforms
from segatlas.recipe import Config
from segatlas.tasks import TASKS
from segatlas.training.plan import Plan
from segatlas.training.run import config_of_run
from segatlas.training.schedule import warmup_steps

AUTO = "auto"
FEWEST_STEPS = 500
"""Of a run, where its length is left open: so many show what a network can learn, in minutes."""
MOST_STEPS = 20_000
"""Of a run likewise; at least one pass."""
VALIDATIONS = 50
"""Of a run, about, where their distance is left open."""


def with_transforms(
    config: Config, *, resume: str | Path | None = None, given: str | None = None
) -> tuple[Config, list[str]]:
    """Return the recipe with numbers as `transforms.crop` and `transforms.scale`, and what is to be said of them.

    Args:
        config: the recipe.
        resume: the run that goes on, or its checkpoint: what it chose at its start stays.
        given: the run folder that the first process has made, where this is another of its processes.

    Raises:
        DataError: train cannot be opened.
    """
    transforms = config.transforms
    open_keys = [key for key in ("crop", "scale") if getattr(transforms, key) == AUTO]
    if not open_keys:
        return config, []
    earlier, lines = config_of_run(resume, given), list[str]()
    if earlier is not None:
        transforms = transforms.model_copy(update={key: getattr(earlier.transforms, key) for key in open_keys})
    else:
        train = create_dataset(config.data, "train", config.seed, target=TASKS[config.task].target)
        transforms, lines = chosen_transforms(transforms, train)
    return config.model_copy(update={"transforms": transforms}), lines


def with_length(
    config: Config, images: int, world: int, *, resume: str | Path | None = None, given: str | None = None
) -> tuple[Config, list[str]]:
    """Return the recipe with numbers as `train.epochs`, `val_epochs` and `schedule.warmup`, and what is to be said.

    Args:
        config: the recipe, with a number as `train.batch`.
        images: length of train.
        world: processes of the run.
        resume: as of `with_transforms`.
        given: as of `with_transforms`.
    """
    train = config.train
    if AUTO not in (train.epochs, train.val_epochs, train.schedule.warmup):
        return config, []
    earlier = config_of_run(resume, given)
    train, lines = _chosen_length(train, images, world) if earlier is None else (_as_in(train, earlier.train), [])
    return config.model_copy(update={"train": train}), lines


def _as_in(train: TrainConfig, earlier: TrainConfig) -> TrainConfig:
    """Return the section with what an earlier one chose in place of what is open."""
    found = {key: getattr(earlier, key) for key in ("epochs", "val_epochs") if getattr(train, key) == AUTO}
    if found.get("epochs", 0) is None:  # the run counts in steps
        found["steps"] = earlier.steps
    if train.schedule.warmup == AUTO:
        found["schedule"] = train.schedule.model_copy(update={"warmup": earlier.schedule.warmup})
    return train.model_copy(update=found)


def _chosen_length(train: TrainConfig, images: int, world: int) -> tuple[TrainConfig, list[str]]:
    lines = []
    a_pass = Plan.of(train, images, world).steps_per_epoch
    if train.epochs == AUTO:
        epochs, why = choose_epochs(a_pass)
        train = train.model_copy(update={"epochs": epochs})
        lines.append(chosen("train.epochs", epochs, why))
    steps = Plan.of(train, images, world).steps
    if train.val_epochs == AUTO:
        between = 1 if train.val_every else max(steps // (a_pass * VALIDATIONS), 1)
        train = train.model_copy(update={"val_epochs": between})
        if between > 1:
            lines.append(chosen("train.val_epochs", between, f"about {VALIDATIONS} validations in {steps} steps"))
    if train.schedule.warmup == AUTO:
        warmup = warmup_steps(train.schedule, steps)
        train = train.model_copy(update={"schedule": train.schedule.model_copy(update={"warmup": warmup})})
        lines.append(chosen("train.schedule.warmup", warmup, f"a short one for {steps} steps"))
    return train, lines


def choose_epochs(a_pass: int) -> tuple[int, str]:
    """Return the passes over train, and why. `a_pass` is how many steps one takes."""
    fewest, most = -(-FEWEST_STEPS // a_pass), max(MOST_STEPS // a_pass, 1)
    steps = f"a pass takes {a_pass} step{'' if a_pass == 1 else 's'}"
    if fewest > DEFAULT_EPOCHS:
        return fewest, f"{steps}, and fewer than {FEWEST_STEPS} in all show little"
    if most < DEFAULT_EPOCHS:
        return most, f"{steps}, and {MOST_STEPS} in all are much for a first result"
    return DEFAULT_EPOCHS, f"the usual ones; {steps}"
