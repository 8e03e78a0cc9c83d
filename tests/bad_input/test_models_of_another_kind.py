"""A model of another kind than a command or recipe needs is wrong usage: exit code 2, with the key or option."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.models.reading import load_architecture

CLASSES = ("ground", "line", "dot")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the model folder of each kind of network by its name, all of three classes."""
    root = tmp_path_factory.mktemp("models")
    for name in ("unet", "center", "fc_siam"):
        net = create_model(name, num_classes=len(CLASSES), **load_architecture(name).tiny)
        save_pretrained(net, root / name, classes=CLASSES)
    return root


def refused(*words: object, code: int = 2) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("start_from", "unet", "unet: holds a unet, but the network is a center"),
        ("encoder_weights", "imagenet", "this center has no named encoder to load encoder_weights='imagenet' into"),
    ],
)
def test_weights_that_the_network_of_a_recipe_cannot_take_are_told_with_file_and_line(
    models, tmp_path, monkeypatch, key, value, expected
):
    monkeypatch.chdir(models)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"base: center_shapes\ntrain: {{steps: 1}}\nmodel:\n  {key}: {value}\n")
    text = refused("train", recipe, f"data.root={tmp_path / 'shapes'}", "--dry-run")
    assert f"config error in {recipe} line 4 model.{key} = {value} " in text
    assert expected in text
    assert "override model." in refused("train", "center_shapes", f"model.{key}={value}", "--dry-run")


def test_views_for_a_network_of_objects_are_refused(models, folder, tmp_path):
    text = refused("predict", models / "center", folder, "--out", tmp_path / "out", "--tta", "flips")
    assert "test-time augmentation is for class maps; center gives CentersAndOffsets" in text


@pytest.mark.parametrize(
    ("model", "code", "expected"),
    [
        ("center", 1, "gives no masks of objects, which is asked for; docs/datasets.md says where objects can lie"),
        ("fc_siam", 2, "the network takes the source 'before' (image); folder gives: none"),
    ],
)
def test_a_dataset_without_what_the_model_needs_is_refused_by_eval(models, folder, model, code, expected):
    assert expected in refused("eval", models / model, "--data", folder, code=code)


def test_a_model_of_ours_is_not_converted_from_another_library(models, tmp_path):
    text = refused("models", "convert", models / "unet", "--out", tmp_path / "converted")
    assert "is a model of SegAtlas already; load it as it is" in text
    assert not (tmp_path / "converted").exists()
