"""Encoders described by records: what is read, what is refused, and that every file has its record."""

from __future__ import annotations

import dataclasses

import pytest

from segatlas.build.describing import field_meanings
from segatlas.build.network import shapes_only
from segatlas.encoders import ENCODERS
from segatlas.encoders.mit import MixTransformerOptions
from segatlas.encoders.resnet import ResNetOptions
from segatlas.encoders.spec import EncoderSpec, TokenEncoderSpec, create_encoder
from segatlas.errors import UsageError

FIRSTS = {family: name for name, family in ENCODERS.items()}


def faults(fields, kind=EncoderSpec):
    spec, problems = kind.read(fields, strict=True)
    assert (spec is None) == bool(problems)
    return [(problem.key, problem.message) for problem in problems]


def test_a_spec_is_complete_and_gives_the_keys_that_it_is_read_from():
    spec = EncoderSpec(name="resnet50", output_stride=8, options=ResNetOptions(multi_grid=(1, 2, 4)))
    assert EncoderSpec.read(spec.fields()) == (spec, [])
    assert EncoderSpec.of("resnet50", output_stride=8, multi_grid=[1, 2, 4]) == spec
    assert EncoderSpec(name="mit_b0") == EncoderSpec(name="mit_b0", options=MixTransformerOptions())
    assert str(spec) == "resnet50"


def test_all_faults_of_a_group_are_found_each_with_its_key():
    assert faults({"name": "resnet50", "multi_gird": [1], "output_stride": 7, "contract_dilation": "no"}) == [
        ("output_stride", "resnet50 can have 8, 16, 32, or null for its own"),
        ("contract_dilation", "expected true or false"),
        ("multi_gird", "unknown option of resnet50 - did you mean 'multi_grid'?"),
    ]
    assert faults({"name": "resnet5"}) == [("name", "unknown encoder - did you mean 'resnet50'?")]
    assert faults({"output_stride": 8}) == [("name", "expected an encoder's name")]
    assert faults("resnet50") == [("", "expected an encoder's name or a group of its keys")]


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("densenet121", 8, "densenet121 has its own only, expected null"),
        ("hrnet_w18", 32, "hrnet_w18 has its own only, expected null"),
        ("mobilenet_v3_large", 8, "mobilenet_v3_large can have 16, 32, or null for its own"),
        ("resnet18", True, "expected a whole number, or null for the encoder's own"),
        ("timm/resnet10t", "8", "expected a whole number, or null for the encoder's own"),
    ],
)
def test_an_output_stride_that_the_family_lacks_is_refused(name, stride, message):
    assert faults({"name": name, "output_stride": stride}) == [("output_stride", message)]
    assert faults({"name": name, "output_stride": None}) == []
    with pytest.raises(UsageError, match="output_stride"):
        EncoderSpec(name=name, output_stride=stride)


def test_null_is_an_options_default_and_an_unknown_one_stays_unknown():
    spec, _ = EncoderSpec.read({"name": "mit_b0", "drop_path": None})
    assert spec == EncoderSpec(name="mit_b0")
    assert faults({"name": "resnet18", "drop_path": None})[0][0] == "drop_path"


def test_options_of_another_family_do_not_make_a_spec():
    with pytest.raises(UsageError, match="options are a MixTransformerOptions, expected a ResNetOptions"):
        EncoderSpec(name="resnet18", options=MixTransformerOptions())


def test_encoders_of_tokens_are_plain_transformers_only():
    spec = TokenEncoderSpec.of("timm/test_vit", depth=2)
    assert spec.fields() == {"name": "timm/test_vit", "output_stride": None, "depth": 2, "drop_path": None}
    for name in ("resnet18", "timm/resnet10t"):
        assert "gives feature maps, no tokens" in faults({"name": name}, TokenEncoderSpec)[0][1]
    assert faults({"name": "test_vit", "output_stride": 8}, TokenEncoderSpec)[0][0] == "output_stride"


@pytest.mark.parametrize("name", [*FIRSTS.values(), "timm/resnet10t"])
def test_every_option_has_a_default_and_a_meaning(name):
    family = EncoderSpec(name=name).family
    assert set(field_meanings(family.options)) == {field.name for field in dataclasses.fields(family.options)}
    assert family.options() == family.options()


@pytest.mark.parametrize("name", FIRSTS.values())
def test_a_family_makes_the_strides_that_it_names(name):
    for stride in EncoderSpec(name=name).family.output_strides or ():
        with shapes_only():
            assert create_encoder(name, output_stride=stride).strides[-1] == stride
