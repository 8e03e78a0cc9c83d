"""Examine a whole dataset: every file is read once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.checks.file_listing import list_dataset_files
from segatlas.data.checks.findings import CheckReport, Finding, accepted
from segatlas.data.checks.reading import read_codes
from segatlas.data.checks.repairable import obstacle_to_repair
from segatlas.data.checks.rules import find_all
from segatlas.data.checks.scan import Progress, scan_files
from segatlas.data.datasets import dataset_below, dataset_class, describe_layout
from segatlas.data.datasets.folder import split_folders
from segatlas.data.datasets.foreign import recognise, without_masks
from segatlas.data.datasets.listing import SPLITS, Part
from segatlas.data.options import checked
from segatlas.errors import UsageError

FOLDER_LAYOUT = "ROOT/{train,val[,test]}/{images,masks}/STEM.* or ROOT/{images,masks}[/{train,val[,test]}]/STEM.*"


def examine(
    source: str | Path | DataConfig,
    *,
    split: str | None = None,
    target: str | None = None,
    num_classes: int | None = None,
    max_value: float | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every file of a dataset once and say what is wrong with it.

    Args:
        source: a folder, whose layout is recognised, or the `data` section of a recipe.
        split: look at this split only; then nothing is known about images in two splits.
        target: the type of truth that a recipe's task needs, read besides the masks; default: all of the dataset.
        num_classes: K, where class names are not declared but their number is.
        max_value: the image value that a recipe declares to become 1; default: that of the files' type.
        jobs: threads that read; default: the processors, at most 8.
        progress: called with (files read, files in all).

    Returns:
        The found. Faults in the data are findings, not exceptions.

    Raises:
        UsageError: no such folder or split, keys that contradict one another, or a truth that the dataset lacks.
    """
    cfg = source if isinstance(source, DataConfig) else data_config(source)
    cfg = checked(cfg)
    root = _root(cfg)
    fault = _layout_finding(cfg, root)
    if fault is not None:
        return CheckReport(root=root, name=cfg.name, splits={}, classes=(), findings=(fault,))
    listing = list_dataset_files(cfg, root, split, target)
    scan = scan_files(listing, max_value=max_value, jobs=jobs, progress=progress)
    reading = read_codes(scan.readable_masks(), scan.listing.encoding, num_classes)
    scan = replace(scan, obstacle=obstacle_to_repair(scan, reading))
    parts = listing.parts
    return CheckReport(
        root=root,
        name=cfg.name,
        splits={
            name: (
                len(part.items) + len(part.images_without_mask),
                sum(item.target is not None for item in part.items) + len(part.masks_without_image),
            )
            for name, part in parts.items()
        },
        further={name: _further(part) for name, part in parts.items()},
        classes=reading.classes,
        findings=accepted(cfg, find_all(scan, reading)),
        scan=scan,
        reading=reading,
    )


def _further(part: Part) -> dict[str, int]:
    """Return how many files were read of each kind that is neither image nor mask."""
    return {
        one.label: sum(name in item.sources or name in item.truths for item in part.items)
        for name, one in part.companions.items()
        if one.missing or one.error is None or any(name in item.truths for item in part.items)
    }


def data_config(root: str | Path) -> DataConfig:
    """Return the `data` section for a folder: its layout recognised, "folder" where it is like nothing known."""
    name = describe_layout(root) or "folder"
    return DataConfig.model_validate({"name": name, "root": str(root)})


def available_splits(cfg: DataConfig) -> tuple[str, ...]:
    """Return the splits that `create_dataset` can open, val also where it is held out of train.

    Raises DataError or UsageError where there is no root; ("train",) where the root has nothing, so that opening it
    says what is missing.
    """
    cfg = checked(cfg)
    listing = list_dataset_files(cfg, dataset_class(cfg.name).prepare(cfg))
    parts = listing.parts
    found = [split for split in SPLITS if split in parts and parts[split].items]
    if listing.holds_out_val and "val" not in found and "train" in found and len(parts["train"].items) > 1:
        found.insert(1, "val")
    return tuple(found) or ("train",)


def _root(cfg: DataConfig) -> Path:
    if cfg.root is None and (cfg.own("lists") or cfg.own("sources")):
        return dataset_class(cfg.name).prepare(cfg)
    if cfg.root is None:
        raise UsageError("which dataset? give its folder, or a recipe that sets data.root")
    root = Path(cfg.root).expanduser()
    if not root.is_dir():
        raise UsageError(f"{root}: {'is a file, expected a folder' if root.exists() else 'no such folder'}")
    return root


def _layout_finding(cfg: DataConfig, root: Path) -> Finding | None:
    kind = dataset_class(cfg.name)
    if kind.reads(cfg, root):
        return None
    guess = describe_layout(root)
    below = dataset_below(root) if guess is None else None
    foreign = recognise(root) if guess is None and below is None else None
    if foreign is None and cfg.name == "folder" and any(split_folders(root, split) for split in SPLITS):
        return None
    fault = f"is not laid out as data.name={cfg.name}; it holds {_content(root)}"
    if guess is not None:
        repair = f"it looks like {guess}: set data.name={guess}"
    elif foreign is not None:
        fault, repair = foreign.text(root), foreign.advice
    elif below:
        repair = f"did you mean the folder in it: segatlas data check {below}"
    else:
        lists = "; or list pairs in data.lists={train: FILE.csv}"
        repair = f"lay it out as {FOLDER_LAYOUT + lists if cfg.name == 'folder' else kind.layout}"
        alone = without_masks(root) if cfg.name == "folder" else ""
        fault = f"{alone}; it {fault}" if alone else fault
    return Finding(kind="layout", severity="error", files=(root,), fault=fault, repair=repair)


def _content(root: Path) -> str:
    return ", ".join(sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())[:8]) or "nothing"
