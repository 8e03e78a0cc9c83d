from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.encoders.spec import create_encoder
from segatlas.errors import UsageError


def dilations(encoder: nn.Module) -> list[int]:
    """Dilation of the depthwise convolution of each of the 17 blocks."""
    depthwise = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    return [conv.dilation[0] for conv in depthwise]


@pytest.mark.parametrize(
    ("output_stride", "strides"), [(32, (2, 4, 8, 16, 32)), (16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))]
)
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2_320"])
def test_output_stride_dilates_instead_of_striding(name, output_stride, strides):
    encoder = create_encoder(name, output_stride=output_stride).eval()
    assert encoder.strides == strides
    maps = encoder(torch.randn(1, 3, 64, 64))
    assert tuple(64 // x.shape[-1] for x in maps) == strides
    assert tuple(x.shape[1] for x in maps) == encoder.channels == (16, 24, 32, 96, 320 if name[-1] == "0" else 1280)


def test_the_first_block_of_each_group_dilates_or_every_block():
    #              group 1  2    3          4             5          6          7
    first_only = [1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 4, 1, 1, 4]
    every = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4]
    assert dilations(create_encoder("mobilenet_v2_320", output_stride=8)) == first_only
    assert dilations(create_encoder("mobilenet_v2", output_stride=8, dilate_every_block=True)) == every
    assert dilations(create_encoder("mobilenet_v2", output_stride=16, dilate_every_block=True)) == [1] * 13 + [2] * 4


def test_another_output_stride_is_refused():
    with pytest.raises(UsageError, match="output_stride = 4"):
        create_encoder("mobilenet_v2", output_stride=4)
