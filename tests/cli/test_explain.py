from __future__ import annotations

import json

import pytest
from fakes.model import make_model
from typer.testing import CliRunner

from segatlas.cli.main import app


def run(*words: object):
    return CliRunner().invoke(app, ["explain", *map(str, words)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "unet")


def test_layers_are_listed_with_their_kinds(model):
    found = json.loads(run("layers", model, "--json").stdout.splitlines()[-1])
    assert {"name": "classifier", "kind": "Conv2d"} in found
    listed = run("layers", model, "class*")
    assert listed.exit_code == 0
    assert listed.stdout.split() == ["classifier", "Conv2d"]
    assert "none of its" in run("layers", model, "nothing*").stdout
