from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.mobilenet_v2 import recognise, renames
from segatlas.conversion.importers.renames import to_ours, to_theirs
from segatlas.encoders.spec import create_encoder
from segatlas.errors import WeightsError


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    with shapes_only():
        state = create_encoder("mobilenet_v2_320").state_dict()
    table = renames("mobilenet_v2_320")
    return {str(to_theirs(f"encoder.{name}", table)): tensor for name, tensor in state.items()}


def file(tensors: dict[str, Tensor], backbone: dict[str, Any] | None) -> ForeignWeights:
    return ForeignWeights(tensors=tensors, settings={} if backbone is None else {"model": {"backbone": backbone}})


def test_names_are_those_of_a_published_checkpoint(tensors):
    """Names and shapes read from mmseg 1.2.2's MobileNetV2."""
    published = {
        "backbone.conv1.conv.weight": (32, 3, 3, 3),
        "backbone.layer1.0.conv.0.conv.weight": (32, 1, 3, 3),
        "backbone.layer1.0.conv.1.bn.weight": (16,),
        "backbone.layer4.3.conv.1.conv.weight": (384, 1, 3, 3),
        "backbone.layer7.0.conv.2.bn.running_var": (320,),
    }
    assert {name: tuple(tensors[name].shape) for name in published} == published
    assert len(tensors) == 306


def test_every_name_goes_to_ours_and_back(tensors):
    table = renames("mobilenet_v2_320")
    assert all(to_theirs(str(to_ours(name, table)), table) == name for name in tensors)


@pytest.mark.parametrize(
    ("backbone", "output_stride"),
    [
        ({}, 32),
        ({"strides": (1, 2, 2, 2, 1, 1, 1), "dilations": (1, 1, 1, 1, 1, 2, 2)}, 16),
        ({"strides": [1, 2, 2, 1, 1, 1, 1], "dilations": [1, 1, 1, 2, 2, 4, 4]}, 8),
        (None, 8),
    ],
)
def test_the_output_stride_follows_from_strides_and_dilations(tensors, backbone, output_stride):
    fields = recognise(file(tensors, backbone), output_stride=8)
    assert fields == {"encoder": "mobilenet_v2_320", "output_stride": output_stride, "encoder_options": {}}


def test_other_strides_and_dilations_are_refused(tensors):
    with pytest.raises(WeightsError, match=r"strides \(1, 2, 2, 1, 1, 1, 1\) and dilations \(1, 1, 1, 1, 1, 1, 1\)"):
        recognise(file(tensors, {"strides": (1, 2, 2, 1, 1, 1, 1)}), output_stride=8)


def test_another_width_is_refused(tensors):
    narrow = {**tensors, "backbone.layer7.0.conv.2.conv.weight": torch.empty(160, 480, 1, 1, device="meta")}
    with pytest.raises(WeightsError, match="width"):
        recognise(file(narrow, None), output_stride=8)
