"""segatlas.layers.pooled_fuse, and the convolution before the upsampling that it uses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.layers.before_upsampling import convolve_before_upsampling
from segatlas.layers.pooled_fuse import PooledFuse

SIZES = [(1, 1), (1, 3), (2, 2), (3, 5), (6, 6)]  # of the small maps


def upsampled(maps: list[Tensor], size: tuple[int, int], *, align_corners: bool) -> Tensor:
    return torch.cat([F.interpolate(x, size, mode="bilinear", align_corners=align_corners) for x in maps], dim=1)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [(9, 13), (2, 7), (1, 1), (4, 3)])
def test_it_equals_the_convolution_of_the_upsampled_concatenated_maps(align_corners, kernel_size, size):
    torch.manual_seed(0)
    maps = [torch.randn(2, 2 + i, *s, dtype=torch.double) for i, s in enumerate(SIZES)]
    kernel = torch.randn(4, sum(x.shape[1] for x in maps), kernel_size, kernel_size, dtype=torch.double)
    slow = F.conv2d(upsampled(maps, size, align_corners=align_corners), kernel, padding=kernel_size // 2)
    kernels = kernel.split([x.shape[1] for x in maps], dim=1)
    fast = convolve_before_upsampling(maps, kernels, size, align_corners=align_corners)
    assert torch.allclose(fast, slow, atol=1e-5)  # the weights of the upsampling are float32


def block_and_maps(align_corners: bool) -> tuple[PooledFuse, list[Tensor]]:
    torch.manual_seed(0)
    block = PooledFuse(3, [2, 4], 5, align_corners=align_corners)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(block.bn.running_mean)
    torch.nn.init.uniform_(block.bn.running_var, 0.5, 2)
    return block, [torch.randn(2, c, *s, requires_grad=True) for c, s in ((3, (8, 11)), (2, (1, 1)), (4, (3, 2)))]


def literal(block: PooledFuse, maps: list[Tensor]) -> Tensor:
    return block.relu(block.bn(block.conv(upsampled(maps, (8, 11), align_corners=block.align_corners))))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_block_equals_upsample_concatenate_convolve_with_its_gradients(align_corners, training):
    block, maps = block_and_maps(align_corners)
    block.train(training)
    wrt = [*maps, *block.parameters()]
    got, expected = block(maps[0], maps[1:]), literal(block, maps)
    assert torch.allclose(got, expected, atol=1e-4)
    upstream = torch.randn_like(expected)
    gradients = (torch.autograd.grad(out, wrt, upstream) for out in (got, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_its_form_for_inference_gives_the_same():
    block, (x, *pooled) = block_and_maps(align_corners=False)
    with torch.no_grad():
        assert torch.allclose(block.inference_form()(x, pooled), block.eval()(x, pooled), atol=1e-4)
