"""From what the caller names (a run, a recipe, a folder) to the dataset that is scored; does it fit the model?"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from segatlas.checkpoint.card import Card
from segatlas.config import recipes
from segatlas.config.schema import DataConfig, EvalConfig
from segatlas.data import DATASETS, Store, create_dataset, describe_layout
from segatlas.data.dataset import SegmentationData, sources_fault
from segatlas.data.datasets import dataset_below, dataset_class
from segatlas.data.datasets.foreign import recognise
from segatlas.data.formats.classes import read_classes
from segatlas.errors import DataError, UsageError
from segatlas.files import near_paths
from segatlas.printable import printable
from segatlas.recipe import Config
from segatlas.structures import VolumeSlices
from segatlas.tasks import TASKS

CONFIG_FILE = "config.yaml"
DataSource = DataConfig | Config | str | Path


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What to score, and how the recipe says it is done. `seed` decides which images a held-out split has.

    unnamed: the data name no classes and got the model's names.
    """

    data: DataConfig
    eval: EvalConfig
    seed: int = 0
    unnamed: bool = False


def find_run(model: str | Path) -> Path | None:
    """Return the run folder that a path lies in (the run itself, its model/, a file of checkpoints/), or None."""
    path = Path(model).resolve()
    if path.name == "model":
        path = path.parent
    elif path.parent.name == "checkpoints":
        path = path.parent.parent
    return path if (path / CONFIG_FILE).is_file() else None


def make_plan(
    model: str | Path | None, source: DataSource | None, overrides: tuple[str, ...], card: Card
) -> EvaluationPlan:
    """Work out the dataset.

    Args:
        model: path of the model; its run's recipe is used where `source` is None.
        source: a DataConfig, a Config, a recipe, a run folder, or the root of a dataset whose layout is then guessed.
        overrides: "key=value" words for the recipe.
        card: of the model; a folder dataset without class names takes the model's.

    Raises:
        UsageError: nothing says which data, or overrides came with finished settings.
        ConfigError: a fault in the recipe.
    """
    if isinstance(source, DataConfig | Config):
        if overrides:
            raise UsageError(f"{overrides[0]}: overrides need a recipe's path, not a finished {type(source).__name__}")
        plan = _from_config(source) if isinstance(source, Config) else EvaluationPlan(data=source, eval=EvalConfig())
    elif source is None:
        run = find_run(model) if model is not None else None
        if run is not None:
            plan = _from_config(Config.load(run / CONFIG_FILE, *overrides))
        elif overrides:
            plan = _from_config(Config.load({}, *overrides))
        else:
            raise UsageError(
                f"{model or 'this model'} lies in no run folder, so say which data: a recipe (.yaml) or a folder"
            )
    elif Path(source).is_dir() and not (Path(source) / CONFIG_FILE).is_file():
        name = describe_layout(source)
        if name is None:
            below = dataset_below(source)
            foreign = recognise(source) if below is None else None
            told = f"{foreign.text(Path(source))}; {foreign.advice}" if foreign else "is laid out like no known dataset"
            if below is not None:
                told += f", but the folder {below} in it is"
            raise DataError(f"{told}; `segatlas data check` tells what is wrong", source)
        plan = _from_config(Config.load({"data": {"name": name, "root": str(source)}}, *overrides))
    elif Path(source).is_dir():
        plan = _from_config(Config.load(Path(source) / CONFIG_FILE, *overrides))
    elif not Path(source).exists() and str(source) not in recipes() and Path(source).suffix not in (".yaml", ".yml"):
        raise _nothing_of_that_name(str(source))
    else:
        plan = _from_config(Config.load(source, *overrides))
    return _with_model_classes(plan, card)


