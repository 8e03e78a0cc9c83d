from __future__ import annotations

import torch

from segatlas.layers.padding import pad_to_multiple


def test_zeros_are_added_right_and_bottom_up_to_the_multiple():
    x = torch.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    out = pad_to_multiple(x, 4)
    assert out.tolist() == [[[[1, 2, 3, 0], [4, 5, 6, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]]


def test_an_image_that_fits_is_returned_itself():
    x = torch.ones(1, 1, 8, 4)
    assert pad_to_multiple(x, 4) is x
