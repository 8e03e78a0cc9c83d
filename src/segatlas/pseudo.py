"""Pseudo masks: what a network that learned classes of whole images shows of where they are, as masks to learn from.

The maps of a network that was trained with `image_labels` are class activation maps. Those of the classes that an image
shows are summed over sizes and mirror images, divided by their largest values, spread by colour, and become labels:
foreground where they are sure, background where they are sure of that, 255 where neither.

Letters: K classes, H W image, h w a map at a stride of `STRIDE`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks.examine import available_splits
from segatlas.data.copies import check_copy, copy_image, label_to_copy
from segatlas.data.dataset import SegmentationData
from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.masks import write_mask
from segatlas.data.named_background import stated_background
from segatlas.errors import DataError, UsageError
from segatlas.files import whole_folder
from segatlas.inference import Predictor
from segatlas.inference.images import ImageBatch
from segatlas.labels import IGNORE
from segatlas.ops import upsample_logits
from segatlas.ops.spreading import color_edges, random_walk, refine_by_color
from segatlas.structures import SemanticLogits, SemanticTarget

STRIDE = 4
"""Pixels of the image that a pixel of an activation map has a side."""

RECORD = "pseudo.json"
Spread = Literal["none", "local", "walk"]
SPREADS: tuple[Spread, ...] = ("local", "walk", "none")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PseudoRule:
    """How activation maps become labels.

    spread: "local" by colour to neighbours, "walk" by a random walk that stops at borders, those that the network has
    learned (`irnet`), or else edges of colour, "none" not at all.
    foreground: score from which on a class is sure, as a fraction of its largest in the image; background: score below
    which nothing is there; what lies between is 255. scales: sizes of the image that are looked at. flip: and their
    mirror images.
    """

    spread: Spread = "local"
    foreground: float = 0.3
    background: float = 0.05
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    flip: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError where the numbers do not fit together."""
        if not 0 < self.background <= self.foreground < 1:
            found = f"background {self.background:g}, foreground {self.foreground:g}"
            raise UsageError(f"{found}: expected 0 < background <= foreground < 1")
        if self.spread not in SPREADS:
            raise UsageError(f"spread: got {self.spread!r}, expected {', '.join(SPREADS)}")
        if not self.scales or min(self.scales) <= 0 or max(self.scales) > 8:
            raise UsageError(f"scales: got {self.scales}, expected numbers above 0 and at most 8")