def _nothing_of_that_name(name: str) -> UsageError:
    """Return the error for a name that is neither a folder nor a recipe."""
    known = list(recipes())
    if name in DATASETS:
        own = [recipe for recipe in known if recipe.endswith(f"_{name}")]
        such = f" such as {own[0]} with data.root=FOLDER" if own else ""
        return UsageError(
            f"{name}: no such folder; a dataset has that name: give the folder of its files, or a recipe{such}"
        )
    close = difflib.get_close_matches(name, known, n=1)
    folders = [str(path) for path in near_paths(name) if path.is_dir()]
    hint = f"; folder called nearly so: {', '.join(folders)}" if folders else ""
    hint += f"; nearest recipe: {close[0]}" if close else "" if folders else "; a file's name ends in .yaml"
    return UsageError(f"{name}: no such folder, no dataset ({', '.join(DATASETS)}) and no recipe of that name{hint}")


def open_split(plan: EvaluationPlan, split: str, card: Card) -> tuple[SegmentationData, list[str]]:
    """Open the split and compare its classes and channels with the model's.

    Returns:
        The dataset, and warnings for differences that do not stop.

    Raises:
        UsageError: another number of classes or channels than the model's, or without a source that it needs.
        DataError: a split without images.
    """
    data = create_dataset(plan.data, split, plan.seed, Store.of(plan.data, fill=False), TASKS[card.task].target)
    place = printable(plan.data.root)
    if len(data.classes) != len(card.classes):
        raise UsageError(
            f"{place}: {data.name} has {len(data.classes)} classes ({_some(data.classes)}), the model "
            f"{len(card.classes)} ({_some(card.classes)}); data.classes and data.label_map bring the labels to the "
            "model's classes"
        )
    check_inputs_fit(data, card, place)
    if len(data) == 0:
        raise DataError(f"split {split!r} of {data.name} holds no image", plan.data.root)
    pairs = zip(data.classes, card.classes, strict=True)
    others = [
        f"{i}: {ours!r} in the data, {theirs!r} in the model"
        for i, (ours, theirs) in enumerate(pairs)
        if ours != theirs
    ]
    warnings = []
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        warnings = [f"class names differ ({'; '.join(others[:5])}{more}); they were compared by index"]
    return data, warnings


def check_inputs_fit(data: SegmentationData, card: Card, place: str) -> None:
    """Raise UsageError, which begins with a place, where samples are not what a model takes.

    They are of other channels, lack a source that it needs, or are slices cut otherwise than those it learned from.
    """
    channels = card.inputs[0].channels
    if data.channels != channels and not {data.channels, channels} <= {1, 3}:
        raise UsageError(f"{place}: {data.name} has images of {data.channels} channels, the model takes {channels}")
    if fault := sources_fault(card.inputs[1:], data.name, data.sources):
        raise UsageError(f"{place}: {fault}")
    if fault := _slices_fault(card.slices, getattr(data, "slices", None)):
        raise UsageError(f"{place}: {fault}")


def _slices_fault(taken: VolumeSlices | None, given: VolumeSlices | None) -> str:
    """Say in what the slices of a dataset differ from those that a model learned from; "" where in nothing."""
    if taken is None or given is None or taken == given:
        return ""
    low, high = taken.window
    return (
        f"slices along axis {given.axis} with {given.window[0]:g}..{given.window[1]:g} as 0..1, the model learned from "
        f'axis {taken.axis} with {low:g}..{high:g}: data.axis={taken.axis} "data.window=[{low:g}, {high:g}]"'
    )


def _from_config(cfg: Config) -> EvaluationPlan:
    return EvaluationPlan(data=cfg.data, eval=cfg.eval, seed=cfg.seed)


def _with_model_classes(plan: EvaluationPlan, card: Card) -> EvaluationPlan:
    """Give a folder dataset without class names those of the model: the labels of one split may lack classes."""
    data = plan.data
    takes_names = {"classes", "palette"} <= dataset_class(data.name).options.model_fields.keys()
    if not takes_names or data.own("classes") is not None or (data.root and read_classes(data.root) is not None):
        return plan
    named = data.with_own(classes=card.classes, palette=data.own("palette") or card.palette)
    return EvaluationPlan(data=named, eval=plan.eval, seed=plan.seed, unnamed=True)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
