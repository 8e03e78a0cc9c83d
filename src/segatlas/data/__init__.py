"""Datasets, their file formats, and what is done to samples on the way to a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import DATASETS, dataset_below, dataset_class, describe_layout
from segatlas.data.datasets.foreign import recognise, without_masks
from segatlas.data.store import Store
from segatlas.errors import DataError

if TYPE_CHECKING:
    from segatlas.config.schema import DataConfig

__all__ = ["DATASETS", "Store", "create_dataset", "describe_layout", "require_layout", "targets_of"]


def create_dataset(
    cfg: DataConfig, split: str, seed: int = 0, store: Store | None = None, target: str = "SemanticTarget"
) -> SegmentationData:
    """Open one split of the dataset that a recipe names.

    Args:
        cfg: the recipe's `data` section.
        split: train, val or test; VOC takes the name of any of its lists.
        seed: decides which images are held out of train where a folder has no val part.
        store: where decoded images and labels are kept; `Store.of(cfg)` is the one that the recipe asks for.
        target: which truth its samples carry, by the name of its type in `segatlas.structures`.

    Raises:
        DataError: the root is missing or laid out otherwise, the split is empty, or its files do not match.
        UsageError: keys of the section that are missing or contradict one another, or a truth that it does not give.
    """
    from segatlas.data.options import checked  # builds the schema of recipes, which predicting does without

    kind = dataset_class(cfg.name)
    kind.require_target(target)
    cfg = checked(cfg)
    require_layout(cfg)
    return kind(cfg, split, seed, store, target)


def require_layout(cfg: DataConfig) -> None:
    """Raise DataError unless the root of a recipe's `data` section is there and laid out as its dataset is.

    Needs no torch, so that a wrong folder is told at once. Generated shapes are made where they are missing.
    """
    kind = dataset_class(cfg.name)
    root = kind.prepare(cfg)
    if not kind.reads(cfg, root):
        text = f"is not laid out as data.name={cfg.name}: expected {kind.layout}; it"
        if hint := _hint(root):
            raise DataError(f"{text} {hint}", root)
        alone = without_masks(root) if cfg.name == "folder" else ""
        raise DataError(
            f"{alone}. It {text} holds {_content(root)}" if alone else f"{text} holds {_content(root)}", root
        )


def targets_of(cfg: DataConfig, split: str) -> tuple[str, ...]:
    """Return the names of the truths that a split's files give, the plainest first; a held-out val has train's."""
    from segatlas.data.options import checked

    kind = dataset_class(cfg.name)
    cfg = checked(cfg)
    listing = kind.listing(cfg, kind.prepare(cfg))
    part = listing.parts.get(split) or listing.parts.get("train")
    items = part.items if part is not None else ()
    given = {name for item in items for name, path in {"SemanticTarget": item.target, **item.truths}.items() if path}
    return tuple(name for name in kind.targets if name in given) or kind.targets[:1]


def _hint(root: Path) -> str:
    """Return what a folder is instead; "" where it is like nothing known."""
    guess = describe_layout(root)
    if guess is not None:
        return f"looks like a {guess} layout: data.name={guess}"
    if (below := dataset_below(root)) is not None:
        return f"holds {below.name}, laid out as data.name={describe_layout(below)}: data.root={below}"
    if (foreign := recognise(root)) is not None:
        return f"{foreign.text(root)}; {foreign.advice}"
    return ""


def _content(root: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
