from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.layers.separable import SeparableConvBNReLU


@pytest.mark.parametrize("depthwise_norm", [False, True])
def test_it_is_a_depthwise_and_a_pointwise_convolution_with_norms_as_asked(depthwise_norm):
    torch.manual_seed(0)
    block = SeparableConvBNReLU(3, 5, dilation=2, depthwise_norm=depthwise_norm).eval()
    x = torch.randn(2, 3, 7, 9)
    channels = [F.conv2d(x[:, i : i + 1], block.depthwise.weight[i : i + 1], padding=2, dilation=2) for i in range(3)]
    y = torch.cat(channels, dim=1)
    y = F.relu(block.depthwise_bn(y)) if depthwise_norm else y
    expected = F.relu(block.bn(torch.einsum("nchw,dc->ndhw", y, block.pointwise.weight[:, :, 0, 0])))
    assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dilation", "size"), [(1, (5, 6)), (2, (9, 7)), (4, (4, 11)), (6, (5, 3)), (3, (1, 1))])
@pytest.mark.parametrize("channels", [3, 130])
def test_the_form_for_inference_gives_the_same_numbers(memory_format, dilation, size, channels):
    torch.manual_seed(0)
    block = SeparableConvBNReLU(channels, 4, dilation=dilation).eval()
    block.depthwise.bias = torch.nn.Parameter(torch.randn(channels))  # as a folded norm leaves it
    x = torch.randn(2, channels, *size).contiguous(memory_format=memory_format)
    with torch.no_grad():
        assert torch.allclose(block.inference_form()(x), block(x), atol=1e-5)


def test_the_form_for_inference_leaves_the_block_as_it_was():
    block = SeparableConvBNReLU(3, 4, dilation=2)
    form = block.inference_form()
    assert type(block.depthwise) is torch.nn.Conv2d
    assert form.pointwise.weight is block.pointwise.weight
