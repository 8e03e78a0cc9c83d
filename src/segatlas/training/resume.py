"""What a resume goes on with: where its checkpoint stands, and which changed settings it takes, tells or refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.config.old_keys import OLD_FACTS, todays_name, todays_recipe
from segatlas.errors import UsageError, WeightsError
from segatlas.hub.loading import find_start
from segatlas.recipe import Config
from segatlas.training.building import TrainingComponents
from segatlas.training.distillation import Distillation, trained_too
from segatlas.training.environment import manifest, recorded_environment
from segatlas.training.logbook import LOGGER
from segatlas.training.optim import parameter_groups
from segatlas.training.plan import Plan
from segatlas.training.run import RunFolder, find_run
from segatlas.training.teacher import lies_in

REFUSED = {
    "seed": "the order of the samples follows from it",
    "task": "the network was made for the other one",
    "model": "the network and its preprocessing are those of the checkpoint",
    "pretrain": "the head and what it learns are those of the checkpoint",
    "distill.terms": "what is learned from the teacher, and its adapters, are those of the checkpoint",
    "train.optimizer.name": "the optimiser's state in the checkpoint belongs to the other one",
    "train.metric": "the best validation so far was chosen by the other one",
}
"""Keys, or sections, that a resumed run cannot change, and why."""

SILENT = (
    "run",
    "log",
    "eval",
    "data.workers",
    "data.store",
    "data.store_reserve_gb",
    *(f"train.{key}" for key in ("checkpoint_every", "time_limit", "allow_other_batch", "steps", "epochs")),
    *(f"train.{key}" for key in ("devices", "batch", "accumulate")),
)
"""Keys whose change is not told: without effect on what is learned, or told in words of their own."""

NOT_SET = "not set"


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where training begins.

    plan, step: the run's course, and the optimiser step that comes next.
    checkpoint: what is loaded; None for a new run.
    recipe: what config.yaml should hold from now on; None where it stays as it is.
    preprocessing: what the run's images have been normalised with; None for a new run.
    told: lines for the log, on what this start changes.
    finished: why there is nothing left to train, or "".
    judged: what `RunCheckpoints` knew of the validations so far.
    """

    plan: Plan
    step: int = 0
    checkpoint: Path | None = None
    recipe: Config | None = None
    preprocessing: Preprocessing | None = None
    told: tuple[str, ...] = ()
    finished: str = ""
    judged: Mapping[str, Any] = field(default_factory=dict)


def resumed(checkpoint: Path, config: Config, parts: TrainingComponents, fresh: Plan, folder: RunFolder) -> Start:
    """Return where a run goes on from `checkpoint` with the settings of `config`.

    Args:
        checkpoint: last.ckpt, best.ckpt or a copy of one.
        config: the recipe in force from now on.
        parts: what was built from it.
        fresh: the plan of a new run with it.
        folder: the run that goes on.

    Raises:
        UsageError: a setting changed that cannot change in the middle of a run; all of them are named.
        WeightsError: no checkpoint of a training, or one of another network.
    """
    content, old = _read(checkpoint)
    recipe, step = content["recipe"], int(content["global_step"])
    changed = _changes(recipe, config.model_dump(mode="json"))
    refused = _refused(changed, config, folder)
    plan, told, faults = _next_plan(old, fresh, step, config, changed)
    refused += faults
    if not refused:
        _require_network(content, checkpoint, parts)
        refused = [*_other_teacher(content, parts, folder), *_other_groups(content, config, parts, changed)]
    if refused:
        lines = "\n".join(f"  {line}" for line in refused)
        raise UsageError(
            f"{folder.root} cannot be resumed with other settings:\n{lines}\n"
            f"Leave them as they were, or start a new run from its weights: model.start_from={folder.root}"
        )
    told += [
        f"from step {step} on {key}: {_short(before)} -> {_short(after)}"
        for key, (before, after) in changed.items()
        if not _within(key, SILENT)
    ]
    return Start(
        plan=plan,
        step=step,
        checkpoint=checkpoint,
        recipe=_to_write(config, recipe) if changed else None,
        preprocessing=Card.from_dict(content["card"], str(checkpoint)).preprocessing if "card" in content else None,
        told=tuple(told),
        finished=_finished(content, checkpoint, config, plan, step),
        judged=content["callbacks"]["RunCheckpoints"],
    )


