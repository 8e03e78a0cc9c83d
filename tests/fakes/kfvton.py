"""What KF-VTON's own modules give in float64, their weights filled by names and shapes: numbers to compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from fakes.golden import digest, filled
from torch import Tensor, nn

GOLDEN: dict[str, tuple[float, ...]] = {
    "seg": (0.60317880605, 0.809277659125, 7.58759232349, 0.730302456773, 0.0, 0.130016643594, 0.0,
        0.677858489239, 0.915903184224, 0.0, 0.0),
    "first": (-0.0154138171858, 0.44662206264, 1.63241233945, -0.29073919697, -0.00184331545308, 0.577296644454,
        -0.0291614879829, 0.327239730061, -0.103055136446, 0.143614850985, -0.278059762947),
    "second": (-0.00822386672479, 0.470020039246, 1.57735206722, 0.407312614701, -0.162584333133, 0.0837963795367,
        -0.477956276706, 0.562083696365, -0.225883314335, 0.756257683841, -0.468723052526),
    "spade_block": (-0.166628432258, 1.33623452223, 4.4906607485, -2.72830592406, -0.00712365241527, 0.354102634414,
        -0.445247880598, -0.928757668595, 0.812947450719, 0.236859788548, 0.215295872904),
    "tps_grid": (0.00101189298636, 0.669897513567, 1.28647861299, 0.760108002754, -0.315868023434, -0.07919481709,
        0.423384036928, -0.588628181368, 1.2056829224, 0.965572246928, -0.741213707293),
    "hourglass": (0.0935698485904, 0.535046198439, 1.49913811267, -0.962011319574, 0.339544115617, 0.212121557122,
        1.33766805938, 0.535815452741, 0.233357336377, 0.240923724872, 0.880773627155),
}  # fmt: skip
"""Mean, deviation, largest magnitude and eight values of each output."""


def wave(*shape: int, phase: float = 0.0) -> Tensor:
    """Return the float64 input of a shape."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(0.013 * i + phase) + 0.5 * torch.sin(0.37 * i)).reshape(shape)


def with_their_weights(net: nn.Module, names: Mapping[str, str]) -> nn.Module:
    """Return a network in float64 and eval mode, filled by the authors' names of its parts."""

    def theirs(name: str) -> str:
        return ".".join(names.get(part, part) for part in name.split("."))

    state = net.state_dict()
    net.double().load_state_dict(
        {
            name: filled(theirs(name), tuple(tensor.shape)) if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }
    )
    return net.eval()


def off_golden(name: str, found: Tensor) -> float:
    """Return how far a tensor's digest lies from the authors', as a fraction of their largest magnitude."""
    seen, expected = digest(found), GOLDEN[name]
    numbers = (seen["mean"], seen["std"], seen["absmax"], *seen["at"].values())
    return max(abs(a - b) for a, b in zip(numbers, expected, strict=True)) / expected[2]
