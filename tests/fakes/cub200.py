"""A tiny CUB-200-2011 in its true tree: lists, species in folders, masks of the agreement of five annotators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import image_of, save_codes, save_image

SPECIES = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


def write_cub200(
    root: Path, *, count: int = 8, size: tuple[int, int] = (30, 40), apart: bool = False, least: int = 0
) -> Path:
    """Write images and masks. apart: the masks where the second archive leaves them. least: annotators that agree."""
    home = root / "CUB_200_2011"
    names, division = [], []
    for number in range(1, count + 1):
        species = SPECIES[number % 2]
        stem = f"{species.partition('.')[2]}_{number:04d}_{796000 + number}"
        agreement = np.zeros(size, np.int64)
        for annotator in range(least or 5):
            agreement[4 + annotator : 24, 6 + number : 26 + number - annotator] += 51
        save_image(home / "images" / species / f"{stem}.jpg", image_of(agreement, number))
        save_codes((root if apart else home) / "segmentations" / species / f"{stem}.png", agreement)
        names.append(f"{number} {species}/{stem}.jpg")
        division.append(f"{number} {int(number % 4 != 0)}")
    (home / "images.txt").write_text("\n".join(names) + "\n")
    (home / "train_test_split.txt").write_text("\n".join(division) + "\n")
    (home / "classes.txt").write_text("\n".join(f"{i} {name}" for i, name in enumerate(SPECIES, 1)) + "\n")
    return root
