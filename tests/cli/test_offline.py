"""`--offline` of every command that may download."""

from __future__ import annotations

import os

import huggingface_hub
import pytest
from fakes.folder import write_folder
from typer.testing import CliRunner

from segatlas.cli.main import app


@pytest.fixture(autouse=True)
def _asked(monkeypatch, tmp_path):
    """A hub that must not be asked, and an empty cache."""

    def asked(*args, local_files_only=False, **kwargs):
        assert local_files_only, "the hub was asked"
        raise FileNotFoundError("not in the cache")

    monkeypatch.setenv("SEGATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGATLAS_OFFLINE", raising=False)
    for name in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, name, asked)


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "user/net", "set/val/images", "--out", "out"],
        ["predict", "pspnet-r50-ade20k", "set/val/images", "--out", "out"],
        ["eval", "user/net", "--data", "set"],
        ["bench", "user/net", "--size", "64x64", "--repeats", "1"],
        ["models", "info", "user/net"],
        ["models", "convert", "user/net", "--out", "out.pth", "--to", "mmseg"],
        ["train", "unet_folder", "model.start_from=user/net", "data.root=set", "run.dir=run"],
        [
            "train",
            "linknet_folder",
            "model={encoder: resnet34, encoder_weights: imagenet}",
            "data.root=set",
            "run.dir=run",
        ],
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_offline_downloads_nothing_and_says_so(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "set")
    result = CliRunner().invoke(app, [*words, "--offline"])
    assert result.exit_code == 1, result.output
    assert "downloads are off" in result.stderr
    assert "unexpected" not in result.stderr
    assert not os.environ.get("SEGATLAS_OFFLINE")  # the switch ends with the command
