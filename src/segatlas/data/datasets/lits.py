"""LiTS, the Liver Tumor Segmentation benchmark: slices of CT volumes.

| fact     | value                                                                                                  |
|----------|--------------------------------------------------------------------------------------------------------|
| paper    | Bilic et al., "The Liver Tumor Segmentation Benchmark (LiTS)", Medical Image Analysis 2023             |
| classes  | 3: background, liver, tumour; or, with `grouping: liver`, background and the liver with its tumours    |
| things   | not told: lesions are not counted                                                                      |
| codes    | label volumes: 0 background, 1 liver, 2 tumour; every voxel is labelled                                |
| images   | 131 volumes with labels, 70 without; 512 x 512 voxels, 42 to 1026 slices, in Hounsfield units          |
| splits   | one with labels; val is held out of it by whole volumes (`data.val_fraction`)                          |
| source   | competitions.codalab.org/competitions/17094                                                            |
| terms    | CC BY-NC-ND 4.0                                                                                        |

Layouts read, files as .nii or .nii.gz:

1. `volume-N.nii` and `segmentation-N.nii`, at the root or in folders below it (`Training Batch 1/`, `Training Batch
   2/`); `test-volume-N.nii` is the test split.
2. The Medical Decathlon's: `imagesTr/NAME.nii.gz` and `labelsTr/NAME.nii.gz` of the same name, `imagesTs/` is test.
   Other sets come in these folders too, such as nnU-Net's: if `dataset.json` names other labels, they are the classes.

Samples are the slices along `data.axis`, their values cut to `data.window` and brought to 0..1. A slice keeps the order
in which its voxels are stored: volumes of LiTS lie in several ways in space, and no axis is turned or flipped by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.foreign import without_channel
from segatlas.data.datasets.listing import (
    SPLITS,
    FileListing,
    Item,
    LabelEncoding,
    Part,
    TruthClasses,
    fault_of_list,
    match_stems,
)
from segatlas.data.datasets.volumes import VolumeFiles, check_volumes, held_out
from segatlas.data.formats.dataset_json import read_labels
from segatlas.data.formats.listing import is_hidden, walk_files
from segatlas.data.formats.masks import LabelRule
from segatlas.data.formats.nifti import is_volume_name
from segatlas.data.formats.palettes import voc_palette
from segatlas.errors import DataError, UsageError

CLASSES = ("background", "liver", "tumour")
PALETTE = ((0, 0, 0), (200, 60, 50), (250, 210, 60))
IMAGE, LABEL, TEST = "volume-", "segmentation-", "test-volume-"
DECATHLON = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}

_CODES = {"tumour": {0: 0, 1: 1, 2: 2}, "liver": {0: 0, 1: 1, 2: 1}}
Files = dict[str, list[Path]]

_SPELLINGS = {"cancer": "tumour", "tumor": "tumour"}
"""What a `dataset.json` of LiTS may call a class."""


class LitsOptions(Section):
    """How volumes become samples."""

    grouping: Literal["tumour", "liver"] = Field(
        "tumour", description="tumour: background, liver, tumour; liver: background, and the liver with its tumours"
    )
    window: tuple[float, float] = Field(
        (-250.0, 250.0), description="values (Hounsfield units) that become 0 and 1; what lies beyond is cut to these"
    )
    axis: int = Field(2, ge=0, le=2, description="axis of the stored array along which volumes are cut into slices")
    slices: Literal["all", "labelled"] = Field(
        "all", description="of train: all slices, or those alone that show more than background; val and test have all"
    )
    val_fraction: float = Field(0.2, gt=0, lt=1, description="fraction of the volumes with labels held out as val")
    classes: tuple[str, ...] | None = Field(
        None, description="class names by label value; default: `labels` of dataset.json, else those of LiTS"
    )


class Lits(VolumeFiles):
    """One split of LiTS, slice by slice."""

    name = "lits"
    layout = (
        "volume-N.nii and segmentation-N.nii (also in folders below), or imagesTr/ and labelsTr/ with .nii.gz files"
    )
    classes = CLASSES
    palette = PALETTE
    options = LitsOptions

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder holds volumes in one of the two layouts."""
        return bool(_decathlon(root, "train")[0] or any(_named(root)))

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List all volumes as train and test, whichever split is asked for; headers are read, voxels are not."""
        parts = {split: part for split in ("train", "test") if (part := _part(root, split)) != Part()}
        checked = {split: check_volumes(part) for split, part in parts.items()}
        faults = [fault for _, found in checked.values() for fault in found]
        parts = {split: part for split, (part, _) in checked.items()}
        options = cfg.options(LitsOptions)
        try:
            encoding = _encoding(options, root)
        except DataError as error:
            encoding = LabelEncoding(ignore=())
            faults.append(
                fault_of_list(
                    error, "correct it, or name the classes: data.classes=[background, ...]", kind="classes_file"
                )
            )
            parts = {split: replace(part, error=error) for split, part in parts.items()}
        table = TruthClasses(names=encoding.classes or CLASSES, palette=encoding.palette or PALETTE)
        return FileListing(
            root=root,
            name=cls.name,
            parts=parts,
            encoding=encoding,
            faults=tuple(faults),
            class_tables={"SemanticTarget": table} if table.names != CLASSES else {},
            holds_out_val=True,
        )

    def open(self, cfg: DataConfig, root: Path, seed: int) -> Sequence[Item]:
        """Return the slices of the split: val is held out of the volumes with labels."""
        options, wanted = cfg.options(LitsOptions), self.split
        self.split = "test" if wanted == "test" else "train"
        try:
            volumes = tuple(super().open(cfg, root, seed))
        finally:
            self.split = wanted
        if wanted in ("train", "val") and len(volumes) > 1:
            volumes = held_out(volumes, options.val_fraction, seed, val=wanted == "val")
        return self.cut(volumes, labelled=wanted == "train" and options.slices == "labelled")

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the volumes of a split are expected."""
        return f"{IMAGE}N.nii with {LABEL}N.nii, or imagesTr/" if split != "test" else f"{TEST}N.nii, or imagesTs/"

    def label_rule(self, path: Path) -> LabelRule:
        """Return how codes become classes, as the grouping has them."""
        return LabelRule(num_classes=len(self.classes), label_map=self.listed.encoding.label_map, ignore=())


