from __future__ import annotations

from pathlib import Path

import pytest

from segatlas import config
from segatlas.config import recipes
from segatlas.errors import ConfigError, Problem
from segatlas.recipe import Config, check_model


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
    Config.load(path)
    assert any(f"_base_/{path.name}" in recipe.read_text(encoding="utf-8") for recipe in recipes().values())


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
    assert check_model({"name": "unet", "encoder": encoder}) == []


def test_an_encoder_that_is_no_name_is_left_to_the_architecture() -> None:
    (problem,) = problems_of({}, "model.encoder=5")
    assert (problem.key, problem.message) == ("model.encoder", "expected text")


def test_a_variant_brings_its_fields_and_takes_others() -> None:
    assert check_model({"name": "segformer_b2", "dropout": 0.2, "num_classes": 4}) == []
    assert [p.key for p in check_model({"name": "segformer_b2", "width": 2})] == ["model.width"]


def test_config_below_the_models_takes_the_models_keys_as_they_are() -> None:
    cfg = config.Config.load({}, "model.name=anything", "model.depth=3")
    assert cfg.model.architecture_fields() == {"depth": 3}
