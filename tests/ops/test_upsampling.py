from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from segatlas.ops import upsample_logits
from segatlas.ops.upsampling import upsample_aligned, upsample_rows


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


@pytest.mark.parametrize(("factor", "size"), [(2, (3, 4)), (3, (1, 5)), (4, (2, 1)), (1, (2, 2))])
def test_aligned_samples_lie_in_the_middle_of_what_they_cover(factor, size):
    values = noise(2, 3, *size).double()
    upsampled = upsample_aligned(values, factor)
    assert upsampled.shape == (2, 3, size[0] * factor, size[1] * factor)
    for row in range(size[0] * factor):
        for column in range(size[1] * factor):
            y, x = (
                min(max((place - factor // 2) / factor, 0), length - 1)
                for place, length in ((row, size[0]), (column, size[1]))
            )
            top, left = int(y), int(x)
            bottom, right = min(top + 1, size[0] - 1), min(left + 1, size[1] - 1)
            upper = torch.lerp(values[:, :, top, left], values[:, :, top, right], x - left)
            lower = torch.lerp(values[:, :, bottom, left], values[:, :, bottom, right], x - left)
            torch.testing.assert_close(upsampled[:, :, row, column], torch.lerp(upper, lower, y - top))


def test_no_maps_are_upsampled_to_none():
    assert upsample_aligned(torch.zeros(0, 1, 3, 4), 2).shape == (0, 1, 6, 8)
