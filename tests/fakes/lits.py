"""A tiny LiTS in its true layout: CT volumes in Hounsfield units with label volumes, in two folders of a batch each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SHAPE = (40, 32, 5)
"""Voxels: columns, rows, slices."""

AFFINE = np.array([[-0.7, 0, 0, 150], [0, -0.7, 0, 120], [0, 0, 1.5, -300], [0, 0, 0, 1]], float)
"""As most volumes of LiTS have it: the first two axes are flipped in space."""


def volume(number: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume int16 and its label uint8, (I, J, K): a liver in all slices but the first, a tumour in some."""
    generator = np.random.default_rng(number)
    label = np.zeros(shape, np.uint8)
    left, top = shape[0] // 4 + number % 3, shape[1] // 4
    label[left : left + shape[0] // 3, top : top + shape[1] // 3, 1:] = 1
    label[left + 2 : left + 6, top + 2 : top + 5, 2 : shape[2] - 1] = 2
    values = np.array([-900, 110, 20])[label] + generator.integers(-15, 16, shape)
    values[:2] = -1024
    return values.astype(np.int16), label


def save_volume(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE, **header: Any) -> Path:
    """Write a volume; further words set fields of its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def write_lits(root: Path, *, count: int = 5, ending: str = ".nii.gz", test: int = 1) -> Path:
    """Write volumes with labels in two batches, and test volumes without."""
    for number in range(count):
        values, label = volume(number)
        batch = root / f"Training Batch {1 if number < 2 else 2}"
        save_volume(batch / f"volume-{number}{ending}", values)
        save_volume(batch / f"segmentation-{number}{ending}", label)
    for number in range(test):
        save_volume(root / f"test-volume-{number}{ending}", volume(100 + number)[0])
    return root


def write_decathlon(root: Path, *, count: int = 3, channel: str = "", labels: object = None) -> Path:
    """Write the same volumes in the folders of the Medical Decathlon.

    channel: what names of images end in, as nnU-Net has it. labels: those of `dataset.json`; None = no such file.
    """
    for number in range(count):
        values, label = volume(number)
        save_volume(root / "imagesTr" / f"liver_{number}{channel}.nii.gz", values)
        save_volume(root / "labelsTr" / f"liver_{number}.nii.gz", label)
    if labels is not None:
        (root / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}), encoding="utf-8")
    return root
