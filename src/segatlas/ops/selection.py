"""The k-th smallest of many numbers with a few kilobytes of memory."""

from __future__ import annotations

import torch
from torch import Tensor

from segatlas.ops.labels import pieces

DIGIT_BITS = 16


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """Return the k-th smallest (k = 1: the smallest) of values, a scalar of the same type; exact.

    The bits of floats >= 0, read as whole numbers, sort as the floats do. So the answer is found digit by digit from
    the top, each time counting the digits of those values that begin like the answer: two passes for float32, no copy.

    Args:
        values: any shape, float32 or float64, all >= 0; minus zero is none of these.
        k: 1 up to the number of values.
    """
    whole = torch.int32 if values.dtype == torch.float32 else torch.int64
    bits = 8 * values.element_size()
    prefix = 0
    for shift in range(bits - DIGIT_BITS, -1, -DIGIT_BITS):
        counts = torch.zeros(1 << DIGIT_BITS, dtype=torch.int64, device=values.device)
        for piece in pieces(values):
            number = piece.view(whole)
            if shift + DIGIT_BITS < bits:
                number = number[(number >> (shift + DIGIT_BITS)) == prefix]
            counts += torch.bincount((number >> shift) & ((1 << DIGIT_BITS) - 1), minlength=len(counts))
        reached = counts.cumsum(0)
        digit = int(torch.searchsorted(reached, k))
        k -= int(reached[digit - 1]) if digit else 0
        prefix = prefix << DIGIT_BITS | digit
    return torch.tensor(prefix, dtype=whole, device=values.device).view(values.dtype)
