"""What the importers of networks that detect share: which ResNet lies below them."""

from __future__ import annotations

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.encoders.resnet import DEPTHS, Bottleneck


def resnet_name(file: ForeignWeights, layers: str, first: int = 1) -> str | None:
    """Return the name of the plain ResNet whose layers lie below names such as "backbone.layer{layer}", else None.

    Args:
        file: the tensors.
        layers: their names, `{layer}` in place of the number.
        first: the number of the first.
    """
    names = [layers.replace("{layer}", str(first + index)) for index in range(4)]
    blocks = tuple(file.count(f"{name}.{{i}}") for name in names)
    bottlenecks = file.has(f"{names[0]}.0.conv3")
    for name, depth in DEPTHS.items():
        if depth.depths == blocks and (depth.block is Bottleneck) == bottlenecks:
            return name
    return None
