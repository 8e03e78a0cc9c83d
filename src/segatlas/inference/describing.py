"""What a Predictor is, in a few lines: architecture, task, classes, input, device, licence."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from segatlas.checkpoint.card import Card
from segatlas.inference.images import described
from segatlas.models import find_entry
from segatlas.printable import printable
from segatlas.tasks import TASKS

MOST_CLASSES = 12
"""Classes whose names are told."""


def facts_of(card: Card, model: nn.Module, where: str) -> list[tuple[str, str]]:
    """Return (name, text) of what a predictor is; texts are on one line and safe to print.

    Args:
        card: of the network.
        model: the network.
        where: device and precision.
    """
    numbers = sum(weights.numel() for weights in model.parameters())
    facts = [
        ("architecture", f"{_architecture(card)}, {_counted(numbers)} parameters"),
        ("task", f"{TASKS[card.task].title}: gives {', '.join(TASKS[card.task].result)}"),
        ("classes", _classes(card)),
        ("input", _input(card)),
        ("runs on", where),
        ("licence", card.licence or "not stated"),
    ]
    further = "; ".join(described(spec) for spec in card.inputs[1:])
    return [(name, printable(text)) for name, text in [*facts, *([("further inputs", further)] if further else [])]]


def _architecture(card: Card) -> str:
    title, encoder = find_entry(card.architecture)[0].title, card.config.get("encoder")
    name = encoder.get("name") if isinstance(encoder, Mapping) else encoder
    return f"{title} ({card.architecture})" + (f" on {name}" if name else "")


def _counted(numbers: int) -> str:
    return f"{numbers / 1e6:.1f} M" if numbers >= 100_000 else f"{numbers:,}"


def _classes(card: Card) -> str:
    shown, left = ", ".join(card.classes[:MOST_CLASSES]), len(card.classes) - MOST_CLASSES
    return f"{len(card.classes)}: {shown}{f' and {left} more' if left > 0 else ''}"


def _input(card: Card) -> str:
    rules, channels = card.preprocessing, card.inputs[0].channels
    colors = {1: "1 channel (grey)", 3: "3 channels (RGB)"}.get(channels, f"{channels} channels")
    size = f"resized to {rules.resize}" if rules.resize else "of any size"
    mode = card.inference
    windows = ""
    if mode.mode != "whole" and mode.crop and mode.stride:
        windows = f", by windows of {mode.crop[0]}x{mode.crop[1]} every {mode.stride[0]}x{mode.stride[1]}"
    return f"{colors}, values 0..{rules.max_value:g}, {size}{windows}"