def _encoding(options: LitsOptions, root: Path) -> LabelEncoding:
    """Return what values of label volumes mean: as the recipe names them, else `dataset.json`, else as in LiTS.

    Raises:
        DataError: `dataset.json` cannot be read, or names no classes of values.
        UsageError: liver and tumour are to be one class where the classes are others.
    """
    named = None if options.classes or not (root / DECATHLON["train"][0]).is_dir() else read_labels(root)
    names = options.classes or (named.names if named else CLASSES)
    codes = {index: index for index in range(len(names))} if named is None else named.label_map
    is_lits = (
        tuple(_SPELLINGS.get(name.lower(), name.lower()) for name in names) == CLASSES and codes == _CODES["tumour"]
    )
    if not is_lits and options.grouping != "tumour":
        raise UsageError(f"data.grouping={options.grouping}: for background, liver, tumour, not {', '.join(names)}")
    if not is_lits:
        return LabelEncoding(classes=names, palette=voc_palette(len(names)), label_map=codes, ignore=())
    count = 1 + max(_CODES[options.grouping].values())
    return LabelEncoding(
        classes=(options.classes or CLASSES)[:count],
        palette=PALETTE[:count],
        label_map=_CODES[options.grouping],
        ignore=(),
    )


def _part(root: Path, split: str) -> Part:
    images, labels = _decathlon(root, split)
    if not images:
        found = _named(root)
        images, labels = (found[0], found[1]) if split == "train" else (found[2], {})
    return match_stems(
        dict(sorted(images.items())),
        labels,
        needs_mask=split != "test",
        expected=lambda key: _expected_label(key, labels),
    )


def _expected_label(key: str, labels: Files) -> str:
    """Return which label volume is missing, for the message."""
    if (name := without_channel(key)) in labels:
        return f"called {key}, but one called {name}: take nnU-Net's _0000 off the names of images"
    return f"{LABEL}{key.rpartition('-')[2]}.nii, or labelsTr/{key}.nii.gz"


def _named(root: Path) -> tuple[Files, Files, Files]:
    """Return the volumes, label volumes and test volumes of the authors' names, by the name of the volume."""
    found: tuple[Files, Files, Files] = ({}, {}, {})
    for path in _files_near(root):
        if not is_volume_name(path):
            continue
        for start, files in zip((IMAGE, LABEL, TEST), found, strict=True):
            if path.name.startswith(start) and (number := _stem(path).removeprefix(start)).isdecimal():
                key = (TEST if start == TEST else IMAGE) + number
                files.setdefault(key, []).append(path)
    return found


def _files_near(root: Path) -> list[Path]:
    """Return the files of a folder and of the folders in it, by name; deeper ones are not looked for."""
    entries = sorted(entry for entry in root.iterdir() if not is_hidden(entry.name))
    below = [inner for entry in entries if entry.is_dir() for inner in sorted(entry.iterdir())]
    return [path for path in (*entries, *below) if not is_hidden(path.name) and path.is_file()]


def _decathlon(root: Path, split: str) -> tuple[Files, Files]:
    """Return the volumes and label volumes of the Decathlon's folders, by name."""
    pair: list[Files] = []
    for folder in DECATHLON[split]:
        files: Files = {}
        for path in walk_files(root / folder):
            if is_volume_name(path):
                files.setdefault(_stem(path), []).append(path)
        pair.append(files)
    return pair[0], pair[1]


def _stem(path: Path) -> str:
    return path.name[: path.name.lower().rindex(".nii")]