def without_lost_start(config: Config, resume: str | Path | None) -> Config:
    """Return the recipe to build from: the checkpoint of a run that goes on stands for first weights that have gone.

    They are read for the shapes alone, those of a pruned network, for all weights come from the checkpoint anyway.

    Args:
        config: the recipe.
        resume: the run that goes on, or its checkpoint; None of a new run, which cannot do without them.
    """
    start = config.model.start_from
    if resume is None or start is None:
        return config
    checkpoint = Path(resume) if Path(resume).suffix == ".ckpt" else find_run(resume).last
    try:
        find_start(start)
    except WeightsError:
        if not checkpoint.is_file():
            raise
        LOGGER.info("%s, which the run began with, is not there any more; the checkpoint takes its place", start)
        return config.model_copy(update={"model": config.model.model_copy(update={"start_from": str(checkpoint)})})
    return config


def stand_at(trainer: pl.Trainer, start: Start) -> None:
    """Set the counters of a new trainer to where training begins.

    To the trainer a resumed run is a new one whose counters do not begin at 0: its own bookkeeping of half-finished
    epochs, which depends on the moment and the callback that wrote the checkpoint, plays no part.
    """
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.total.increment_by(start.step * start.plan.accumulate)
    loop.automatic_optimization.optim_progress.optimizer.step.total.increment_by(start.step)


def other_data(folder: RunFolder, parts: TrainingComponents) -> list[str]:
    """Return a sentence for each split whose files differ from those that the run began with."""
    known = recorded_environment(folder.environment).get("data")
    if not isinstance(known, dict):
        return []
    return [
        f"the files of split {part.split!r} are not those that the run began with (other names or sizes): "
        "from here on it goes on with these, and earlier validations may not compare"
        for part in (parts.train, parts.val)
        if part.split in known and _facts_today(known[part.split]) != manifest(part)
    ]


def _facts_today(facts: Any) -> Any:
    """Return a split's entry of an env.json, which an earlier version may have written, with the keys of today."""
    if not isinstance(facts, dict):
        return facts
    return {todays_name(key, OLD_FACTS, of="env.json"): value for key, value in facts.items()}


