"""Any folder of images and masks.

Layouts, `STEM` being equal for an image and its mask (subfolders allowed), endings free:

1. `ROOT/{train,val[,test]}/{images,masks}/STEM.*`
2. `ROOT/{images,masks}/{train,val[,test]}/STEM.*`
3. `ROOT/{images,masks}/STEM.*`: all of it is train; in these three, `masks` may be called `labels`
4. `data.lists={train: FILE, val: FILE}`: a CSV or text file of `image,mask` pairs for each split, see `lists.py`

Without a val part, a seeded fraction of train (`data.val_fraction`) is held out, and named in the log. In test, masks
may be missing. Class names come from `data.classes`, else `ROOT/classes.json` or `ROOT/classes.txt`, else they are
counted in
the masks of all splits: `class_0` up to the largest label found.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.dataset import Color
from segatlas.data.datasets.lists import read_pairs
from segatlas.data.datasets.paired import SPLITS, Pair, PairedFiles, empty_split
from segatlas.data.datasets.scan import count_classes, refuse_black_and_white
from segatlas.data.formats.classes import ClassTable, read_classes
from segatlas.data.formats.images import read_header
from segatlas.data.formats.listing import has_images, list_images
from segatlas.data.formats.masks import IGNORE, LOSSY, LabelRule
from segatlas.data.formats.palettes import voc_palette
from segatlas.data.formats.pixels import common_channels
from segatlas.errors import DataError, UsageError

logger = logging.getLogger(__name__)

MASKS, LABELS = "masks", "labels"
"""The folder of masks, and what many tools call it; a `labels` folder of text files is none."""

HEADERS_READ = 16
"""Images whose headers decide how many channels a set has."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What lies in the folders of a split, faults included. In split test an image without mask is no fault."""

    matched: tuple[Pair, ...] = ()
    images_without_mask: tuple[Path, ...] = ()
    masks_without_image: tuple[Path, ...] = ()
    duplicates: tuple[Path, ...] = ()
    """Files with the stem of another file in the same folder; they are in no pair."""


class FolderData(PairedFiles):
    """One split of a folder of images and masks, in any of the four layouts (see the head of this file)."""

    name = "folder"
    layout = "train/images/ and train/masks/, or images/train/ and masks/train/, or images/ and masks/"

    def find(self, cfg: DataConfig, root: Path, seed: int) -> tuple[Pair, ...]:
        """Return the pairs of the split; classes and channels are the same for all splits of a root."""
        parts = _all_pairs(cfg, root)
        label_map, colors = _tables(cfg)
        masks = [pair.mask for name in SPLITS for pair in parts.get(name, ()) if pair.mask is not None]
        if label_map is None and colors is None and IGNORE in cfg.ignore:
            refuse_black_and_white(masks, lossy=LOSSY in cfg.accept)
        self.classes, self.palette = _find_classes(cfg, root, masks, label_map, colors)
        self._rule = LabelRule(
            num_classes=len(self.classes),
            label_map=label_map,
            ignore=cfg.ignore,
            colors=colors,
        )
        known = parts.get("train") or next(iter(parts.values()), ())
        if cfg.channels is None:
            self.channels = _count_channels(known[:HEADERS_READ])
        return _choose(parts, self.split, cfg, root, seed)

    @classmethod
    def prepare(cls, cfg: DataConfig) -> Path:
        """Return the root; where lists are given it may be left out, and is then the folder of the first list."""
        if cfg.root is None and cfg.lists:
            return Path(next(iter(cfg.lists.values()))).expanduser().parent
        return super().prepare(cfg)

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has a split with a folder of images and one of masks."""
        parts = [split_folders(root, split) for split in SPLITS]
        return any(folders is not None and folders[1].is_dir() for folders in parts)

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule that the recipe gives: a label map or a colour table, and what is ignored."""
        return self._rule


def split_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """Return the folder of images and the folder of masks of a split, or None where it has no images."""
    for images, masks in (
        (root / split / "images", root / split / MASKS),
        (root / "images" / split, root / MASKS / split),
    ):
        if images.is_dir():
            return images, _mask_folder(masks, root)
    is_undivided = (root / "images").is_dir() and not any((root / "images" / name).is_dir() for name in SPLITS)
    return (root / "images", _mask_folder(root / MASKS, root)) if split == "train" and is_undivided else None


def _mask_folder(masks: Path, root: Path) -> Path:
    """Return the folder of masks, or the one called `labels` in its place, if that holds images."""
    if masks.is_dir():
        return masks
    parts = [LABELS if part == MASKS else part for part in masks.relative_to(root).parts]
    labels = root.joinpath(*parts)
    return labels if has_images(labels) else masks


def find_pairs(root: str | Path, split: str) -> Pairs:
    """Match images and masks of a split by stem. Reads no file and raises nothing: faults are in the result."""
    folders = split_folders(Path(root), split)
    if folders is None:
        return Pairs()
    masks = list_images(folders[1]) if folders[1].is_dir() else {}
    return match_stems(list_images(folders[0]), masks, needs_mask=split != "test")


def match_stems(
    images: Mapping[str, Sequence[Path]], masks: Mapping[str, Sequence[Path]], *, needs_mask: bool = True
) -> Pairs:
    """Match images and masks that have one key; where one key has several files, the first of them counts."""
    matched = [
        Pair(key=key, image=paths[0], mask=masks[key][0] if key in masks else None)
        for key, paths in images.items()
        if key in masks or not needs_mask
    ]
    return Pairs(
        matched=tuple(matched),
        images_without_mask=tuple(images[key][0] for key in images if needs_mask and key not in masks),
        masks_without_image=tuple(masks[key][0] for key in masks if key not in images),
        duplicates=tuple(path for found in (images, masks) for paths in found.values() for path in paths[1:]),
    )


