"""segatlas.layers.before_upsampling."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.layers.before_upsampling import fuse_before_upsampling


@pytest.mark.parametrize("align_corners", [False, True])
def test_it_equals_the_convolution_of_the_upsampled_concatenated_maps(align_corners):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, c, *size, generator=generator) for c, size in ((3, (9, 13)), (5, (5, 7)), (2, (3, 4)))]
    kernel = torch.randn(4, 10, generator=generator)
    upsampled = [F.interpolate(x, size=(9, 13), mode="bilinear", align_corners=align_corners) for x in maps]
    slow = F.conv2d(torch.cat(upsampled, dim=1), kernel[:, :, None, None])
    fast = fuse_before_upsampling(maps, kernel.split([3, 5, 2], dim=1), align_corners=align_corners)
    assert torch.allclose(fast, slow, atol=1e-5)
