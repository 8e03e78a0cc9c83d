from __future__ import annotations

import torch

from segatlas.layers.padding import cut, pad_to_multiple


def test_zeros_are_added_right_and_bottom_up_to_the_multiple():
    x = torch.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    out = pad_to_multiple(x, 4)
    assert out.tolist() == [[[[1, 2, 3, 0], [4, 5, 6, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]]


def test_an_image_that_fits_is_returned_itself():
    x = torch.ones(1, 1, 8, 4)
    assert pad_to_multiple(x, 4) is x


def test_a_window_is_cut_out_as_a_view_and_while_a_graph_is_captured_as_a_copy(monkeypatch):
    x = torch.arange(24.0).reshape(1, 1, 4, 6)
    view = cut(x, 1, 2, (2, 3))
    assert view.tolist() == [[[[8, 9, 10], [14, 15, 16]]]]
    assert view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    copy = cut(x, 1, 2, (2, 3))
    assert torch.equal(copy, view)
    assert copy.is_contiguous()