def _read(checkpoint: Path) -> tuple[dict[str, Any], Plan]:
    """Return a checkpoint's content, with every part that is looked at here, and its plan."""
    from segatlas.checkpoint.reading import read_torch

    content = read_torch(checkpoint)
    if not isinstance(content, dict) or not {"global_step", "state_dict"} <= content.keys():
        raise WeightsError(f"{checkpoint}: not a checkpoint written by segatlas train")
    if not {"plan", "recipe"} <= content.keys():
        raise WeightsError(
            f"{checkpoint}: written by an earlier version, which did not keep what an exact resume needs; "
            f"start a new run from its weights: model.start_from={checkpoint}"
        )
    try:
        plan = Plan.from_dict(content["plan"])
        for group in content["optimizer_states"][0]["param_groups"]:
            len(group["params"])
        int(content["global_step"]), int(content["callbacks"]["RunCheckpoints"]["waited"])
        dict(content["recipe"]["run"]), content["state_dict"].keys()
        recipe = todays_recipe(content["recipe"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{checkpoint}: a damaged checkpoint: {type(error).__name__} at {error}") from error
    return {**content, "recipe": recipe}, plan


# ---- settings
def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return key -> (before, after) of every setting that differs.

    One that was not there and is null, or has the default of a key that has come since, does not.
    """
    before, after, usual = _flat(old), _flat(new), _flat(Config().model_dump(mode="json"))
    pairs = {key: (before.get(key, NOT_SET), after.get(key, NOT_SET)) for key in [*before, *after]}
    return {
        key: pair
        for key, pair in pairs.items()
        if pair[0] != pair[1] and not (pair[0] == NOT_SET and pair[1] in (None, usual.get(key, NOT_SET)))
    }


def _within(key: str, sections: Mapping[str, str] | tuple[str, ...]) -> str | None:
    return next((section for section in sections if key == section or key.startswith(f"{section}.")), None)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 120 else f"{text[:117]}..."


def _refused(changed: dict[str, tuple[Any, Any]], config: Config, folder: RunFolder) -> list[str]:
    refused = []
    for key, (before, after) in changed.items():
        section = _within(key, REFUSED)
        if section:
            refused.append(f"{key}: {_short(before)} -> {_short(after)}: {REFUSED[section]}")
    if "train.ema" in changed:
        averaged = "no averaged weights" if config.train.ema else "averaged weights beside its own"
        refused.append(f"train.ema: the checkpoint holds {averaged}")
    if "run.dir" in changed and config.run.dir and Path(config.run.dir).resolve() != folder.root.resolve():
        refused.append(f"run.dir: {config.run.dir}: a resumed run stays in its folder")
    return refused


def _next_plan(
    old: Plan, fresh: Plan, step: int, config: Config, changed: dict[str, tuple[Any, Any]]
) -> tuple[Plan, list[str], list[str]]:
    """Return the plan to go on with, what to tell and what to refuse."""
    told, refused = [], []
    plan = replace(old, world=fresh.world, batch=fresh.batch, accumulate=fresh.accumulate)
    if fresh.images != old.images:
        refused.append(
            f"data: the train split holds {fresh.images} images, it held {old.images}: "
            "the order of the samples and the length of an epoch follow from it"
        )
    elif fresh.samples_per_step != old.samples_per_step:
        if config.train.allow_other_batch:
            plan = old.at_other_step_size(step, fresh)
            told.append(
                f"{fresh.factors()} instead of {old.factors()}: the run goes on to the same total of "
                f"{old.samples} samples, which is now step {plan.steps} instead of {old.steps}"
            )
        else:
            refused.append(
                f"{fresh.factors()} instead of {old.factors()}: keep the product, or go on to the same total of "
                "samples with train.allow_other_batch=true"
            )
    elif plan != old:
        told.append(
            f"{fresh.factors()} instead of {old.factors()}: steps, their samples and learning rates stay the same, "
            "but not to the last bit what an unchanged run would give"
        )
    lengths = [key for key in ("train.steps", "train.epochs") if key in changed]
    if lengths:
        length, plan = plan.steps, plan.to_length(config.train)
        if plan.steps < step:
            refused.append(
                f"{', '.join(lengths)}: the run would end at step {plan.steps}, but {step} steps are done already: "
                f"train.steps={step} or more"
            )
        told.append(
            f"the run ends at step {plan.steps} instead of {length}; "
            "from here on the learning rate follows the new length"
        )
    return plan, told, refused


def _to_write(config: Config, recipe: Mapping[str, Any]) -> Config:
    """Return the recipe for config.yaml: the run keeps its place, and a permission holds for one start."""
    run = type(config.run).model_validate(recipe["run"])
    train = config.train.model_copy(update={"allow_other_batch": False})
    return config.model_copy(update={"run": run, "train": train})


# ---- checkpoint
def _require_network(content: dict[str, Any], checkpoint: Path, parts: TrainingComponents) -> None:
    from segatlas.checkpoint.fitting import require_fit

    net = parts.net
    found = {name.removeprefix("net."): tensor for name, tensor in content["state_dict"].items() if name[:4] == "net."}
    require_fit(net.state_dict(), found, where=str(checkpoint), network=f"the {net.architecture} of the recipe")


def _other_teacher(content: dict[str, Any], parts: TrainingComponents, folder: RunFolder) -> list[str]:
    """Refuse a teacher of other weights: what its name means may have been trained on meanwhile."""
    if not isinstance(parts.criterion, Distillation):
        return []
    teacher, began = parts.criterion.teacher, content.get("teacher")
    if lies_in(teacher.place, folder.root):
        return [f"distill.teacher: {teacher.name} lies in the run itself, whose best model it is"]
    if teacher.sha256 == began:
        return []
    return [f"distill.teacher: the sha256 of its weights is {teacher.sha256}, and the run began with {began}"]


def _other_groups(
    content: dict[str, Any], config: Config, parts: TrainingComponents, changed: dict[str, tuple[Any, Any]]
) -> list[str]:
    """Refuse settings that sort the parameters into other groups: the optimiser's state goes by their order."""
    apart = config.train.schedule.encoder_warmup > 0
    adapters = trained_too(parts.criterion, config.distill)
    groups = parameter_groups(parts.net, config.train.optimizer, config.train.lr, encoder_apart=apart, too=adapters)
    found = [len(group["params"]) for group in content["optimizer_states"][0]["param_groups"]]
    if [len(group["params"]) for group in groups] == found:
        return []
    sorting = ("train.optimizer", "train.schedule.encoder_warmup", "train.freeze_encoder", "train.freeze_stages")
    keys = [key for key in changed if _within(key, (*sorting, "train.freeze_norm_weights", "train.freeze_host"))]
    return [f"{', '.join(keys)}: the optimiser's state in the checkpoint belongs to other groups of parameters"]


def _finished(content: dict[str, Any], checkpoint: Path, config: Config, plan: Plan, step: int) -> str:
    if step >= plan.steps:
        return f"all {plan.steps} steps are done, see {checkpoint}"
    stopping = config.train.early_stopping
    if stopping and content["callbacks"]["RunCheckpoints"]["waited"] >= stopping.patience:
        return f"the run had stopped early at step {step}; a larger train.early_stopping.patience goes on"
    return ""
