"""ResNets below the networks of Hugging Face: ResNetBackbone, in transformers 4 and 5 alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.resnet import DEPTHS, Bottleneck
from segatlas.errors import WeightsError

_FIXED = {"downsample_in_first_stage": False, "hidden_act": "relu", "embedding_size": 64}
"""What settings may state of it -> the only value that ours has."""
NAMES = tuple(DEPTHS)
"""Our encoders that it has."""


def resnet_fields(file: ForeignWeights, root: str) -> Mapping[str, Any] | None:
    """Return the config fields of a ResNet whose names begin so; None where there is none.

    Raises:
        WeightsError: it has a form that ours has not.
    """
    stem, stages = f"{root}.embedder.embedder.convolution.weight", f"{root}.encoder.stages"
    if not file.has(stem):
        return None
    for key, ours in _FIXED.items():
        stated = file.stated(f"backbone_config.{key}")
        if stated not in (None, ours):
            raise WeightsError(f"backbone_config.{key} = {stated}: only {ours} is supported")
    depths = tuple(file.count(f"{stages}.{stage}.layers.{{i}}") for stage in range(4))
    has_three = file.has(f"{stages}.0.layers.0.layer.2")
    for name in NAMES:
        if DEPTHS[name].depths == depths and (DEPTHS[name].block is Bottleneck) == has_three:
            is_first = bool(file.stated("backbone_config.downsample_in_bottleneck"))
            options = {"stride_first": True} if is_first else {}
            return {"encoder": name, "encoder_options": options, "in_channels": file.shape(stem)[1]}
    raise WeightsError(f"a ResNet of {list(depths)} blocks is none of the published")


def resnet_renames(root: str) -> Renames:
    """Return the table of a ResNet whose names begin so."""
    stem = f"{root}.embedder.embedder"
    found = [(f"{stem}.convolution", "encoder.conv1"), (f"{stem}.normalization", "encoder.bn1")]
    for stage in range(4):
        theirs, ours = f"{root}.encoder.stages.{stage}.layers.{{i}}", f"encoder.layer{stage + 1}.{{i}}"
        for place in range(3):
            found += [
                (f"{theirs}.layer.{place}.convolution", f"{ours}.conv{place + 1}"),
                (f"{theirs}.layer.{place}.normalization", f"{ours}.bn{place + 1}"),
            ]
        found += [
            (f"{theirs}.shortcut.convolution", f"{ours}.downsample.0"),
            (f"{theirs}.shortcut.normalization", f"{ours}.downsample.1"),
        ]
    return found
