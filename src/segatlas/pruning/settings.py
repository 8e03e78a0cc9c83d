"""What is asked of a pruning, checked before anything is read."""

from __future__ import annotations

from dataclasses import dataclass

from segatlas.errors import UsageError

IMPORTANCES = {
    "magnitude": "the weights of a channel, in all layers that write or read it",
    "bn": "the scales of a channel in batch norms",
    "taylor": "how much the loss changes without the channel, to first order: needs images and their truth",
    "random": "drawn, for comparison",
}
"""What tells how much a channel matters."""

SEEDS = 2**32
"""How many seeds there are, as in recipes."""


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """How far a network is pruned, and by what.

    macs: fraction of the multiply-accumulates that stays, 0..1; or
    ratio: fraction of the channels of each group that goes, 0..1. Exactly one of the two.
    size: (height, width) of the image that multiply-accumulates are counted for.
    importance: a key of `IMPORTANCES`.
    round_to: layers keep a multiple of so many channels, and at least as many.
    steps: rounds, after each of which importance is measured anew.
    tolerance: how far the multiply-accumulates may lie from `macs`, as a fraction of those of the whole network.
    seed: of the importance "random".
    """

    macs: float | None = None
    ratio: float | None = None
    size: tuple[int, int] = (512, 512)
    importance: str = "magnitude"
    round_to: int = 8
    steps: int = 1
    tolerance: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.macs is None) == (self.ratio is None):
            raise UsageError("give macs, the fraction that stays, or ratio, the fraction of channels that goes")
        for name in ("macs", "ratio", "tolerance"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise UsageError(f"{name}: got {value:g}, expected a fraction between 0 and 1")
        if self.importance not in IMPORTANCES:
            raise UsageError(f"importance: got {self.importance!r}, expected one of: {', '.join(IMPORTANCES)}")
        for name in ("round_to", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: got {getattr(self, name)}, expected 1 or more")
        if not 0 <= self.seed < SEEDS:
            raise UsageError(f"seed: got {self.seed}, expected 0 to {SEEDS - 1}")
