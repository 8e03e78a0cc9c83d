"""CUB-200-2011, Caltech-UCSD Birds: each image shows one bird, which five people have drawn.

| fact     | value                                                                                                  |
|----------|--------------------------------------------------------------------------------------------------------|
| paper    | Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", 2011; masks:      |
|          | Farrell et al., distributed with it                                                                    |
| classes  | 2: background, bird (which of the 200 species is told of whole images and not used)                    |
| things   | bird                                                                                                   |
| codes    | grey PNG: 255 x the fraction of five annotators who take the pixel for the bird (0, 51, ... 255)       |
| images   | 11,788 JPEG of about 500 x 375                                                                         |
| splits   | `train_test_split.txt`: 5,994 and 5,794; val is held out of train (`data.val_fraction`)                |
| source   | data.caltech.edu/records/65de6-vp158 (images), segmentations.tgz beside them (masks)                   |
| terms    | non-commercial research and education                                                                  |

Layout: `images.txt`, `train_test_split.txt`, `images/SPECIES/STEM.jpg` in `CUB_200_2011/` or at the root, and
`segmentations/SPECIES/STEM.png` in the same folder or beside it, where the second archive leaves it.

A pixel is bird where more than no annotator marked it (`agreement: any`) or at least half of them (`half`, the
default). A mask without such a pixel is refused: each image shows a bird.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.folder import hold_out
from segatlas.data.datasets.listing import (
    SPLITS,
    Fault,
    FileListing,
    Item,
    LabelEncoding,
    Part,
    fault_of_list,
    listed_but_missing,
    match_stems,
)
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import LabelRule, decode_mask
from segatlas.errors import DataError
from segatlas.files import read_text

CLASSES = ("background", "bird")
NAMES, DIVISION = "images.txt", "train_test_split.txt"
LOWEST = {"any": 1, "half": 128}
"""Smallest value of a pixel that is bird: 255 x fraction of the annotators."""


@dataclass(frozen=True, kw_only=True)
class AgreementRule(LabelRule):
    """How a mask of agreement becomes classes. agreement: a key of LOWEST."""

    agreement: str = "half"

    def decode(self, data: bytes, path: str | Path) -> np.ndarray:
        """Return the label (H, W) uint8, 0 or 1. DataError where no pixel is bird, or values are beyond 8 bits."""
        raw = decode_mask(data, lossy=self.lossy, name=path)
        if int(raw.max()) > 255 or int(raw.min()) < 0:
            raise DataError(f"holds values {int(raw.min())}..{int(raw.max())}; expected 0..255, the agreement", path)
        label = (raw >= LOWEST[self.agreement]).astype(np.uint8)
        if not label.any():
            most = round(int(raw.max()) / 51)
            advice = "; data.agreement=any takes what one of them marked" if most and self.agreement == "half" else ""
            asked = "half of the five" if self.agreement == "half" else "one"
            raise DataError(
                f"no pixel was marked as bird by {asked} annotators (at most by {most}), but each image "
                f"shows one{advice}",
                path,
            )
        return label

    @property
    def text(self) -> str:
        """A text that differs where the rule does."""
        return f"agreement {self.agreement} {self.lossy}"


class Cub200Options(Section):
    """Which pixels are bird, and what is held out."""

    agreement: Literal["half", "any"] = Field(
        "half", description="pixels are bird that at least half of the annotators marked, or that any of them did"
    )
    val_fraction: float = Field(0.1, gt=0, lt=1, description="fraction of train held out as val")


class Cub200(PairedFiles):
    """One split of CUB-200-2011 with its masks."""

    name = "cub200"
    layout = f"{NAMES}, {DIVISION}, images/ and segmentations/ (in CUB_200_2011/ or at the root)"
    classes = CLASSES
    palette = ((0, 0, 0), (220, 150, 40))
    things = (False, True)
    options = Cub200Options

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder, or CUB_200_2011/ in it, has the two lists and the images."""
        home = _home(root)
        return all((home / name).is_file() for name in (NAMES, DIVISION)) and (home / "images").is_dir()

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List train and test as the lists divide them, whichever split is asked for."""
        home, rule = _home(root), _rule(cfg)
        images, masks = list_images(home / "images"), list_images(_masks(home))
        try:
            listed, faults = _division(home), list[Fault]()
        except DataError as error:
            fault = fault_of_list(error, "get the lists again from their source", root=home)
            parts = dict.fromkeys(("train", "test"), Part(error=error))
            return FileListing(root=root, name=cls.name, parts=parts, encoding=cls._encoding(rule), faults=(fault,))
        parts = {split: _match(home, stems, images, masks) for split, stems in listed.items()}
        lost = [home / "images" / f"{stem}.jpg" for stems in listed.values() for stem in stems if stem not in images]
        faults += [listed_but_missing(lost, home / NAMES)] if lost else []
        return FileListing(
            root=root,
            name=cls.name,
            parts=parts,
            encoding=cls._encoding(rule),
            faults=tuple(faults),
            holds_out_val=True,
        )

    @classmethod
    def _encoding(cls, rule: LabelRule) -> LabelEncoding:
        return LabelEncoding(classes=CLASSES, palette=cls.palette, ignore=(), rule=rule)

    def open(self, cfg: DataConfig, root: Path, seed: int) -> Sequence[Item]:
        """Return the items of the split: val is held out of train."""
        wanted, self.split = self.split, "train" if self.split == "val" else self.split
        self.rule = _rule(cfg)
        try:
            items = super().open(cfg, root, seed)
        finally:
            self.split = wanted
        if wanted not in ("train", "val") or len(items) < 2:
            return items
        held = hold_out([item.key for item in items], cfg.options(Cub200Options).val_fraction, seed)
        return tuple(item for item in items if (item.key in held) == (wanted == "val"))

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected."""
        return f"images/, as {NAMES} and {DIVISION} list them"

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule of masks of agreement."""
        return self.rule


def _rule(cfg: DataConfig) -> AgreementRule:
    return AgreementRule(num_classes=len(CLASSES), ignore=(), agreement=cfg.options(Cub200Options).agreement)


def _home(root: Path) -> Path:
    return root / "CUB_200_2011" if (root / "CUB_200_2011").is_dir() else root


def _masks(home: Path) -> Path:
    inside = home / "segmentations"
    return inside if inside.is_dir() or not (home.parent / "segmentations").is_dir() else home.parent / "segmentations"


def _match(
    home: Path, stems: Sequence[str], images: Mapping[str, Sequence[Path]], masks: Mapping[str, Sequence[Path]]
) -> Part:
    part = match_stems(
        {stem: images[stem] for stem in stems if stem in images},
        {stem: masks[stem] for stem in stems if stem in masks and stem in images},
        expected=lambda key: _masks(home) / f"{key}.png",
    )
    lost = next((stem for stem in stems if stem not in images), None)
    if lost is None:
        return part
    missing = DataError(f"no such image, listed in {home / NAMES}", home / "images" / f"{lost}.jpg")
    return replace(part, error=part.error or missing)


def _division(home: Path) -> dict[str, list[str]]:
    """Return the stems of train and test. DataError where the two lists do not say them."""
    names, division = (_numbered(home / name) for name in (NAMES, DIVISION))
    if odd := sorted(set(names) ^ set(division)):
        raise DataError(f"image {odd[0]} is in one of {NAMES} and {DIVISION} only", home / DIVISION)
    wrong = next((number for number, word in division.items() if word not in ("0", "1")), None)
    if wrong is not None:
        raise DataError(f"image {wrong}: got {division[wrong]!r}, expected 1 (train) or 0 (test)", home / DIVISION)
    found: dict[str, list[str]] = {"train": [], "test": []}
    for number, word in division.items():
        found["train" if word == "1" else "test"].append(names[number].rpartition(".")[0])
    return {split: sorted(stems) for split, stems in found.items() if stems}


def _numbered(path: Path) -> dict[str, str]:
    """Return number -> word of a list of two words a line. DataError for anything else."""
    found: dict[str, str] = {}
    for place, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[0] in found:
            raise DataError(f"line {place}: got {line!r}, expected a number of its own and a word", path)
        found[words[0]] = words[1]
    return found
