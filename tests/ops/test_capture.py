from __future__ import annotations

import torch

from segatlas.ops.capture import is_captured, larger, may_differ, smaller


def test_sizes_are_compared_unless_a_graph_is_captured_where_any_may_differ(monkeypatch):
    size = torch.empty(2, 3, 5, 7).shape[-2:]
    assert not is_captured()
    assert not may_differ(size, (5, 7))
    assert may_differ(size, (5, 8))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert is_captured()
    assert may_differ(size, (5, 7))
    assert (larger(3, 5), smaller(3, 5)) == (5, 3)
