from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from segatlas.build.describing import describe, field_meanings
from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models import ARCHITECTURES
from segatlas.models.reading import load_architecture


def test_size_and_cost_of_the_plain_unet_equal_a_count_layer_by_layer():
    facts = describe("unet")
    with shapes_only():
        net = create_model("unet", num_classes=19).eval()
        macs = []

        def count(layer, inputs, output):
            # every weight meets every pixel of the map on the side that is not strided over
            pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
            macs.append(layer.weight.numel() * pixels.shape[-2] * pixels.shape[-1])

        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(count)
        net(torch.empty(1, 3, 512, 512))
    assert facts.macs == sum(macs)
    assert facts.parameters == sum(p.numel() for p in net.parameters())


def test_a_variant_shows_its_own_values():
    facts = describe("segformer_b2")
    values = {field.name: field.default for field in facts.fields}
    assert (facts.architecture, values["encoder"], values["decoder_channels"]) == ("segformer", "mit_b2", 768)
    assert [field.name for field in facts.fields if field.required] == ["num_classes"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'unet'"):
        describe("unnet")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_docstring_of_every_config_explains_every_field(name):
    config = load_architecture(name).config
    assert list(field_meanings(config)) == [field.name for field in dataclasses.fields(config)]


def test_meanings_may_go_on_in_deeper_lines():
    @dataclasses.dataclass
    class FoundSettings:
        """Settings.

        width: channels,
            of all layers.
        Note: no field.
        depth: layers.

        And an afterthought.
        """

        width: int
        depth: int

    assert field_meanings(FoundSettings) == {"width": "channels, of all layers.", "depth": "layers."}
