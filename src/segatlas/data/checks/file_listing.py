"""Which files a dataset has, faults included: nothing is read here but folders, and nothing stops at a fault.

The datasets' own classes stop at the first missing mask; `data check` has to see all of them, so it lists the files
itself, from the facts that those classes publish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.checks.findings import Finding
from segatlas.data.dataset import Color
from segatlas.data.datasets import ade20k, camvid, cityscapes, dataset_class, voc
from segatlas.data.datasets.folder import Pairs, match_stems, parse_color, split_folders
from segatlas.data.datasets.lists import read_pairs
from segatlas.data.datasets.paired import SPLITS
from segatlas.data.formats.classes import read_classes
from segatlas.data.formats.guards import IMAGE_ENDINGS
from segatlas.data.formats.listing import has_images, is_image_name, list_images, walk_files
from segatlas.data.formats.masks import IGNORE
from segatlas.errors import DataError, UsageError
from segatlas.files import read_text

OTHER_NAMES_OF_SPLITS = {
    "train": ("training", "Train", "TRAIN"),
    "val": ("valid", "validation", "Val", "VAL", "dev"),
    "test": ("testing", "Test", "TEST"),
}
"""Split -> what other tools call its folder."""


@dataclass(frozen=True, kw_only=True)
class LabelEncoding:
    """What masks are declared to hold. None = not declared, to be found out.

    label_map: raw code -> label. colors: RGB -> label. ignore: raw codes that mean "ignore".
    """

    classes: tuple[str, ...] | None = None
    palette: tuple[Color, ...] | None = None
    label_map: dict[int, int] | None = None
    colors: dict[Color, int] | None = None
    ignore: tuple[int, ...] = (IGNORE,)


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """The files of a dataset by split, and what its masks are declared to hold."""

    root: Path
    name: str
    parts: dict[str, Pairs]
    encoding: LabelEncoding
    findings: tuple[Finding, ...] = ()
    folders: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    """Split -> its folder of images and its folder of masks, where it has them."""

    holds_out_val: bool = False
    """Whether val is held out of train where it has no part of its own."""

    channels: int | None = None
    """The channels that a recipe declares; None = as the dataset's class finds them."""

    accept: tuple[str, ...] = ()
    """The kinds of findings that are meant so, `data.accept`."""

    chosen: str | None = None
    """The only split that was asked for."""

    def has_part(self, split: str) -> bool:
        """Whether a split has an image, with or without a mask."""
        part = self.parts.get(split)
        return part is not None and bool(part.matched or part.images_without_mask)


def list_dataset_files(cfg: DataConfig, root: Path, split: str | None = None) -> FileListing:
    """List the files of a dataset, of one split or of all.

    Raises:
        UsageError: an unknown split, or keys that contradict one another.
    """
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split: got {split!r}, expected one of {', '.join(SPLITS)}")
    lister = _from_lists if cfg.lists else _LISTERS.get(cfg.name, _from_folder)
    listing = replace(lister(cfg, root), channels=cfg.channels, accept=cfg.accept)
    if split is None:
        return listing
    if split not in listing.parts:
        raise UsageError(f"--split {split}: {root} has {', '.join(listing.parts) or 'no split'}")
    return replace(
        listing,
        parts={split: listing.parts[split]},
        folders={name: folders for name, folders in listing.folders.items() if name == split},
        chosen=split,
    )


def _from_folder(cfg: DataConfig, root: Path) -> FileListing:
    folders = {split: found for split in SPLITS if (found := split_folders(root, split)) is not None}
    parts = {split: _match(images, masks, split) for split, (images, masks) in folders.items()}
    encoding, findings = _folder_coding(cfg, root)
    findings += [*_not_read(folders), *_misnamed_splits(root)]
    return FileListing(
        root=root,
        name=cfg.name,
        parts=parts,
        encoding=encoding,
        findings=tuple(findings),
        folders=folders,
        holds_out_val=cfg.name == "folder",
    )


def _from_lists(cfg: DataConfig, root: Path) -> FileListing:
    parts: dict[str, Pairs] = {}
    encoding, findings = _folder_coding(cfg, root)
    for split, name in (cfg.lists or {}).items():
        path = Path(name).expanduser()
        path = root / path if (root / path).is_file() or not path.is_file() else path
        try:
            parts[str(split)] = Pairs(matched=read_pairs(path, root, split))
        except DataError as error:
            fault = str(error).removeprefix(f"{error.path}: ")
            repair = "correct the line: image,mask, relative to the list's folder or to data.root"
            if not path.exists():
                repair = f"put the list into {root}, or correct data.lists"
            findings.append(Finding(kind="list", severity="error", files=(path,), fault=fault, repair=repair))
    return FileListing(
        root=root, name=cfg.name, parts=parts, encoding=encoding, findings=tuple(findings), holds_out_val=True
    )


