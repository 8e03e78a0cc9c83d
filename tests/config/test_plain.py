"""Numbers that nothing can hold are refused in every key there is, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest

from segatlas.build.network import create_model
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.validation import FieldsError, validated
from segatlas.config.messages import SchemaWords
from segatlas.config.plain import value_problems
from segatlas.config.schema import TrainConfig
from segatlas.data.datasets.folder import FolderOptions
from segatlas.errors import ConfigError, UsageError, WeightsError
from segatlas.models import ARCHITECTURES
from segatlas.models.reading import load_architecture
from segatlas.recipe import Config
from segatlas.structures import maps_of, noise_inputs

INF = float("inf")
ODD = (INF, -INF, float("nan"), 1e-300, -1e300)
WORDS = SchemaWords(Config.model_json_schema())


def takes_number(node: Any) -> tuple[bool, ...] | None:
    """Return where a key takes a number: () itself, (True,) in a list, (False,) in a mapping; None if nowhere."""
    node = WORDS.resolve(node)
    if node.get("type") in ("number", "integer"):
        return ()
    for member in node.get("anyOf", ()):
        if (below := takes_number(member)) is not None:
            return below
    for inner, is_list in (("items", True), ("additionalProperties", False)):
        if isinstance(node.get(inner), dict) and (below := takes_number(node[inner])) is not None:
            return (is_list, *below)
    for item in node.get("prefixItems", ()):
        if (below := takes_number(item)) is not None:
            return (True, *below)
    return None


def number_keys() -> Iterator[tuple[str, tuple[bool, ...]]]:
    """Yield every key of the schema that takes numbers, and how they are nested in it."""
    own = SchemaWords(FolderOptions.model_json_schema()).leaves()
    for key, node in (*WORDS.leaves(), *((f"data.{key}", node) for key, node in own)):
        if key == "losses":
            for name, reference in WORDS.resolve(node["items"])["discriminator"]["mapping"].items():
                for own, inner in WORDS.leaves({"$ref": reference}):
                    if (nesting := takes_number(inner)) is not None:
                        yield f"losses.{name}.{own}", nesting
        elif (nesting := takes_number(node)) is not None:
            yield key, nesting


def recipe_with(key: str, value: Any) -> dict[str, Any]:
    """Return a recipe whose only key is this one."""
    if key.startswith("losses."):
        _, name, own = key.split(".")
        return {"losses": [{"name": name, own: value}]}
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


NUMBER_KEYS = dict(number_keys())


def test_the_walk_finds_the_number_keys_of_the_schema():
    assert {"train.lr", "train.optimizer.betas", "data.label_map", "losses.tversky.alpha", "seed"} <= NUMBER_KEYS.keys()
    assert NUMBER_KEYS["train.clip"] == ()
    assert NUMBER_KEYS["losses.dice.class_weights"] == (True,)
    assert NUMBER_KEYS["data.palette"] == (True, True)
    assert len(NUMBER_KEYS) > 80


@pytest.mark.parametrize("key", NUMBER_KEYS)
def test_a_number_key_takes_only_finite_numbers(key):
    for value in ODD:
        for is_list in reversed(NUMBER_KEYS[key]):
            value = [value, value] if is_list else {"1": value}
        with pytest.raises(ConfigError) as caught:
            Config.load(recipe_with(key, value))
        (problem, *others) = caught.value.problems
        where = key if not key.startswith("losses.") else f"losses.0.{key.split('.')[2]}"
        assert problem.key.startswith(where), problem
        assert "finite" in problem.message or "single precision" in problem.message
        required = ("model.name", "distill.teacher")
        assert all(other.key.startswith((where, *required)) for other in others), others


@pytest.mark.parametrize("word", ["1e999", "-1e999", "9" * 5000, "9" * 30, "1e-300"])
@pytest.mark.parametrize("key", ["train.lr", "train.batch", "losses.0.weight", "model.dropout", "train.ema.decay"])
def test_an_override_takes_only_numbers_that_can_be_held(key, word):
    with pytest.raises(ConfigError) as caught:
        Config.load({"losses": ["dice"]}, f"{key}={word}")
    assert any(problem.key.startswith(key) for problem in caught.value.problems)
    assert max(map(len, str(caught.value).splitlines())) < 200


def test_a_section_made_without_a_recipe_takes_only_finite_numbers_too():
    with pytest.raises(ValueError, match="finite number"):
        TrainConfig(lr=INF)


# ---- architectures, encoders, cards
def float_fields(name: str) -> list[str]:
    config = load_architecture(name).config
    hints = get_type_hints(config)
    return [field.name for field in fields(config) if float in (hints[field.name], *get_args(hints[field.name]))]


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if float_fields(name)])
def test_an_architecture_takes_only_finite_numbers(name):
    for value in ODD:
        odd = dict.fromkeys(float_fields(name), value)
        with pytest.raises(ConfigError) as refused:
            Config.load({"model": {"name": name, **odd}})
        assert {problem.key for problem in refused.value.problems} >= {f"model.{field}" for field in odd}
        with pytest.raises(UsageError) as told:
            create_model(name, num_classes=3, **odd)
        assert [field for field in odd if field not in str(told.value)] == []


def test_encoder_options_take_only_finite_numbers():
    with pytest.raises(ConfigError, match=r"model\.encoder\.norm_eps"):
        Config.load({"model": {"name": "segformer_b0", "encoder_options": {"norm_eps": INF}}})
    with pytest.raises(UsageError, match=r"encoder\.norm_eps"):
        create_model("segformer_b0", num_classes=3, encoder_options={"norm_eps": INF})


def test_a_card_takes_only_finite_numbers():
    card = {"architecture": "unet", "config": {}, "classes": ["a", "b"], "palette": [[0, 0, 0], [1, 1, 1]]}
    for value in ODD:
        with pytest.raises(WeightsError, match=r"preprocessing\.std\.1"):
            Card.from_dict({**card, "preprocessing": {"std": [1.0, value, 1.0]}})


@pytest.mark.parametrize("settings", [{"width": 0}, {"width": -3}, {"dropout": 1.5}, {"dropout": -0.5}])
def test_settings_that_no_layer_can_be_made_of_are_refused_by_name(settings):
    with pytest.raises(UsageError, match="model 'unet' cannot be made with these settings"):
        create_model("unet", num_classes=2, **settings)


@pytest.mark.parametrize("rate", [-0.5, 1.0, 7.0])
def test_a_drop_path_rate_is_a_probability_below_one(rate):
    with pytest.raises(UsageError, match="drop path rate"):
        create_model("segformer_b0", num_classes=2, drop_path=rate)


BELOW = {
    "fcn": {"dilation": 0, "levels": -1},
    "deeplabv3plus": {"refine_convs": 0},
    "ocrnet": {"levels": 0},
    "pointrend": {"train_points": 0, "oversample": 0, "importance": 1.5, "levels": 0},
    "psanet": {"shrink_factor": 0},
    "semantic_fpn": {"levels": 0},
    "upernet": {"levels": -2},
}


@pytest.mark.parametrize("name", BELOW)
def test_a_count_that_leaves_nothing_is_refused_by_its_field(name):
    tiny = load_architecture(name).tiny
    for field, value in BELOW[name].items():
        with pytest.raises(UsageError, match=f"{field}: got {value}"):
            create_model(name, **{**tiny, "num_classes": 2, field: value})


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_number_in_a_field_makes_a_network_that_runs_or_is_refused(name):
    record = load_architecture(name)
    hints = get_type_hints(record.config)
    numbers = [key for key, hint in hints.items() if {int, float} & {hint, *get_args(hint)}]
    for field in sorted({*numbers} - {"num_classes", "in_channels"}):
        for value in (0, -1, 0.0, -1.0, 5.0):
            try:
                net = create_model(name, **{**record.tiny, "num_classes": 3, field: value})
            except UsageError:
                continue
            given = noise_inputs(record.inputs(net.config), (64, 64), count=2).given()
            assert all(x.isfinite().all() for x in maps_of(net.train()(given)).values()), (field, value)


# ---- texts
def test_half_a_surrogate_pair_is_refused_in_any_text():
    for text in ("a\ud800", "\udc80"):
        with pytest.raises(ConfigError, match=r"run\.name.*lone surrogate"):
            Config.load({"run": {"name": text}})
        with pytest.raises(FieldsError, match=r"architecture.*lone surrogate"):
            validated(Card, {"architecture": text})


def test_plain_values_are_walked_to_the_last_leaf():
    problems = value_problems({"a": [1, {"b": INF}], "c": True, "d": 2**53, "e": 2**53 + 1, "f": None, "g": 1e-39})
    assert [problem.key for problem in problems] == ["a.1.b", "e", "g"]


def test_a_key_with_a_dot_in_a_dict_is_told_and_ends():
    with pytest.raises(ConfigError, match="unknown key"):
        Config.load({"a.b": 1})
