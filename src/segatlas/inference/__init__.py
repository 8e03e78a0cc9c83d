"""From a trained network to results: `load` a model folder, run or checkpoint, then `Predictor.predict`."""

from __future__ import annotations

from pathlib import Path

from segatlas.inference.predictor import Precision, Predictor
from segatlas.inference.tta import View, parse_views
from segatlas.weights import load_pretrained

__all__ = ["Predictor", "View", "load", "parse_views"]


def load(path: str | Path, device: str = "auto", precision: Precision = "fp32", **options: object) -> Predictor:
    """Return a Predictor for a run folder, its `model/`, a checkpoint, a converted folder or a catalogue name.

    Args:
        path: what to load.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "fp32" or "bf16".
        options: further arguments of Predictor: tta, window, overlap.

    Raises:
        WeightsError: nothing there, or nothing that can be loaded.
    """
    net, card = load_pretrained(path)
    return Predictor(net, card, device=device, precision=precision, **options)