def hold_out(keys: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Return the keys held out of train: the `fraction` whose hash with the seed is lowest, at least one, never all.

    The order of the keys and other keys' names do not matter, so that a set may grow without reshuffling.
    """
    ranked = sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    count = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
    return set(ranked[:count])


def _all_pairs(cfg: DataConfig, root: Path) -> dict[str, tuple[Pair, ...]]:
    """Return the pairs of every split that has any; DataError at the first fault."""
    if cfg.lists:
        return {split: read_pairs(_list_path(root, name), root, split) for split, name in cfg.lists.items()}
    parts = {split: _whole_pairs(root, split) for split in SPLITS}
    return {split: pairs for split, pairs in parts.items() if pairs}


def _list_path(root: Path, name: str) -> Path:
    path = Path(name).expanduser()
    return root / path if (root / path).is_file() or not path.is_file() else path


def _whole_pairs(root: Path, split: str) -> tuple[Pair, ...]:
    pairs = find_pairs(root, split)
    if pairs.duplicates:
        raise DataError("has the stem of another file beside it; keep one of them", pairs.duplicates[0])
    if pairs.images_without_mask:
        raise DataError(_missing_mask_message(root, split, pairs), pairs.images_without_mask[0])
    if pairs.masks_without_image:
        count, first = len(pairs.masks_without_image), pairs.masks_without_image[0]
        logger.warning("%d mask(s) of %s have no image and are left out, the first is %s", count, split, first)
    return pairs.matched


def _missing_mask_message(root: Path, split: str, pairs: Pairs) -> str:
    folders = split_folders(root, split)
    assert folders is not None  # the images were found there
    path, count = pairs.images_without_mask[0], len(pairs.images_without_mask)
    if not folders[1].is_dir():
        return f"has no mask: there is no folder {folders[1]}"
    loose = {mask.stem: mask for mask in pairs.masks_without_image}
    close = difflib.get_close_matches(path.stem, loose, n=1, cutoff=0.5)
    hint = f"; the nearest mask is {loose[close[0]]}, but stems must be equal" if close else ""
    total = count + len(pairs.matched)
    return f"has no mask in {folders[1]} ({count} of {total} images of {split} have none){hint}"


def _count_channels(pairs: Sequence[Pair]) -> int:
    """Return the channels that the images are read with. One that cannot be read is reported when it is loaded."""
    found = []
    for pair in pairs:
        with suppress(DataError):
            found.append(read_header(pair.image).channels)
    return common_channels(found)


def _choose(parts: dict[str, tuple[Pair, ...]], split: str, cfg: DataConfig, root: Path, seed: int) -> tuple[Pair, ...]:
    """Return the pairs of a split, val held out of train where it has no part of its own."""
    if split in ("train", "val") and "val" not in parts and len(parts.get("train", ())) > 1:
        held = hold_out([pair.key for pair in parts["train"]], cfg.val_fraction, seed)
        if split == "val":
            names = ", ".join(sorted(held)[:10]) + (", ..." if len(held) > 10 else "")
            counts = f"{len(held)} of {len(parts['train'])}"
            logger.info("no val part in %s: held %s out of train (seed %d): %s", root, counts, seed, names)
        return tuple(pair for pair in parts["train"] if (pair.key in held) == (split == "val"))
    if not parts.get(split):
        expected = f"{split}/images/ or images/{split}/" if not cfg.lists else f"data.lists.{split}"
        raise empty_split(split, root, expected, [name for name, pairs in parts.items() if pairs])
    return parts[split]


def _tables(cfg: DataConfig) -> tuple[dict[int, int] | None, dict[Color, int] | None]:
    """Return the label map and the colour table of a recipe, checked."""
    if cfg.label_colors is None:
        return cfg.label_map, None
    if cfg.label_map is not None:
        raise UsageError("data.label_map and data.label_colors are both set; colours already name class indices")
    return None, {parse_color(text): index for text, index in cfg.label_colors.items()}


def parse_color(text: str) -> Color:
    """Return the colour of a key of `data.label_colors`, 'r,g,b'. UsageError where it is none."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdigit() and int(part) <= 255 for part in parts):
        raise UsageError(f"data.label_colors: {text!r} is not a colour; expected 'r,g,b' with values 0..255")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _find_classes(
    cfg: DataConfig,
    root: Path,
    masks: Sequence[Path],
    label_map: dict[int, int] | None,
    colors: dict[Color, int] | None,
) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    """Return names and colours by class index."""
    table = ClassTable(names=cfg.classes) if cfg.classes else read_classes(root)
    if table is None:
        mapped = label_map or colors
        if mapped:
            count = 1 + max((index for index in mapped.values() if index != IGNORE), default=0)
        else:
            count = count_classes(masks, cfg.ignore, root, lossy=LOSSY in cfg.accept)
        table = ClassTable(names=tuple(f"class_{index}" for index in range(count)))
    palette = cfg.palette or table.colors or voc_palette(len(table.names))
    if len(palette) != len(table.names):
        raise UsageError(f"data.palette has {len(palette)} colours for {len(table.names)} classes")
    return table.names, palette
