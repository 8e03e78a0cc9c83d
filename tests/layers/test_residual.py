"""segatlas.layers.residual and region_norm: blocks with norms to choose, and the norms themselves."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.region_norm import InstanceNorm2d, MaskNorm
from segatlas.layers.residual import NormResidual, ScaledResidual


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mask_norm_normalises_each_region_by_its_own_mean_and_the_variance_of_the_filled_map():
    x, mask = draw(1, 2, 4, 5) * 3 + 7, torch.zeros(1, 1, 4, 5, dtype=torch.float64)
    mask[..., 1:3, :4] = 1
    found = MaskNorm()(x, mask)
    for inside in (mask[0, 0] == 1, mask[0, 0] == 0):
        for c in range(2):
            values = x[0, c][inside]
            variance = ((values - values.mean()) ** 2).sum() / 20
            slow = (values - values.mean()) / (variance + 1e-5).sqrt() * (len(values) / 20) ** 0.5
            torch.testing.assert_close(found[0, c][inside], slow)


def test_a_mask_of_one_region_alone_leaves_the_plain_norm():
    x = draw(2, 3, 4, 4)
    for value in (0.0, 1.0):
        mask = torch.full((2, 1, 2, 2), value, dtype=torch.float64)
        torch.testing.assert_close(MaskNorm()(x, mask), InstanceNorm2d()(x))


def test_instance_norm_takes_a_single_pixel_while_training():
    assert InstanceNorm2d().train()(draw(2, 3, 1, 1)).abs().max() < 1e-9


@pytest.mark.parametrize("norm", ["batch", "instance", "mask"])
def test_the_residual_block_adds_two_normed_convolutions(norm):
    torch.manual_seed(0)
    net, x = NormResidual(3, norm).double(), draw(2, 3, 6, 5)
    mask = (draw(2, 1, 6, 5, seed=1) > 0).double() if norm == "mask" else None
    given = () if mask is None else (mask,)
    y = net.conv_1(net.norm_1(x, *given).clamp(min=0))
    torch.testing.assert_close(net(x, mask), x + net.conv_2(net.norm_2(y, *given).clamp(min=0)))


def test_a_mask_where_none_belongs_and_none_where_one_does_are_refused():
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(UsageError, match="got a mask; mask-norm takes one"):
        NormResidual(3)(x, x[:, :1])
    with pytest.raises(UsageError, match="got no mask"):
        NormResidual(3, "mask")(x)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_doubling_behind_its_1x1_convolution_gives_the_numbers_of_doubling_before_it(norm):
    torch.manual_seed(0)
    net, x = ScaledResidual(3, 4, "up", norm).double().eval(), draw(1, 3, 4, 5)
    scaled = net.scale_norm(net.scale(F.interpolate(x, scale_factor=2, mode="bilinear")))
    torch.testing.assert_close(net(x), F.relu(scaled + net.block(scaled)))
    assert ScaledResidual(3, 4, "down", norm).double().eval()(x).shape == (1, 4, 2, 3)
    assert ScaledResidual(3, 4, "same", norm).double().eval()(x).shape == (1, 4, 4, 5)
