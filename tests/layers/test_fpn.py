"""segatlas.layers.fpn."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.layers.fpn import FPN, FPNHead

SIZES = ((17, 23), (9, 12), (5, 6), (3, 3))


def maps(*channels: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, SIZES, strict=True)]


def test_each_level_of_the_pyramid_is_its_projection_plus_the_coarser_result_by_nearest_neighbour():
    features, neck = maps(3, 4, 5, 6), FPN((3, 4, 5, 6), 7)
    expected, coarser = [], None
    for i in reversed(range(4)):
        level = neck.lateral[i](features[i])
        if coarser is not None:
            rows, columns = SIZES[i]
            y = torch.arange(rows) * SIZES[i + 1][0] // rows
            x = torch.arange(columns) * SIZES[i + 1][1] // columns
            level = level + coarser[:, :, y][:, :, :, x]
        coarser = level
        expected.insert(0, neck.output[i](level))
    for got, slow in zip(neck(features), expected, strict=True):
        torch.testing.assert_close(got, slow)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_head_upsamples_each_level_by_two_after_each_convolution_and_sums(align_corners):
    head = FPNHead(4, 6, strides=(4, 8, 16, 32), align_corners=align_corners).eval()
    pyramid = maps(4, 4, 4, 4)
    assert [len(level) for level in head.levels] == [1, 1, 2, 3]

    def up(x, size):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    expected = head.levels[0][0](pyramid[0])
    for level, x in zip(list(head.levels)[1:], pyramid[1:], strict=True):
        for conv in level:
            x = conv(x)
            x = up(x, (2 * x.shape[2], 2 * x.shape[3]))
        expected = expected + up(x, SIZES[0])
    torch.testing.assert_close(head(pyramid), expected)


def test_levels_of_one_stride_have_one_convolution_and_no_upsampling():
    head = FPNHead(4, 6, strides=(8, 8, 16), align_corners=False).eval()
    assert [len(level) for level in head.levels] == [1, 1, 1]
    x = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    same, half = head.levels[1][0](x), F.interpolate(head.levels[2][0](x), scale_factor=2, mode="bilinear")
    expected = head.levels[0][0](x) + same + F.interpolate(half, size=(5, 6), mode="bilinear")
    torch.testing.assert_close(head([x, x, x]), expected)
