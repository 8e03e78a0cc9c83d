"""Examine a whole data set, or take a quick look at a few samples before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import dataset_class, describe_layout
from segatlas.data.datasets.folder import split_folders
from segatlas.data.datasets.paired import SPLITS
from segatlas.data.doctor.facts import FEWEST_BETWEEN, SMOOTHED_SHARE, count_between, fault_of
from segatlas.data.doctor.findings import Diagnosis, Finding
from segatlas.data.doctor.inventory import take_inventory
from segatlas.data.doctor.reading import read_codes
from segatlas.data.doctor.rules import find_all
from segatlas.data.doctor.survey import Progress, take_survey
from segatlas.data.formats.masks import IGNORE
from segatlas.errors import DataError, UsageError

FOLDER_LAYOUT = "ROOT/{train,val[,test]}/{images,masks}/STEM.* or ROOT/{images,masks}[/{train,val[,test]}]/STEM.*"


def examine(
    source: str | Path | DataConfig,
    *,
    split: str | None = None,
    num_classes: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Read every file of a data set once and say what is wrong with it.

    Args:
        source: a folder, whose layout is recognised, or the `data` section of a recipe.
        split: look at this split only; then nothing is known about pictures in two splits.
        num_classes: K, where class names are not declared but their number is.
        jobs: threads that read; default: the processors, at most 8.
        progress: called with (files read, files in all).

    Returns:
        The diagnosis. Faults in the data are findings, not exceptions.

    Raises:
        UsageError: no such folder or split, or keys that contradict one another.
    """
    cfg = source if isinstance(source, DataConfig) else data_config(source)
    root = _root(cfg)
    fault = None if cfg.lists else _layout_finding(cfg, root)
    if fault is not None:
        return Diagnosis(root=root, name=cfg.name, splits={}, classes=(), findings=(fault,))
    survey = take_survey(take_inventory(cfg, root, split), jobs=jobs, progress=progress)
    masks = survey.readable_masks()
    reading = read_codes(masks, survey.inventory.coding, num_classes)
    parts = survey.inventory.parts
    return Diagnosis(
        root=root,
        name=cfg.name,
        splits={
            name: (
                len(part.matched) + len(part.pictures_without_mask),
                sum(pair.mask is not None for pair in part.matched) + len(part.masks_without_picture),
            )
            for name, part in parts.items()
        },
        classes=reading.classes,
        findings=find_all(survey, reading),
        survey=survey,
        reading=reading,
    )


def data_config(root: str | Path) -> DataConfig:
    """Return the `data` section for a folder: its layout recognised, "folder" where it is like nothing known."""
    name = describe_layout(root) or "folder"
    return DataConfig.model_validate({"name": name, "root": str(root)})


def available_splits(cfg: DataConfig) -> tuple[str, ...]:
    """Return the splits that `create_dataset` can open, val also where it is held out of train.

    Raises DataError or UsageError where there is no root; ("train",) where the root has nothing, so that opening it
    says what is missing.
    """
    parts = take_inventory(cfg, dataset_class(cfg.name).prepare(cfg)).parts
    found = [split for split in SPLITS if split in parts and parts[split].matched]
    if cfg.name == "folder" and "val" not in found and "train" in found and len(parts["train"].matched) > 1:
        found.insert(1, "val")
    return tuple(found) or ("train",)


def quick_check(dataset: SegmentationData, count: int = 16) -> list[Finding]:
    """Look at a few samples, evenly spread over a split, before time is spent on it. Raises nothing.

    Finds what `load` refuses, samples without any label, labels smoothed by a resize, and that all labels seen are one
    class. `examine` finds much more.
    """
    findings: list[Finding] = []
    unlabelled: list[Path] = []
    smoothed: list[Path] = []
    seen: set[int] = set()
    looked = 0
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)).tolist():
        files = dataset.files(index)
        try:
            label = dataset.load(index).label
        except Exception as error:  # whatever a file makes a reader raise is a fault of that file
            findings.append(_unusable(error, files[1] or files[0]))
            continue
        if label is None or files[1] is None:
            continue
        looked += 1
        classes = set(np.unique(label).tolist()) - {IGNORE}
        seen |= classes
        between, steps = count_between(label)
        if not classes:
            unlabelled.append(files[1])
        if between >= FEWEST_BETWEEN and between > SMOOTHED_SHARE * steps:
            smoothed.append(files[1])
    again = "segatlas data check names every such file"
    if smoothed:
        fault = "labels between two classes along borders: the masks were smoothed by a resize"
        findings.append(
            Finding(kind="smoothed_mask", severity="warning", files=tuple(smoothed), fault=fault, repair=again)
        )
    if looked > 1 and len(seen) < 2:
        fault = f"{looked} masks looked at show {f'only class {next(iter(seen))}' if seen else 'no label at all'}"
        files_at_fault = tuple(unlabelled) if not seen else ()
        findings.append(
            Finding(kind="single_class", severity="warning", files=files_at_fault, fault=fault, repair=again)
        )
    return findings


def _unusable(error: Exception, path: Path) -> Finding:
    if isinstance(error, DataError):
        path = error.path or path
        fault = fault_of(error, path)
    else:
        fault = f"{type(error).__name__}: {error}"
    repair = "segatlas data check names every such file and the repair"
    return Finding(kind="unusable", severity="error", files=(path,), fault=fault, repair=repair)


def _root(cfg: DataConfig) -> Path:
    if cfg.root is None and cfg.lists:
        return Path(next(iter(cfg.lists.values()))).expanduser().parent
    if cfg.root is None:
        raise UsageError("which data set? give its folder, or a recipe that sets data.root")
    root = Path(cfg.root).expanduser()
    if not root.is_dir():
        raise UsageError(f"{root}: {'is a file, expected a folder' if root.exists() else 'no such folder'}")
    return root


def _layout_finding(cfg: DataConfig, root: Path) -> Finding | None:
    kind = dataset_class(cfg.name)
    if kind.fits(root) or (cfg.name == "folder" and any(split_folders(root, split) for split in SPLITS)):
        return None
    guess = describe_layout(root)
    below = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and describe_layout(folder)]
    if guess is not None:
        repair = f"it looks like {guess}: set data.name={guess}"
    elif below:
        repair = f"did you mean the folder in it: segatlas data check {below[0]}"
    else:
        layout = FOLDER_LAYOUT if cfg.name == "folder" else kind.layout
        repair = f"lay it out as {layout}; or list pairs in data.lists={{train: FILE.csv}}"
    content = ", ".join(sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())[:8]) or "nothing"
    return Finding(
        kind="layout",
        severity="error",
        files=(root,),
        fault=f"is not laid out as data.name={cfg.name}; it holds {content}",
        repair=repair,
    )
