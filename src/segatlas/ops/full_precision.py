"""What is computed in full precision whatever the autocast around it: sums of many values, solutions, last logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def in_full_precision(x: Tensor) -> Iterator[None]:
    """Compute without the autocast around, where there is one; torch knows none for `x` on the meta device."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        yield
        return
    with torch.autocast(device, enabled=False):
        yield
