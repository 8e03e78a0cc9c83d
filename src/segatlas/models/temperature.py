"""Temperature scaling: the probabilities of a trained network made to say how often it is right.

Paper: Guo et al. 2017, "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599.

Idea: trained networks are surer than they are right. All logits are divided by one number, the temperature T, which is
learned with cross-entropy while the network itself stays as it is. The labels stay the same: only the confidence moves.

Letters: N batch, C image channels, K classes, H W image, h w the host's logits, T temperature.

How ours differs: T = exp(log_temperature), so that it is above 0 whatever training does. It is 1 at the start, and the
logits are then the host's, bit by bit. The authors learn T on the validation set: on images that the host has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segatlas.models.architecture import Architecture
from segatlas.models.host import HostSpec
from segatlas.models.hosted import HostedNetwork
from segatlas.models.needs import Needs
from segatlas.structures import Inputs, SemanticLogits


@dataclass(frozen=True, kw_only=True)
class TemperatureConfig:
    """Settings of temperature scaling.

    num_classes: classes, K, the host's too.
    in_channels: channels of the image, C, the host's too.
    host: the network whose logits are scaled: its name and its own fields.
    """

    num_classes: int
    in_channels: int = 3
    host: HostSpec | None = None


class Temperature(HostedNetwork):
    """A host's logits divided by T."""

    def __init__(self, host: nn.Module):
        super().__init__(host)
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map what the host takes, an image (N, C, H, W) mostly, to its output with logits (N, K, h, w) over T."""
        out: SemanticLogits = self.host(inputs)
        return out._replace(logits=out.logits / self.log_temperature.exp())


def build(config: TemperatureConfig, host: nn.Module) -> Temperature:
    """Make the network around a finished host."""
    return Temperature(host)


ARCHITECTURE = Architecture(
    name="temperature",
    title="Temperature scaling",
    paper="https://arxiv.org/abs/1706.04599",
    tasks=("semantic",),
    output=SemanticLogits,
    config=TemperatureConfig,
    build=build,
    tiny={"host": {"name": "unet", "width": 4}},
    needs=Needs(host=("SemanticLogits",)),
)
