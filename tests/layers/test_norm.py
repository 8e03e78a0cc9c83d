"""segatlas.layers.norm."""

from __future__ import annotations

import torch
from torch import nn

from segatlas.layers.norm import BatchNorm2d


def test_one_value_a_channel_is_normalised_with_the_running_statistics():
    norm = BatchNorm2d(3).train()
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    x = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    assert torch.allclose(norm(x).flatten(), torch.tensor([-0.5, 0.0, 2.0]), atol=1e-5)
    assert norm.num_batches_tracked == 0


def test_more_values_are_normalised_as_torch_does():
    torch.manual_seed(0)
    ours, theirs, x = BatchNorm2d(3).train(), nn.BatchNorm2d(3).train(), torch.randn(1, 3, 2, 1)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
