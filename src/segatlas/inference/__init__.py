"""From a trained network to results: `load` a model folder, run or checkpoint, then `Predictor.predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segatlas.checkpoint.card import Card
from segatlas.errors import WeightsError
from segatlas.hub.loading import load_pretrained
from segatlas.inference.images import WithSources
from segatlas.inference.predictor import Predictor
from segatlas.inference.segmentation import Segmentation
from segatlas.inference.segmentations import Segmentations, SegmentationStream
from segatlas.inference.sliding import DEFAULT_OVERLAP
from segatlas.inference.tta import View, parse_views
from segatlas.printable import printable
from segatlas.tasks import TASKS

__all__ = [
    "Predictor",
    "Segmentation",
    "SegmentationStream",
    "Segmentations",
    "View",
    "WithSources",
    "load",
    "parse_views",
]


def load(
    path: str | Path,
    device: str = "auto",
    precision: str = "fp32",
    tta: str | Sequence[str] = (),
    window: int | tuple[int, int] | None = None,
    overlap: float = DEFAULT_OVERLAP,
    window_batch: int | None = None,
    max_value: float | None = None,
    offline: bool = False,
    commercial_ok: bool = False,
    objects: Mapping[str, Any] | None = None,
) -> Predictor:
    """Return a Predictor for a run folder, its `model/`, a model folder, a checkpoint, a catalogue name or a hub id.

    Args:
        path: what to load.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "fp32" or "bf16".
        tta: test-time augmentation, see `parse_views`.
        window: predict by windows of N x N or (h, w) pixels instead of the card's mode.
        overlap: fraction that neighbouring windows have in common.
        window_batch: windows per pass of the network; default: as many as keep the device busy.
        max_value: the stored value that is full scale in the images (1 for floats of 0..1, 4095 for 12 bits), where
            it is not the one that the model expects.
        offline: download nothing, neither weights nor images at addresses; so does `SEGATLAS_OFFLINE`, set to anything
            but 0.
        commercial_ok: refuse weights whose licence is known to forbid commercial use.
        objects: what is asked of objects: "score", "top", "overlap", "class_agnostic", see `Predictor`. Where the
            network has a bound of its own for it, that one is replaced.

    Raises:
        WeightsError: nothing there, or nothing that can be loaded, or a network that gives every pixel the same class.
        UsageError: an option out of range.
    """
    net, card = load_pretrained(path, offline=offline, commercial_ok=commercial_ok, objects=objects)
    _refuse_one_class(path, card)
    return Predictor(
        net,
        card,
        device=device,
        precision=precision,
        tta=tta,
        window=window,
        overlap=overlap,
        window_batch=window_batch,
        max_value=max_value,
        objects=objects,
        offline=offline,
        name=str(path),
    )


def _refuse_one_class(path: str | Path, card: Card) -> None:
    """Raise WeightsError where a label map could hold nothing but class 0, which would look like a result."""
    if len(card.classes) == 1 and TASKS[card.task].target == "SemanticTarget":
        raise WeightsError(
            f"{printable(path)}: a network of one class ({printable(card.classes[0])}), which every pixel would be of: "
            "a label is the class of the largest logit. If it gives one logit to be told by a threshold, convert the "
            "file of the other library anew (segatlas models convert FILE --out FOLDER), which makes two classes of "
            "it; otherwise train it with two"
        )
