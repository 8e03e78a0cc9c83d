"""What of a ResNet's form is read from MMSegmentation's settings, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.resnet import recognise
from segatlas.encoders.spec import create_encoder
from segatlas.errors import WeightsError


def file(backbone: dict[str, Any] | None, name: str = "resnet50") -> ForeignWeights:
    with shapes_only():
        tensors = {f"backbone.{key}": tensor for key, tensor in create_encoder(name).state_dict().items()}
    return ForeignWeights(tensors=tensors, settings={} if backbone is None else {"model": {"backbone": backbone}})


@pytest.mark.parametrize(
    ("backbone", "output_stride", "options"),
    [
        ({}, 32, {}),
        ({"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "contract_dilation": True}, 8, {}),
        ({"strides": [1, 2, 2, 1], "dilations": [1, 1, 1, 2]}, 16, {"contract_dilation": False}),
        (
            {"strides": (1, 2, 2, 2), "dilations": (1, 1, 2, 4), "contract_dilation": True, "style": "pytorch"},
            32,
            {"dilations": (1, 1, 2, 4)},
        ),
        (
            {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "contract_dilation": True, "multi_grid": (1, 2, 4)},
            16,
            {"multi_grid": (1, 2, 4)},
        ),
    ],
)
def test_strides_dilations_and_grid_are_taken_as_stated(backbone, output_stride, options):
    fields = recognise(file(backbone), output_stride=8)
    assert fields["encoder"] == "resnet50"
    assert fields["output_stride"] == output_stride
    assert fields["encoder_options"] == {"basic_conv2_dilated": False, **options}


def test_without_settings_the_published_stride_is_taken_and_noted():
    weights = file(None)
    assert recognise(weights, output_stride=8)["output_stride"] == 8
    assert "output_stride = 8" in weights.notes[0]


@pytest.mark.parametrize(
    ("backbone", "message"),
    [({"strides": (1, 1, 2, 2)}, r"strides \(1, 1, 2, 2\)"), ({"style": "other"}, "style 'other'")],
)
def test_a_form_that_ours_does_not_have_is_refused(backbone, message):
    with pytest.raises(WeightsError, match=message):
        recognise(file(backbone), output_stride=8)


def test_stated_dilations_are_those_of_the_encoder():
    encoder = create_encoder("resnet18", dilations=(1, 1, 2, 4))
    convs = [[b.conv1.dilation[0] for b in layer] for layer in (encoder.layer2, encoder.layer3, encoder.layer4)]
    assert convs == [[1, 1], [1, 2], [2, 4]]
    assert encoder.strides == (2, 4, 8, 16, 32)
