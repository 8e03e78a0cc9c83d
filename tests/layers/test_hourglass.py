"""segatlas.layers.hourglass."""

from __future__ import annotations

import torch
from fakes.kfvton import off_golden, wave, with_their_weights

from segatlas.layers.hourglass import Hourglass


def test_it_gives_the_authors_numbers():
    net = with_their_weights(Hourglass(6, 8, 3, 32), {"down": "encoder.down_blocks", "up": "decoder.up_blocks"})
    with torch.no_grad():
        found = net(wave(1, 6, 32, 24))
    assert found.shape == (1, 14, 32, 24)
    assert off_golden("hourglass", found) <= 1e-6


def test_all_steps_up_are_given_coarsest_first_with_the_channels_told_and_the_input_last():
    net, x = Hourglass(3, 4, 2, widest=8).eval(), torch.randn(1, 3, 9, 14)
    with torch.no_grad():
        maps = net.stages(x)
    assert [tuple(y.shape) for y in maps] == [(1, 8 + 8, 4, 7), (1, 4 + 3, 9, 14)]
    assert net.channels == (16, 7)
    assert torch.equal(maps[-1][:, 4:], x)
