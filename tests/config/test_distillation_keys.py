"""`distill:` in a recipe: terms by name or with their keys, and what contradicts itself."""

from __future__ import annotations

import pytest

from segatlas.config.distillation import ChannelWise, PairWise
from segatlas.config.loading import to_yaml
from segatlas.errors import ConfigError
from segatlas.recipe import Config, distillation_keys, json_schema

TEACHER = "distill.teacher=runs/teacher"


def test_a_teacher_alone_means_the_channel_wise_term_on_logits():
    cfg = Config.load("unet_shapes", TEACHER)
    assert cfg.distill is not None
    assert cfg.distill.terms == (ChannelWise(on="logits", weight=3.0, temperature=4.0),)
    assert Config.load("unet_shapes").distill is None


def test_a_term_by_its_name_has_its_defaults_in_a_file_and_in_words(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("distill:\n  teacher: there\n  terms: [pair_wise, {name: channel_wise, on: features.8}]\n")
    terms = Config.load(file).distill.terms
    assert terms == (PairWise(), ChannelWise(on="features.8"))
    cfg = Config.load("unet_shapes", TEACHER, "distill.terms=[pair_wise]", "distill.terms.0.pooling=0.5")
    assert cfg.distill.terms == (PairWise(pooling=0.5),)
    (tmp_path / "again.yaml").write_text(to_yaml(cfg))
    assert Config.load(tmp_path / "again.yaml").distill == cfg.distill


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["distill.terms=[channel_wise]"], ["distill.teacher", "required"]),
        ([TEACHER, "distill.terms=[channelwise]"], ["distill.terms.0.name", "did you mean 'channel_wise'"]),
        ([TEACHER, "distill.terms=[{name: pair_wise, temperature: 2}]"], ["distill.terms.0.temperature"]),
        ([TEACHER, "distill.terms=[{name: pixel_wise, on: features}]"], ["distill.terms.0.on", "expected 'logits'"]),
        ([TEACHER, "distill.terms=[pair_wise, pair_wise]"], ["distill.terms.1.on", "a second pair_wise on logits"]),
        ([TEACHER, "distill.terms=[{name: pair_wise, teacher_on: decoded}]"], ["distill.terms.0.teacher_on"]),
        ([TEACHER, "distill.terms=[{name: pair_wise, on: features, teacher_on: features.4}]"], ["say which"]),
        ([TEACHER, "distill.terms=[]"], ["expected at least one term"]),
        (["distill.teacher=' '"], ["expected a path, found an empty text"]),
        (
            [TEACHER, "pretrain={}", "transforms.crop=[32, 32]"],
            ["distill", "no meaning where whole images have classes"],
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value[0], str) and "=" in value[0] else "",
)
def test_what_cannot_be_meant_is_told_with_its_key(words, told):
    with pytest.raises(ConfigError) as caught:
        Config.load("unet_shapes", *words)
    for text in told:
        assert text in str(caught.value)


def test_every_term_has_its_table_and_its_place_in_the_json_schema():
    tables = dict(distillation_keys())
    assert [title.split()[1] for title in tables] == ["channel_wise", "pair_wise", "pixel_wise"]
    assert all(row.meaning for rows in tables.values() for row in rows)
    terms = json_schema()["$defs"]["DistillConfig"]["properties"]["terms"]
    assert terms["items"]["anyOf"][0] == {"enum": ["channel_wise", "pair_wise", "pixel_wise"]}
