"""A class whose logit is 0: for K classes a network with K - 1 outputs, for two classes one.

Paper: none; it is the usual form of multinomial logistic regression (McCullagh and Nelder 1989, "Generalized Linear
Models"), and for two classes the sigmoid of one output, as many binary segmentation networks have it.

Idea: adding one number to all logits of a pixel changes no probability, so one logit can be 0 for ever. Class 0, mostly
the background, has it; the host gives those of the others. With K = 2, softmax of (0, z) is the sigmoid of z, and
cross-entropy binary cross-entropy; losses, windows, results and files need to know nothing of it.

Letters: N batch, C image channels, K classes, H W image, h w the host's logits.

How ours differs: nothing; auxiliary logits of classes get their 0 too, lines ("boundary", "detail") stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from segatlas.errors import UsageError
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.host import HostSpec, aux_names_of
from segatlas.models.hosted import HostedNetwork
from segatlas.models.needs import Needs
from segatlas.structures import Inputs, PatchAttention, PointLogits, SemanticLogits

AuxLogits: TypeAlias = Tensor | PointLogits | PatchAttention

OF_NO_CLASS = ("boundary", "detail")
"""Auxiliary logits that say where lines are."""
ATTENTION = "attention"
"""What AFMA gives besides logits, of each class."""


@dataclass(frozen=True, kw_only=True)
class ReferenceClassConfig:
    """Settings of a network around which class 0 gets the logit 0.

    num_classes: classes, K; the host gives one logit fewer.
    in_channels: channels of the image, C, the host's too.
    host: the network that gives the logits of classes 1 to K - 1: its name and its own fields.
    """

    num_classes: int
    in_channels: int = 3
    host: HostSpec | None = None


class ReferenceClass(HostedNetwork):
    """A host's logits, with 0 in front of them."""

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map what the host takes to its output with logits (N, K, h, w), of which the first is 0."""
        out: SemanticLogits = self.host(inputs)
        aux = {name: value if name in OF_NO_CLASS else _whole(value) for name, value in out.aux.items()}
        return out._replace(logits=_with_zero(out.logits), aux=aux)


def _whole(logits: AuxLogits) -> AuxLogits:
    """Return auxiliary logits of K classes from those of the last K - 1; no host gives attention, see `build`."""
    assert not isinstance(logits, PatchAttention)
    return logits._replace(logits=_with_zero(logits.logits)) if isinstance(logits, PointLogits) else _with_zero(logits)


def _with_zero(logits: Tensor) -> Tensor:
    """Return (N, K, ...) logits from those of the last K - 1 classes."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


def build(config: ReferenceClassConfig, host: nn.Module) -> ReferenceClass:
    """Make the network around a finished host. Raises UsageError for one with attention between patches."""
    require_at_least(config, num_classes=2)
    if ATTENTION in aux_names_of(host):
        raise UsageError(
            f"host: {config.host or 'it'} relates patches of every class, of which none can be left out: train it with "
            "a logit for each class, without reference_class"
        )
    return ReferenceClass(host)


ARCHITECTURE = Architecture(
    name="reference_class",
    title="Reference class",
    paper="https://en.wikipedia.org/wiki/Multinomial_logistic_regression",
    tasks=("semantic",),
    output=SemanticLogits,
    config=ReferenceClassConfig,
    build=build,
    tiny={"host": {"name": "unet", "width": 4}},
    needs=Needs(host=("SemanticLogits",), classes_less=1),
)
