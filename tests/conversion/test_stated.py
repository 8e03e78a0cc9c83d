from __future__ import annotations

import json

import pytest
import torch
from fakes.foreign import foreign_state, small_network, write_checkpoint
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.conversion.converting import convert_file
from segatlas.conversion.stated import overlaid, read_words, require_read
from segatlas.errors import UsageError

KEY = "model.backbone.norm_cfg.eps"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.set_num_threads(1)
    return write_checkpoint(
        tmp_path_factory.mktemp("foreign") / "bare.pth", foreign_state("mmseg", small_network("mmseg"))
    )


def test_words_are_paths_and_yaml():
    assert read_words(["encoder_output_stride=16", "a.b=[1, 2]", "c=x=y", "d=1e-5", "e=false"]) == {
        "encoder_output_stride": 16,
        "a.b": [1, 2],
        "c": "x=y",
        "d": 1e-5,
        "e": False,
    }


@pytest.mark.parametrize("word", ["depth", "=4", "a=[1,"])
def test_a_word_that_states_nothing_is_told(word):
    with pytest.raises(UsageError, match="--set"):
        read_words([word])


def test_what_is_stated_lies_over_settings_and_changes_none_of_them():
    settings = {"model": {"head": {"a": 1, "b": 2}}, "list": [1]}
    assert overlaid(settings, {"model.head.a": 5, "new.c": 6}) == {
        "model": {"head": {"a": 5, "b": 2}},
        "list": [1],
        "new": {"c": 6},
    }
    assert settings["model"]["head"]["a"] == 1
    with pytest.raises(UsageError, match=r"--set list\.0: list is \[1\], no group of settings"):
        overlaid(settings, {"list.0": 3})


def test_what_no_importer_asks_for_is_told_with_the_nearest():
    require_read({"a.b.c": 1, "d": {}}, {"a.b", "d.e"}, "the unet of X")
    with pytest.raises(UsageError, match=r"unknown setting of the unet of X .* did you mean 'upsampling'"):
        require_read({"upsampeling": 1}, {"upsampling", "decoder_dropout"}, "the unet of X")


def test_what_is_stated_takes_the_place_of_a_default(file, tmp_path):
    bare, stated = convert_file(file, tmp_path / "bare"), convert_file(file, tmp_path / "stated", stated={KEY: 1e-4})
    assert [done.card.config["encoder"]["norm_eps"] for done in (bare, stated)] == [1e-6, 1e-4]
    assert (bare.settings_from, stated.settings_from) == ("", "--set")


def test_the_command_takes_it_and_refuses_what_the_network_does_not_ask(file, tmp_path):
    words = ["models", "convert", str(file), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--set", f"{KEY}=1e-4", "--json"])
    assert json.loads(done.stdout.splitlines()[-1])["card"]["config"]["encoder"]["norm_eps"] == 1e-4
    refused = CliRunner().invoke(app, [*words, "--set", "encoder_output_stride=16"])
    assert refused.exit_code == 2
    assert "unknown setting of the segformer of MMSegmentation" in refused.output
