from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from segatlas import config
from segatlas.build.network import build_empty, make_config
from segatlas.config import recipes
from segatlas.config.layers import make_room
from segatlas.config.schema import ModelConfig
from segatlas.config.yaml_tree import Place, from_plain
from segatlas.errors import ConfigError, Problem
from segatlas.models import ARCHITECTURES
from segatlas.recipe import Config, check_model

OF_QUERIES = {"eomt_train": ["eomt"], "mask2former_train": ["mask2former"]}
"""Parts of recipes with losses that few networks have -> one that has."""


def problems_of(source: object, *overrides: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        Config.load(source, *overrides)  # type: ignore[arg-type]
    return caught.value.problems


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_shipped_recipe_loads_and_begins_with_its_title(name: str) -> None:
    cfg = Config.load(name)
    assert check_model(cfg.model.model_dump()) == []
    assert isinstance(cfg, config.Config)
    assert cfg.run.name == name
    assert recipes()[name].read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("path", sorted(Path(config.loading.RECIPES).glob("_base_/*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_part_of_a_recipe_loads_and_is_used(path: Path) -> None:
    Config.load(path, *(f"model.name={name}" for name in OF_QUERIES.get(path.stem, ())))
    others = [*recipes().values(), *(other for other in path.parent.glob("*.yaml") if other != path)]
    named = re.compile(rf"^base: .*\b{path.name}", re.MULTILINE)
    assert any(named.search(other.read_text(encoding="utf-8")) for other in others)


def test_a_key_of_the_architecture_is_checked_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: x\nmodel:\n  name: unet\n  encoder: resnet18\n  decoder_chanels: [1]\n  dropout: high\n")
    assert [(p.line, p.key, p.message) for p in problems_of(path)] == [
        (1, "seed", "expected a whole number, at least 0, below 4294967296"),
        (5, "model.decoder_chanels", "unknown key - did you mean 'decoder_channels'?"),
        (6, "model.dropout", "expected a number"),
    ]


def test_a_misspelled_common_key_of_the_model_is_guessed_too() -> None:
    (problem,) = problems_of({}, "model.num_clases=3")
    assert (problem.key, problem.message) == ("model.num_clases", "unknown key - did you mean 'num_classes'?")


def test_an_unknown_model_names_the_nearest() -> None:
    (problem,) = problems_of({}, "model.name=segformr_b1")
    assert (problem.got, problem.message) == ('"segformr_b1"', "unknown model - did you mean 'segformer_b1'?")


def test_an_unknown_encoder_names_the_nearest() -> None:
    (problem,) = problems_of({}, "model.encoder=resnet3")
    assert (problem.key, problem.message) == ("model.encoder", "unknown encoder - did you mean 'resnet34'?")


@pytest.mark.parametrize("encoder", ["resnet50", "mit_b2", "timm/convnext_tiny", "convnext_tiny", "resnet50.a1_in1k"])
def test_own_encoders_and_all_of_timm_are_known(encoder: str) -> None:
    assert check_model({"name": "unet", "encoder": {"name": encoder}}) == []


PLAIN = "vit_small_patch14_dinov2"
NO_TOKENS = f"gives feature maps, no tokens: expected a plain vision transformer, such as vit_base, or timm's {PLAIN}"
TAGS = "no such weights: expected no tag, or one of test_vit.r160_in1k"


@pytest.mark.parametrize(
    ("network", "encoder", "key", "message"),
    [
        ("linear", "resnet50", "model.encoder", NO_TOKENS),
        ("linear", "swin_tiny_patch4_window7_224", "model.encoder", NO_TOKENS),
        ("linear", "vit_smal_patch14_dinov2", "model.encoder", f"unknown encoder - did you mean '{PLAIN}'?"),
        ("linear", "test_vit.no_such_tag", "model.encoder", TAGS),
        ("unet", "test_vit.no_such_tag", "model.encoder", TAGS),
        ("fcn", "test_vit", "model.encoder.output_stride", "test_vit has its own only, expected null"),
    ],
)
def test_an_encoder_that_a_network_cannot_take_is_told_with_its_line(tmp_path, network, encoder, key, message) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"seed: x\nmodel:\n  name: {network}\n  encoder: {encoder}\n")
    (_, problem) = problems_of(path)
    assert (problem.line, problem.key, problem.message) == (4, key, message)


def test_options_of_a_plain_transformer_are_checked_by_name() -> None:
    problems = problems_of({}, "model.name=linear", "model.encoder={name: test_vit, dpth: 3, drop_path: high}")
    assert [(p.key, p.message) for p in problems] == [
        ("model.encoder.drop_path", "expected a number"),
        ("model.encoder.dpth", "unknown option of test_vit - did you mean 'depth'?"),
    ]
    message = "timm cannot make 'vit_base_patch16_sapiens2' with depth=2: "
    (problem,) = problems_of({}, "model.name=linear", "model.encoder={name: vit_base_patch16_sapiens2, depth: 2}")
    assert problem.message.startswith(message)


@pytest.mark.parametrize("network", ["unet", "segformer", "upernet", "linear"])
def test_a_plain_transformer_gives_maps_to_networks_that_take_its_stride_and_tokens_to_linear(network) -> None:
    assert check_model({"name": network, "encoder": "test_vit"}) == []
    assert check_model({"name": "fcn", "encoder": {"name": "test_vit", "output_stride": None}}) == []


def test_faults_of_an_encoder_are_told_with_all_others_at_the_line_where_each_was_written(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "model:\n  name: deeplabv3\n  encoder: resnet50\n  encoder_options:\n    multi_gird: [1, 2, 4]\n"
        "  output_stride: 7\n  dropuot: 3\ntrain: {epochs: x}\n"
    )
    with pytest.raises(ConfigError) as told:
        Config.load(file)
    assert [(p.line, p.key, p.got) for p in told.value.problems] == [
        (5, "model.encoder.multi_gird", "[1, 2, 4]"),
        (6, "model.encoder.output_stride", "7"),
        (7, "model.dropuot", "3"),
        (8, "train.epochs", '"x"'),
    ]


def test_a_stride_that_only_the_network_gives_is_judged_with_the_encoder_that_the_recipe_names() -> None:
    (problem,) = problems_of({"model": {"name": "deeplabv3", "encoder": "stdc1"}})
    assert (problem.key, problem.message) == ("model.encoder.output_stride", "stdc1 has its own only, expected null")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"name": "resnet50", "multi_grid": [1, 2]}, "multi_grid has 2 entries, but the last layer has 3 blocks"),
        ({"name": "timm/convmixer_768_32", "output_stride": 8}, "gives no feature maps with output_stride=8"),
    ],
)
def test_an_encoder_that_cannot_be_made_is_told_when_the_recipe_is_read(encoder: dict[str, Any], message: str) -> None:
    (problem,) = problems_of({"model": {"name": "deeplabv3", "encoder": encoder}})
    assert problem.key == "model.encoder"
    assert message in problem.message


