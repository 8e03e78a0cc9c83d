"""What a benchmark is asked to do, as plain values that a child process can be given."""

from __future__ import annotations

from dataclasses import dataclass

from segatlas.errors import UsageError
from segatlas.inference.runner import Precision

PIECES = ("forward", "predict")
"""forward: the normalised batch to the output. predict: uint8 image to class map or objects, with preprocessing."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """BenchSettings of a benchmark.

    size: (H, W) pixels of the image. batch: images a call. threads: of torch; None = torch's own choice.
    precisions: each model is measured in each of them. repeats: measured calls, warmups: calls before, per piece.
    num_classes: classes of models made from a name. seed: of the random weights and of the image.
    """

    size: tuple[int, int] = (512, 512)
    batch: int = 1
    threads: int | None = None
    precisions: tuple[Precision, ...] = ("fp32",)
    repeats: int = 10
    warmups: int = 2
    num_classes: int = 19
    seed: int = 0


def parse_size(text: str) -> tuple[int, int]:
    """Return "512x1024" as (512, 1024), height first. UsageError for anything else."""
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"--size: got {text!r}, expected HxW in pixels, such as 512x1024")
    return int(sides[0]), int(sides[1])


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """Return "fp32,bf16" as its parts, each once. UsageError for an unknown one, or none."""
    known: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16"}
    words = dict.fromkeys(word.strip() for word in text.split(","))
    for word in words:
        if word not in known:
            raise UsageError(f"--precision: got {word!r}, expected fp32, bf16 or both joined by a comma")
    return tuple(known[word] for word in words)
