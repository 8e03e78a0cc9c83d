from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segatlas.cli.config import summary
from segatlas.cli.main import app
from segatlas.config import recipes, to_yaml
from segatlas.recipe import Config, common_keys, loss_keys


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["config", *words])
    return result.exit_code, result.stdout, result.stderr


def test_show_prints_the_resolved_recipe_that_loads_again(tmp_path: Path) -> None:
    code, out, err = run("show", "unet_shapes", "train.epochs=3")
    assert (code, err) == (0, "")
    assert out == to_yaml(Config.load("unet_shapes", "train.epochs=3"))
    path = tmp_path / "again.yaml"
    path.write_text(out)
    assert run("show", "--config", str(path)) == (0, out, "")


def test_show_with_overrides_alone_prints_the_defaults() -> None:
    assert run("show", "seed=3")[1] == to_yaml(Config.load({}, "seed=3"))


def test_show_as_json_is_the_recipe_on_one_line() -> None:
    _, out, _ = run("show", "unet_shapes", "--json")
    assert out.count("\n") == 1
    assert json.loads(out) == Config.load("unet_shapes").model_dump(mode="json")


def test_check_prints_ok_and_three_lines() -> None:
    own = ("train.steps=40", "train.epochs=null", "train.lr=0.01", "train.batch=4", "model.encoder=resnet34")
    code, out, _ = run("check", "unet_shapes", *own, "model.num_classes=2")
    assert code == 0
    assert out.splitlines() == [
        "ok: unet_shapes",
        "  model  unet, encoder resnet34, 2 classes",
        "  data   shapes in data/shapes",
        "  train  40 steps of batch 4, adamw lr 0.01, cosine, cross_entropy_dice",
    ]


def test_the_summary_says_what_is_left_open() -> None:
    text = summary(Config.load({}, "losses=[dice, focal]"))
    assert "classes from the data" in text
    assert "data.root is not set" in text
    assert "dice + focal" in text


def test_check_as_json_ends_in_one_line() -> None:
    code, out, err = run("check", "unet_shapes", "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "recipe": "unet_shapes"})
    assert err.startswith("ok: unet_shapes")


def test_check_of_a_faulty_recipe_prints_all_problems_and_exits_2() -> None:
    code, out, err = run("check", "unet_shapes", "train.epoch=3", "model.decoder_chanels=[1]")
    assert (code, out) == (2, "")
    assert "config error in the words behind segatlas/recipes/unet/shapes.yaml" in err
    assert "did you mean 'epochs'?" in err
    assert "did you mean 'decoder_channels'?" in err
    assert "2 problems; nothing was started" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model.encoder=null", "model.width=-3"], "override   model.width = -3   no unet can be made with it (Trying"),
        (["model.decoder_channels=[0]"], "model.decoder_channels = [0]   no unet can be made with it"),
        (["model.nme=unet"], "model.nme = \"unet\"   unknown key - did you mean 'name'?"),
    ],
)
def test_check_tells_the_key_that_no_network_can_be_made_with(words: list[str], told: str) -> None:
    code, out, err = run("check", "unet_shapes", *words)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize("words", [["a", "b"], ["unet_shapes", "--config", "x.yaml"]])
def test_wrong_words_exit_2(words: list[str]) -> None:
    assert run("check", *words)[0] == 2


def test_schema_prints_every_key() -> None:
    code, out, _ = run("schema")
    assert code == 0
    for title, rows in (common_keys(), *loss_keys()):
        assert title.split(":")[0] in out
        for row in rows:
            assert f"│ {row.key} " in out


def test_schema_as_json_is_a_json_schema() -> None:
    schema = json.loads(run("schema", "--json")[1])
    assert schema["type"] == "object"
    assert {"base", "model", "train"} <= set(schema["properties"])


def test_shipped_recipes_are_listed_with_their_titles() -> None:
    code, out, _ = run("schema", "--recipes")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(recipes())
    found = json.loads(run("schema", "--recipes", "--json")[1])
    assert [entry["name"] for entry in found] == list(recipes())
    assert all(not entry["title"].startswith("#") and Path(entry["path"]).is_file() for entry in found)


def test_another_data_set_over_a_recipe_inherits_none_of_its_classes_and_one_line_says_so(
    tmp_path: Path, caplog
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "base: unet_folder\ndata:\n  name: folder\n  root: some/where\n  classes: [a, b]\n  label_map: {0: 0, 1: 1}\n"
    )
    code, out, _ = run("show", str(path), "data.name=camvid")
    assert code == 0
    assert "name: camvid\n  root: some/where\n  channels: null\n" in out
    assert "\n  accept: []\n" in out
    assert "label_map" not in out
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("data.name is camvid: left out what was written for folder: classes = [")
    assert 'kept what was written for folder: root = "some/where"' in line
    dry = CliRunner().invoke(app, ["train", str(path), "data.name=camvid", "--dry-run"])
    assert dry.exit_code != 0  # there is no CamVid in some/where
    assert [record.getMessage() for record in caplog.records] == [line, line]
