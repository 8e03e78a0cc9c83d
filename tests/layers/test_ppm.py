from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.layers.ppm import PPM


@pytest.mark.parametrize("align_corners", [False, True])
def test_it_is_pool_project_upsample_concatenate_convolve(align_corners):
    torch.manual_seed(0)
    ppm = PPM(3, 4, scales=(1, 2, 5), align_corners=align_corners).eval()
    x = torch.randn(2, 3, 11, 7)
    maps = [x]
    for scale, pool in zip((1, 2, 5), ppm.pools, strict=True):
        pooled = pool(F.adaptive_avg_pool2d(x, scale))
        maps.append(F.interpolate(pooled, x.shape[-2:], mode="bilinear", align_corners=align_corners))
    expected = F.relu(ppm.fuse.bn(ppm.fuse.conv(torch.cat(maps, dim=1))))
    with torch.no_grad():
        assert torch.allclose(ppm(x), expected, atol=1e-5)
