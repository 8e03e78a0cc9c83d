from __future__ import annotations

import pytest
from torch import nn

from segatlas.build.network import shapes_only
from segatlas.encoders.efficientnet import SIZES, rows
from segatlas.encoders.spec import create_encoder

FEATURE_PARAMETERS = {"efficientnet-b0": 3_595_388, "efficientnet-b3": 10_103_336}
"""The library's encoders without their last convolution and its norm: 4,007,548 and 10,696,232 with them."""


@pytest.mark.parametrize("name", FEATURE_PARAMETERS)
def test_parameter_counts_are_the_published_ones_without_last_convolution_and_classifier(name):
    with shapes_only():
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == FEATURE_PARAMETERS[name]


def test_a_convolution_that_strides_pads_as_for_the_published_image_size():
    def sides(name):
        return [row.side for row in rows(name) if row.stride == 2]

    assert (sides("efficientnet-b0"), sides("efficientnet-b3")) == ([112, 56, 28, 14], [150, 75, 38, 19])
    strided = [block for block in create_encoder("efficientnet-b3").blocks if block.conv_dw.stride == (2, 2)]
    paddings = [getattr(block.pad, "padding", block.conv_dw.padding) for block in strided]
    assert paddings == [(0, 1, 0, 1), (2, 2), (0, 1, 0, 1), (2, 2)]


def test_the_map_of_stride_16_ends_with_the_first_block_of_its_width_in_b0_and_with_the_last_in_others():
    def rest(name):
        table = rows(name)
        end = [row.level for row in table].index(4)
        return [row.group.out_channels for row in table[end:]].count(table[end - 1].group.out_channels)

    assert [rest(name) for name in SIZES] == [2, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("output_stride", "dilations"), [(16, {1, 2}), (8, {1, 2, 4})])
def test_below_stride_32_every_convolution_of_a_map_dilates(output_stride, dilations):
    encoder = create_encoder("efficientnet-b0", output_stride=output_stride).eval()
    assert encoder.strides == tuple(min(stride, output_stride) for stride in (2, 4, 8, 16, 32))
    found = [block.conv_dw.dilation[0] for block in encoder.blocks]
    assert (set(found), found) == (dilations, sorted(found))
    assert {m.stride for block in encoder.blocks[9:] for m in block.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
