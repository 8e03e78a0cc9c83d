"""The steps of decoders that climb an encoder's maps, each step to twice the size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from segatlas.errors import UsageError


def doubling_steps(strides: Sequence[int], channels: Sequence[int], steps: int, *, network: str) -> list[int]:
    """Return the channels of the encoder's map that each step meets, deepest first; 0 where it has none of that size.

    The steps go from the encoder's last map up to its finest, then on without a map until stride 1. So behind an
    encoder that starts at stride 4 (a Mix Transformer), strides 2 and 1 have no map.

    Args:
        strides: of the encoder's maps, finest first, each half of the next.
        channels: of the same.
        steps: how many are wanted.
        network: its name, for errors.

    Raises:
        UsageError: maps of other strides, or more steps than there are doublings.
    """
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise UsageError(f"{network} needs an encoder whose maps double in stride from each to the next, got {strides}")
    skips = list(channels[-2::-1])
    doublings = strides[-1].bit_length() - 1
    skips += [0] * (doublings - len(skips))
    if not 1 <= steps <= doublings:
        raise UsageError(
            f"decoder_channels has {steps} entries; an encoder of strides {strides} takes 1 to {doublings}"
        )
    return skips[:steps]