def _from_camvid(cfg: DataConfig, root: Path) -> FileListing:
    folders = {
        split: (root / split, labels)
        for split in SPLITS
        for labels in (root / f"{split}annot", root / f"{split}_labels")
        if (root / split).is_dir() and labels.is_dir()
    }
    is_colored = not any(labels.name.endswith("annot") for _, labels in folders.values())
    if is_colored:
        encoding = LabelEncoding(
            classes=camvid.CLASSES,
            palette=camvid.PALETTE,
            colors={color: label for color, (_, label) in camvid.COLORS_32.items()},
        )
    else:
        codes = {index: index for index in range(len(camvid.CLASSES))} | {camvid.VOID_CODE: IGNORE}
        encoding = LabelEncoding(classes=camvid.CLASSES, palette=camvid.PALETTE, label_map=codes, ignore=())
    if not folders:  # the authors' own folders: the class matches them by drive and frame
        return _from_class(cfg, root, encoding)
    ending = "_L" if is_colored else ""
    parts = {}
    for split, (images, labels) in folders.items():
        masks = {key.removesuffix(ending): paths for key, paths in list_images(labels).items()}
        parts[split] = match_stems(list_images(images), masks)
    return FileListing(root=root, name=cfg.name, parts=parts, encoding=encoding, folders=folders)


def _from_class(cfg: DataConfig, root: Path, encoding: LabelEncoding) -> FileListing:
    """List the files as the dataset's own class does; a split in which it finds a fault is left out and reported."""
    kind, parts, findings = dataset_class(cfg.name), {}, []
    for split in SPLITS:
        try:
            parts[split] = Pairs(matched=kind(cfg, split).pairs)
        except DataError as error:
            if error.path != root:  # the root itself is named where it has no such split
                files = () if error.path is None else (error.path,)
                fault = str(error).removeprefix(f"{error.path}: ")
                repair = f"restore the file from the source of {cfg.name}; the rest of {split} was not looked at"
                findings.append(Finding(kind="list", severity="error", files=files, fault=fault, repair=repair))
    return FileListing(root=root, name=cfg.name, parts=parts, encoding=encoding, findings=tuple(findings))


def _from_cityscapes(cfg: DataConfig, root: Path) -> FileListing:
    parts, folders = {}, {}
    has_label_ids = any((root / "gtFine").rglob("*_gtFine_labelIds.png"))
    ending = "_gtFine_labelIds" if has_label_ids else "_gtFine_labelTrainIds"
    for split in SPLITS:
        images, masks = root / "leftImg8bit" / split, root / "gtFine" / split
        if images.is_dir():
            files = {key.removesuffix("_leftImg8bit"): paths for key, paths in list_images(images).items()}
            found = list_images(masks) if masks.is_dir() else {}
            labels = {key.removesuffix(ending): paths for key, paths in found.items() if key.endswith(ending)}
            parts[split] = match_stems(files, labels, needs_mask=split != "test")
            folders[split] = (images, masks)
    encoding = LabelEncoding(
        classes=cityscapes.CLASSES,
        palette=cityscapes.PALETTE,
        label_map=cityscapes.TRAIN_ID_OF_LABEL_ID if has_label_ids else None,
    )
    return FileListing(root=root, name=cfg.name, parts=parts, encoding=encoding, folders=folders)


def _from_voc(cfg: DataConfig, root: Path) -> FileListing:
    encoding = LabelEncoding(classes=voc.CLASSES, palette=voc.PALETTE)
    homes = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    home = next((home for home in homes if (home / "ImageSets" / "Segmentation").is_dir()), root)
    images, masks = list_images(home / "JPEGImages"), list_images(home / "SegmentationClass")
    parts, findings = {}, []
    for split in SPLITS:
        path = home / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not path.is_file():
            continue
        try:
            stems = read_text(path).split()
        except DataError as error:
            findings.append(_unreadable_list(error, path))
            continue
        lost = tuple(home / "JPEGImages" / f"{stem}.jpg" for stem in stems if stem not in images)
        if lost:
            findings.append(_listed_but_missing(lost, path))
        parts[split] = match_stems(
            {stem: images[stem] for stem in stems if stem in images},
            {stem: masks[stem] for stem in stems if stem in masks and stem in images},
            needs_mask=split != "test",
        )
    return FileListing(root=root, name=cfg.name, parts=parts, encoding=encoding, findings=tuple(findings))


