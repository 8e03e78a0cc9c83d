"""How large the small operations of a banded walk should be on this processor."""

from __future__ import annotations

import torch

GRAIN = 32_768
"""Elements from which torch splits an element-wise operation over its threads."""


def step_elements(alone: int) -> int:
    """Return how many elements each operation of a walk should have on the CPU.

    With one thread: `alone`, chosen so that the working set stays in a cache. With a few threads: just below the size
    that torch splits. The hand-over would gain little, and when another process holds one of the cores (a loader
    worker is enough) every one of the thousands of operations would wait for it: measured up to 20 times slower. With
    many threads: a piece for each of them.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return alone
    return GRAIN - 1 if threads <= 4 else 2 * GRAIN * threads
