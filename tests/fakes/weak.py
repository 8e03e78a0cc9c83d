"""A tiny folder with weak labels of train, made by hand from blocks of three classes; val has whole masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image
from PIL import Image

from segatlas.data.formats.classes import write_classes

NAMES = ("ground", "car", "tree")
COLORS = ((90, 90, 90), (200, 40, 40), (40, 160, 40))
SIZE = (32, 48)


def scene(number: int) -> np.ndarray:
    """Return the whole mask of an image, (32, 48): rectangles of all three classes."""
    return blocks(number, (0, 1, 2, 0), SIZE)


def write_weak(root: Path, kind: str = "scribbles", *, train: int = 4, val: int = 2) -> Path:
    """Write ROOT/{train,val}/images with whole masks in val and one kind of weak labels in train."""
    rows: list[str] = []
    for split, count in {"train": train, "val": val}.items():
        for index in range(count):
            number = index + 100 * (split == "val")
            codes, stem = scene(number), f"{number:03d}"
            save_image(root / split / "images" / f"{stem}.png", image_of(codes, number))
            if split == "val":
                save_codes(root / split / "masks" / f"{stem}.png", codes)
                if kind == "boxes":
                    maps = root / split / "instances" / f"{stem}.png"
                    maps.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(np.where(codes > 0, 1000 * codes + 1, 0).astype(np.uint16)).save(maps)
            else:
                rows += _labels(root / "train", kind, stem, codes)
    heads = {"boxes": "image,class,x0,y0,x1,y1", "labels": "image,classes", "partial": "image,classes"}
    names = {"boxes": "boxes.csv", "labels": "labels.csv", "partial": "classes_labelled.csv"}
    if kind in names:
        (root / "train" / names[kind]).write_text("\n".join([heads[kind], *rows]) + "\n")
    write_classes(root / "classes.json", NAMES, COLORS)
    return root


def _labels(folder: Path, kind: str, stem: str, codes: np.ndarray) -> list[str]:
    """Write the labels of an image, or return its rows of a table."""
    if kind in ("scribbles", "points"):
        kept = np.full(SIZE, 255)
        step = (slice(4, None, 8), slice(4, None, 8)) if kind == "points" else (slice(6, 10), slice(2, 46))
        kept[step] = codes[step]
        if kind == "scribbles":
            kept[22:26, 2:46] = codes[22:26, 2:46]
        save_codes(folder / kind / f"{stem}.png", kept)
    elif kind == "boxes":
        places = {one: np.argwhere(codes == one) for one in (1, 2)}
        return [
            f"{stem}.png,{NAMES[one]},{at[:, 1].min()},{at[:, 0].min()},{at[:, 1].max() + 1},{at[:, 0].max() + 1}"
            for one, at in places.items()
        ]
    elif kind == "labels":
        return [f"{stem}.png,car;tree"]
    else:
        looked_for = 1 + int(stem) % 2
        save_codes(folder / "masks" / f"{stem}.png", np.where(codes == looked_for, codes, 0))
        return [f"{stem}.png,{NAMES[looked_for]}"]
    return []
