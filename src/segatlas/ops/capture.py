"""What a network asks before it lets the size of a map choose its way.

While a graph is captured (`torch.export`, `torch.compile`) a question about a size becomes part of the graph: the
program then takes images of that answer only. So there the way is taken that is right for every size.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


def is_captured() -> bool:
    """Tell whether a graph is being captured, with sizes that stand for others."""
    return torch.compiler.is_compiling()


def may_differ(found: Iterable[int], wanted: Iterable[int]) -> bool:
    """Tell whether one size is another; yes while a graph is captured, where no one knows."""
    return is_captured() or tuple(found) != tuple(wanted)


def larger(first: int, second: int) -> int:
    """Return the larger of two sizes without a question while a graph is captured."""
    return torch.sym_max(first, second)  # type: ignore[return-value]


def smaller(first: int, second: int) -> int:
    """Return the smaller of two sizes without a question while a graph is captured."""
    return torch.sym_min(first, second)  # type: ignore[return-value]
