from __future__ import annotations

import torch

from segatlas.layers.drop_path import DropPath


def test_whole_samples_are_dropped_at_the_given_rate_and_the_rest_is_scaled_up():
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    assert set(out.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert torch.equal(out.amin((1, 2)), out.amax((1, 2)))
    assert abs(float((out[:, 0, 0] == 0).float().mean()) - 0.25) < 0.03


def test_nothing_is_dropped_in_eval_or_at_rate_zero():
    x = torch.randn(8, 3)
    assert torch.equal(DropPath(0.9).eval()(x), x)
    assert torch.equal(DropPath(0.0).train()(x), x)
