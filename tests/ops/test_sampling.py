from __future__ import annotations

import pytest
import torch

from segatlas.ops.sampling import LONGEST_RUN, make_axis, make_runs

CASES = [(8, 32), (7, 23), (9, 9), (16, 8), (17, 5), (1, 150), (2, 200), (40, 41), (3, 1)]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("samples", "size"), CASES)
def test_an_axis_interpolates_like_torch(samples, size, align_corners):
    line = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    axis = make_axis(samples, size, align_corners=align_corners)
    second = (axis.low + 1).clamp(max=samples - 1)
    ours = line[axis.low] * (1 - axis.weight) + line[second] * axis.weight
    theirs = torch.nn.functional.interpolate(
        line.view(1, 1, 1, -1), (1, size), mode="bilinear", align_corners=align_corners
    )
    torch.testing.assert_close(ours, theirs.view(-1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("samples", "size"), CASES)
def test_runs_hold_every_pixel_once_with_its_own_samples(samples, size, align_corners):
    axis = make_axis(samples, size, align_corners=align_corners)
    runs = make_runs(axis)
    assert sorted(runs.pixel[~runs.filler].tolist()) == list(range(size))
    assert runs.slots <= LONGEST_RUN
    line = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    expected = line[axis.low] * (1 - axis.weight) + line[(axis.low + 1).clamp(max=samples - 1)] * axis.weight
    direct = line[runs.first] * (1 - runs.weight) + line[runs.second] * runs.weight
    torch.testing.assert_close(direct, expected[runs.pixel])
    padded = torch.cat([line[:1], line, line[-1:]])
    through_padding = padded[runs.padded] * (1 - runs.weight) + padded[runs.padded + 1] * runs.weight
    torch.testing.assert_close(through_padding, expected[runs.pixel])


@pytest.mark.parametrize(("samples", "size"), [(8, 32), (7, 23), (33, 257), (6, 6)])
def test_runs_of_an_enlargement_are_plain_slices(samples, size):
    assert make_runs(make_axis(samples, size)).consecutive


def test_no_padding_is_mixed_into_the_last_pixel_of_a_crop():
    # canvas 16 covered by 4 samples; the image is the first 10 pixels, stretched to 40
    axis = make_axis(4, 40, canvas=16, crop=10)
    last = axis.low[-1] + axis.weight[-1]
    assert last == pytest.approx((9 + 0.5) * 4 / 16 - 0.5)
