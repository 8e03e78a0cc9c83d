from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from segatlas.ops import upsample_logits
from segatlas.ops.upsampling import upsample_rows


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_without_a_resize_it_is_torch_interpolate_and_a_cut():
    logits = noise(2, 3, 5, 6)
    expected = interpolate(logits, (20, 24), mode="bilinear")[..., :17, :22]
    assert torch.equal(upsample_logits(logits, (17, 22), canvas=(20, 24)), expected)


def test_a_resize_of_the_whole_canvas_is_one_interpolation():
    logits = noise(2, 3, 5, 6).double()
    expected = interpolate(logits, (37, 50), mode="bilinear")
    upsampled = upsample_logits(logits, (37, 50), canvas=(20, 24), crop=(20, 24))
    torch.testing.assert_close(upsampled, expected, atol=1e-12, rtol=0)


def test_composed_upsampling_passes_gradients():
    logits = noise(1, 2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: upsample_logits(x, (9, 7), canvas=(12, 16), crop=(11, 13)), logits)


def test_half_precision_stays_half_precision():
    assert upsample_logits(noise(1, 2, 3, 4).bfloat16(), (9, 7), canvas=(12, 16), crop=(11, 13)).dtype == torch.bfloat16


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("rows", [(0, 19), (0, 1), (7, 12), (18, 19)])
def test_rows_are_those_of_the_whole(rows, align_corners):
    logits = noise(2, 3, 5, 6)
    whole = upsample_logits(logits, (19, 22), canvas=(20, 24), align_corners=align_corners)
    part = upsample_rows(logits, (19, 22), *rows, canvas=(20, 24), align_corners=align_corners)
    torch.testing.assert_close(part, whole[:, :, rows[0] : rows[1]], atol=1e-6, rtol=1e-6)
