"""segatlas.layers.spade: golden numbers, slow forms, options."""

from __future__ import annotations

import pytest
import torch
from fakes.kfvton import off_golden, wave, with_their_weights
from torch.nn import functional as F

from segatlas.layers.spade import SPADE, ContextSPADE, ContextSPADEBlock, SPADEBlock, simam

THEIRS = {
    "norm_1": "norm_0", "norm_2": "norm_1", "norm_shortcut": "norm_s", "conv_1": "conv_0", "conv_2": "conv_1",
    "conv_shortcut": "conv_s", "shared": "mlp_shared.0", "gamma": "mlp_gamma", "beta": "mlp_beta",
}  # fmt: skip


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_residual_block_gives_the_authors_numbers():
    block = with_their_weights(SPADEBlock(16, 8, 5), THEIRS)
    with torch.no_grad():
        found = block(wave(1, 16, 12, 10), wave(1, 5, 24, 20, phase=1))
    assert found.shape == (1, 8, 12, 10)
    assert off_golden("spade_block", found) <= 1e-6


DIMS = {"instance": (2, 3), "batch": (0, 2, 3), "layer": (1, 2, 3)}


@pytest.mark.parametrize("base", DIMS)
def test_spade_is_its_norm_scaled_and_shifted_by_convolutions_of_the_nearest_values(base):
    torch.manual_seed(0)
    net, x, m = SPADE(4, 3, hidden=5, base=base).double(), draw(2, 4, 6, 8), draw(2, 3, 3, 2, seed=1)
    rows, columns = torch.arange(6) * 3 // 6, torch.arange(8) * 2 // 8
    shared = net.shared(m[:, :, rows][:, :, :, columns]).clamp(min=0)
    mean, variance = x.mean(DIMS[base], keepdim=True), x.var(DIMS[base], keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-5).sqrt() * (1 + net.gamma(shared)) + net.beta(shared)
    torch.testing.assert_close(net(x, m), expected)


def test_batch_statistics_are_kept_for_prediction():
    net = SPADE(2, 1, hidden=2, base="batch").double()
    x, m = draw(2, 2, 3, 3) + 3, draw(2, 1, 3, 3)
    net(x, m)
    with torch.no_grad():
        assert not torch.equal(net(x, m), net.eval()(x, m))
    assert net.norm.running_mean.any()


def test_context_spade_modulates_what_the_map_says_of_itself():
    torch.manual_seed(0)
    net, x, m = ContextSPADE(3, 4, 2, hidden=5).double(), draw(2, 3, 6, 8), draw(2, 2, 6, 8, seed=1)
    y = net.conv(x)
    own, other = net.context(y).clamp(min=0), net.shared(m).clamp(min=0)
    gamma = net.gamma(own) * (1 + net.gamma_scale(other)) + net.gamma_shift(other)
    beta = net.beta(own) * (1 + net.beta_scale(other)) + net.beta_shift(other)
    normed = (y - y.mean((2, 3), keepdim=True)) / (y.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(net(x, m), F.leaky_relu(normed * (1 + gamma) + beta, 0.2))


def test_simam_weights_a_pixel_by_its_distance_from_the_mean():
    x = draw(1, 2, 3, 4)
    expected = x.clone()
    for c in range(2):
        mean = float(x[0, c].mean())
        variance = sum((float(v) - mean) ** 2 for v in x[0, c].flatten()) / 11
        for row in range(3):
            for column in range(4):
                energy = (x[0, c, row, column] - mean) ** 2 / (4 * (variance + 1e-4)) + 0.5
                expected[0, c, row, column] *= torch.sigmoid(energy)
    torch.testing.assert_close(simam(x), expected)
    assert simam(x[..., :1, :1]).isfinite().all()


@pytest.mark.parametrize("kind", [SPADEBlock, ContextSPADEBlock])
@pytest.mark.parametrize(("before", "after"), [(6, 4), (4, 6), (4, 4)])
def test_a_block_has_a_learned_shortcut_only_where_channels_change_and_trains_under_spectral_norm(kind, before, after):
    torch.manual_seed(0)
    block = kind(before, after, 2, hidden=3, spectral=True)
    assert (block.conv_shortcut is None) == (before == after)
    out = block(torch.randn(2, before, 5, 7), torch.randn(2, 2, 10, 14))
    assert out.shape == (2, after, 5, 7)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def test_spectral_norm_makes_the_largest_singular_value_one():
    torch.manual_seed(0)
    block = SPADEBlock(6, 4, 2, hidden=3, spectral=True)
    for _ in range(60):
        block(torch.zeros(1, 6, 2, 2), torch.zeros(1, 2, 2, 2))
    block.eval()
    for conv in (block.conv_1, block.conv_2, block.conv_shortcut):
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)