def test_an_encoder_that_is_no_name_is_refused() -> None:
    (problem,) = problems_of({}, "model.encoder=5")
    assert (problem.key, problem.message) == ("model.encoder", "expected an encoder's name or a group of its keys")


def test_a_variant_brings_its_fields_and_takes_others() -> None:
    assert check_model({"name": "segformer_b2", "dropout": 0.2, "num_classes": 4}) == []
    assert [p.key for p in check_model({"name": "segformer_b2", "width": 2})] == ["model.width"]


def test_config_below_the_models_takes_the_models_keys_as_they_are() -> None:
    cfg = config.Config.load({}, "model.name=anything", "model.depth=3")
    assert cfg.model.architecture_fields() == {"depth": 3}


NAMES = [*ARCHITECTURES, *(name for entry in ARCHITECTURES.values() for name in entry.variants)]


@pytest.mark.parametrize("base", sorted(recipes()))
def test_every_network_named_over_a_shipped_recipe_inherits_no_field_of_the_recipe_s_own(base: str) -> None:
    tree = from_plain(Config.load(base).model_dump(mode="json"), Place(file=base))
    own = tree.plain()["model"]
    for name in NAMES if base == "unet_folder" else ARCHITECTURES:
        left = make_room(tree, from_plain({"model": {"name": name}}, Place(file="override"))).plain()["model"]
        if name == own["name"]:
            assert left == own
        else:
            fields = left.keys() - ModelConfig.model_fields.keys()
            assert fields <= {"aux"}
            assert left.get("encoder_weights") in (None, "imagenet", "auto")


@pytest.mark.parametrize("name", ["segformer_b0", "deeplabv3plus_r50", "fcn_hr18", "stdc2", "lraspp"])
def test_a_network_named_over_unet_folder_has_its_own_parameters(name: str) -> None:
    model = Config.load("unet_folder", f"model.name={name}").model
    counts = []
    for fields in (model.architecture_fields(), {}):
        net = build_empty(*make_config(name, {"num_classes": 5, **fields}))
        counts.append(sum(parameter.numel() for parameter in net.parameters()))
    assert counts[0] == counts[1]


def test_a_field_that_contradicts_the_variant_it_is_given_to_is_obeyed_and_told(caplog) -> None:
    assert Config.load("unet_folder", "model.name=segformer_b0", "model.encoder=mit_b0").model.name == "segformer_b0"
    assert not caplog.records
    cfg = Config.load("unet_folder", "model.name=segformer_b0", "model.encoder=resnet34")
    assert cfg.model.architecture_fields() == {"encoder": {"name": "resnet34"}}
    (record,) = caplog.records
    assert record.getMessage().startswith(
        'model.encoder.name = "resnet34": the network is no longer segformer_b0, which has'
    )