def _from_ade20k(cfg: DataConfig, root: Path) -> FileListing:
    home = ade20k.find_home(root)
    if home is None or not (home / "annotations").is_dir():
        advice = "write masks of 150 classes first: segatlas data convert"
        raise UsageError(
            f"{root}: the colours of the full ADE20K name about 3000 objects and are not examined; {advice}"
        )
    parts, folders = {}, {}
    for split, folder in ade20k.FOLDERS.items():
        images, masks = home / "images" / folder, home / "annotations" / folder
        if images.is_dir():
            parts[split] = _match(images, masks, split)
            folders[split] = (images, masks)
    codes = ade20k.CLASS_OF_CODE
    encoding = LabelEncoding(classes=ade20k.CLASSES, palette=ade20k.PALETTE, label_map=codes, ignore=())
    return FileListing(root=root, name=cfg.name, parts=parts, encoding=encoding, folders=folders)


_LISTERS: dict[str, Callable[[DataConfig, Path], FileListing]] = {
    "camvid": _from_camvid,
    "cityscapes": _from_cityscapes,
    "voc": _from_voc,
    "ade20k": _from_ade20k,
}
"""Datasets that are laid out otherwise than a folder of images and masks."""


def _unreadable_list(error: DataError, path: Path) -> Finding:
    fault = str(error).removeprefix(f"{path}: ")
    return Finding(kind="list", severity="error", files=(path,), fault=fault, repair="write it as plain text in UTF-8")


def _listed_but_missing(files: tuple[Path, ...], listed_in: Path) -> Finding:
    return Finding(
        kind="list",
        severity="error",
        files=files,
        fault=f"listed in {listed_in}, but not there",
        repair=f"restore the images, or delete their lines in {listed_in}",
    )


def _match(images: Path, masks: Path, split: str) -> Pairs:
    found = list_images(masks) if masks.is_dir() else {}
    return match_stems(list_images(images), found, needs_mask=split != "test")


def _folder_coding(cfg: DataConfig, root: Path) -> tuple[LabelEncoding, list[Finding]]:
    table, findings = None, []
    try:
        table = read_classes(root)
    except DataError as error:
        files = (error.path or root,)
        fault = str(error).removeprefix(f"{error.path}: ")
        repair = "correct it, and keep a copy: classes.txt has one name a line, classes.json a list of names"
        findings.append(Finding(kind="classes_file", severity="error", files=files, fault=fault, repair=repair))
    names = cfg.classes or (table.names if table else None)
    colors = None
    if cfg.label_colors is not None:
        colors = {parse_color(text): index for text, index in cfg.label_colors.items()}
    encoding = LabelEncoding(
        classes=names,
        palette=cfg.palette or (table.colors if table else None),
        label_map=None if colors is not None else cfg.label_map,
        colors=colors,
        ignore=cfg.ignore,
    )
    return encoding, findings


def _misnamed_splits(root: Path) -> list[Finding]:
    """Name folders that are splits under another name, such as valid/: they are not read."""
    findings = []
    for split, names in OTHER_NAMES_OF_SPLITS.items():
        for name in names:
            folders = (root / name / "images", root / "images" / name)
            found = next((folder for folder in folders if has_images(folder)), None)
            if found is not None:
                fault = f"holds images, but the split is not called {split} and is not read"
                finding = Finding(
                    kind="not_read", severity="warning", files=(found,), fault=fault, repair=f"rename {name} to {split}"
                )
                findings.append(finding)
    return findings


def _not_read(folders: dict[str, tuple[Path, Path]]) -> list[Finding]:
    """Name what lies among images and masks but is not read, such as .gif masks."""
    files = tuple(
        path
        for pair in folders.values()
        for folder in pair
        if folder.is_dir()
        for path in walk_files(folder)
        if not is_image_name(path)
    )
    if not files:
        return []
    fault = f"their endings are not read (read: {' '.join(IMAGE_ENDINGS)})"
    repair = "save them as PNG, or move them elsewhere"
    return [Finding(kind="not_read", severity="warning", files=files, fault=fault, repair=repair)]
