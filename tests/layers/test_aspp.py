from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.layers.aspp import ASPP
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.pooled_fuse import PooledFuse


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 7)])
def test_it_fuses_the_branches_and_last_the_average_everywhere(kernel_size, size):
    torch.manual_seed(0)
    branches = [ConvBNReLU(3, 4, 1), ConvBNReLU(3, 4, dilation=2)]
    aspp = ASPP(branches, ConvBNReLU(3, 2, 1), PooledFuse(8, [2], 5, kernel_size)).eval()
    x = torch.randn(2, 3, *size)
    average = aspp.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *size)
    wide = torch.cat([*(branch(x) for branch in branches), average], dim=1)
    with torch.no_grad():
        assert torch.allclose(aspp(x), F.relu(aspp.fuse.bn(aspp.fuse.conv(wide))), atol=1e-5)