def write_pseudo_masks(
    predictor: Predictor,
    cfg: DataConfig,
    out: str | Path,
    rule: PseudoRule | None = None,
    *,
    background: str | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Write a folder of images and masks: of train pseudo masks, of val and test the masks that are there.

    Args:
        predictor: of a semantic network that was trained with `image_labels`.
        cfg: the data; train says which classes its images show, with labels of any kind.
        out: the folder; it appears when all of it is there.
        rule: how maps become labels.
        background: the class of everything else, default one that is called so; "none" = there is none.
        progress: called with (images done, images in all).

    Returns:
        The number of images in each split, and the fraction of pixels of train that are labelled.

    Raises:
        DataError: no train split, or a file that cannot be read.
        UsageError: the model gives no class maps or has other classes; `out` is not empty.
    """
    out, rule = Path(out), rule or PseudoRule()
    check_copy(cfg, out)
    splits = {split: create_dataset(cfg, split) for split in available_splits(cfg)}
    if "train" not in splits:
        raise DataError("has no train split", cfg.root)
    classes = splits["train"].classes
    if tuple(predictor.card.classes) != tuple(classes):
        raise UsageError(
            f"the model has the classes {', '.join(predictor.card.classes[:8])}, the data {', '.join(classes[:8])}"
        )
    rest = stated_background(cfg, classes, background)
    total, done, labelled, pixels = sum(map(len, splits.values())), 0, 0, 0
    with whole_folder(out, durable=False) as temporary:
        for split, data in splits.items():
            for index in range(len(data)):
                key = data.key(index)
                copy_image(data, index, temporary / split / "images")
                label = None
                if split == "train":
                    label = pseudo_label(predictor, data, index, rule, rest)
                    labelled += int((label != IGNORE).sum())
                    pixels += label.size
                else:
                    label = label_to_copy(data, index)
                if label is not None:
                    write_mask(temporary / split / "masks" / f"{key}.png", label, data.palette)
                done += 1
                if progress:
                    progress(done, total)
        write_classes(temporary / JSON_FILE, classes, splits["train"].palette)
        record = {
            "spread": rule.spread,
            "edges": ("learned" if learns_edges(predictor) else "colour") if rule.spread == "walk" else None,
            "foreground": rule.foreground,
            "background": rule.background,
        }
        (temporary / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return {**{split: len(data) for split, data in splits.items()}, "labelled": labelled / max(pixels, 1)}


def pseudo_label(
    predictor: Predictor, data: SegmentationData, index: int, rule: PseudoRule, rest: int | None
) -> np.ndarray:
    """Return the pseudo mask (H, W) uint8 of a sample; rest: the class of everything else."""
    sample = data.load(index)
    present = _present(sample.target, len(data.classes))
    if present is None:
        raise DataError("says nothing of the classes it shows", sample.key)
    kinds = [kind for kind in np.flatnonzero(present).tolist() if kind != rest]
    size = (sample.image.shape[0], sample.image.shape[1])
    if not kinds:
        return np.full(size, IGNORE if rest is None else rest, np.uint8)
    maps = activation_maps(predictor, sample.image, kinds, rule)
    edges = learned_edges(predictor, sample.image, rule) if rule.spread == "walk" and learns_edges(predictor) else None
    return label_of_maps(maps, _plain(sample.image, predictor), kinds, rule, rest, edges)


def learns_edges(predictor: Predictor) -> bool:
    """Tell whether the network says where borders of classes lie."""
    return hasattr(predictor.model, "forward_with_relations")


@torch.inference_mode()
def learned_edges(predictor: Predictor, image: np.ndarray, rule: PseudoRule) -> Tensor:
    """Return the probability of a border, (h, w), by a network that has learned it, of the image and its mirror image.

    image: (H, W, C) as stored.
    """
    size, logits = map_size(image), []
    for flipped in (False, True) if rule.flip else (False,):
        prepared = predictor.prepare(np.ascontiguousarray(image[:, ::-1]) if flipped else image)
        network: Any = predictor.model
        out, relations = network.forward_with_relations(ImageBatch([prepared], predictor.device).whole())
        found = upsample_logits(relations[:, :1].float().cpu(), size, canvas=out.canvas, crop=_size_of(prepared))[0, 0]
        logits.append(found.flip(-1) if flipped else found)
    return torch.stack(logits).mean(dim=0).sigmoid()


def map_size(image: np.ndarray) -> tuple[int, int]:
    """Return (h, w) of the activation maps of an image (H, W, C)."""
    return -(-image.shape[0] // STRIDE), -(-image.shape[1] // STRIDE)


@torch.inference_mode()
def activation_maps(predictor: Predictor, image: np.ndarray, kinds: Sequence[int], rule: PseudoRule) -> Tensor:
    """Return the activation maps (C, h, w) of some classes, each divided by its largest value.

    Args:
        predictor: of a network that gives `SemanticLogits`.
        image: (H, W, C) as stored.
        kinds: C classes.
        rule: sizes and mirror images that are summed.

    Raises:
        UsageError: the network gives something else.
    """
    import cv2

    size = map_size(image)
    total = torch.zeros(len(kinds), *size)
    for scale in rule.scales:
        height, width = (max(8, round(side * scale)) for side in image.shape[:2])
        scaled = image
        if (height, width) != image.shape[:2]:
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            scaled = np.atleast_3d(cv2.resize(image, (width, height), interpolation=way))
        for flipped in (False, True) if rule.flip else (False,):
            given = np.ascontiguousarray(scaled[:, ::-1]) if flipped else scaled
            prepared = predictor.prepare(given)
            output = predictor.output(ImageBatch([prepared], predictor.device).whole())
            if not isinstance(output, SemanticLogits):
                raise UsageError(f"the model gives {type(output).__name__}; activation maps need maps of classes")
            crop = _size_of(prepared)
            maps = upsample_logits(
                output.logits[:, list(kinds)].float().cpu(), size, canvas=output.canvas, crop=crop,
                align_corners=output.resample.align_corners,
            )[0].relu()  # fmt: skip
            total += maps.flip(-1) if flipped else maps
    return total / (total.amax(dim=(1, 2), keepdim=True) + 1e-5)


def label_of_maps(
    maps: Tensor,
    image: Tensor,
    kinds: Sequence[int],
    rule: PseudoRule,
    rest: int | None,
    edges: Tensor | None = None,
) -> np.ndarray:
    """Return labels (H, W) uint8 of activation maps (C, h, w) and the image (3, H, W): sure ones, else 255.

    A class is sure where it is the largest of all with the background's score at `rule.foreground`; the background
    where it is with `rule.background`. Without a background what is not sure is 255. edges: (h, w), 0..1, at which a
    walk stops; None = those of colour.
    """
    size = (image.shape[-2], image.shape[-1])
    small = F.interpolate(image[None], size=maps.shape[-2:], mode="area")[0]
    if rule.spread == "walk":
        walked = random_walk(maps, color_edges(small) if edges is None else edges)
        maps = walked / (walked.amax(dim=(1, 2), keepdim=True) + 1e-5)
    whole = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    table = torch.tensor([IGNORE if rest is None else rest, *kinds], dtype=torch.uint8)

    if rule.spread == "local":  # what is the same everywhere, the background's score, would stay as it is
        whole = refine_by_color(whole, image)

    def label(threshold: float) -> Tensor:
        return torch.cat([torch.full((1, *size), threshold), whole]).argmax(dim=0)

    sure, possible = label(rule.foreground), label(rule.background)
    found = table[torch.where(sure > 0, sure, possible)]
    found[(sure == 0) & (possible > 0)] = IGNORE
    return found.numpy()


def _present(target: Any, count: int) -> np.ndarray | None:
    """Return which classes (K,) a truth says that its image shows; None where it says nothing."""
    if not isinstance(target, SemanticTarget):
        return None
    if target.present is not None:
        return np.asarray(target.present).astype(bool)
    labels = target.certain
    found: np.ndarray = np.bincount(labels.ravel(), minlength=256)[:count] > 0
    return found if (labels != IGNORE).any() else None


def _plain(image: np.ndarray, predictor: Predictor) -> Tensor:
    """Return an image (H, W, C) as (3, H, W) float of about 0..1."""
    values = torch.from_numpy(np.ascontiguousarray(image).astype(np.float32)).permute(2, 0, 1)
    values = values / predictor.card.preprocessing.max_value
    return values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)


def _size_of(prepared: Any) -> tuple[int, int]:
    """Return the (h, w) of an image as the network takes it."""
    height, width = prepared.input_size
    return int(height), int(width)
