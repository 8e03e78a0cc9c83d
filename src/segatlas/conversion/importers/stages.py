"""What the importers of networks that detect share: which ResNet lies below them, what a semantic branch adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def with_stuff(
    fields: Mapping[str, Any] | None, file: ForeignWeights, classifier: str, *, other: str
) -> Mapping[str, Any] | None:
    """Return the config fields of a Panoptic FPN: those of its stages and of its semantic branch. None stays None.

    Args:
        fields: of the stages.
        file: the tensors.
        classifier: name of the last layer of the semantic branch, whose logits are stuff and "any thing".
        other: where they have this one, see `PanopticFPNConfig`.
    """
    if fields is None:
        return None
    logits, width = file.shape(f"{classifier}.weight")[:2]
    of_branch = {"stuff": logits - 1, "other": other, "channels": width, "groups": 32}
    return {**fields, "num_classes": fields["num_classes"] + logits - 1, **of_branch}
