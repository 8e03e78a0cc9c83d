"""segatlas models push and pull, with a hub that is a folder on this disk."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from typer.testing import CliRunner

import segatlas
from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.checkpoint.card import Card
from segatlas.cli.main import app
from segatlas.hub.model_page import model_page


class Hub:
    """Answers as the client of the hub does; keeps what it is sent."""

    def __init__(self, folder: Path):
        self.folder, self.made, self.public, self.fault = folder, [], False, None

    def api(self):
        return SimpleNamespace(create_repo=self.create_repo, repo_info=self.repo_info, create_commit=self.create_commit)

    def create_repo(self, hub_id, *, private, exist_ok):
        if self.fault is not None:
            raise self.fault
        self.made.append((hub_id, private))
        return f"https://hub.test/{hub_id}"

    def repo_info(self, hub_id):
        return SimpleNamespace(private=self.made[-1][1] and not self.public)

    def create_commit(self, hub_id, operations, *, commit_message):
        (self.folder / hub_id).mkdir(parents=True)
        for one in operations:
            with one.as_file() as stream:
                (self.folder / hub_id / one.path_in_repo).write_bytes(stream.read())

    def snapshot_download(self, hub_id, *, allow_patterns, local_files_only):
        return str(self.folder / hub_id)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in ("SEGATLAS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub.api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def saved(folder: Path, **facts: object) -> Path:
    net = create_model("unet", num_classes=2, width=4)
    return save_pretrained(net, folder, classes=["sky", "road"], **facts)


def run(*words: object):
    return CliRunner().invoke(app, ["models", *map(str, words)])


def test_what_is_pushed_loads_by_its_hub_id_and_is_pulled_with_its_page_telling_the_card(hub, tmp_path):
    mine = saved(tmp_path / "mine", licence="MIT", metric={"miou": 0.5123, "split": "val"})
    done = run("push", mine, "me/net", "--json")
    assert done.exit_code == 0, done.output
    sent = hub.folder / "me" / "net"
    assert json.loads(done.stdout) == {
        "kind": "push",
        "dry_run": False,
        "hub_id": "me/net",
        "url": "https://hub.test/me/net",
        "private": False,
        "licence": "MIT",
        "files": {name: (sent / name).stat().st_size for name in ("card.json", "model.safetensors", "README.md")},
    }
    head, text = (sent / "README.md").read_text().removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(head)["license"] == "mit"
    for part in ("U-Net", "miou 0.5123, split val", "0 sky, 1 road", 'sa.load("me/net")', "licence: MIT"):
        assert part in text

    image = torch.rand(1, 3, 32, 32)
    here, there = (segatlas.load(name, device="cpu").scores(image) for name in (mine, "me/net"))
    assert torch.equal(here, there)
    pulled = run("pull", "me/net", "--out", tmp_path / "pulled", "--json")
    assert json.loads(pulled.stdout)["folder"] == str(tmp_path / "pulled")
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {"card.json", "model.safetensors"}
    assert Card.read(tmp_path / "pulled") == Card.read(mine)
    (sent / "model.safetensors").write_bytes((sent / "model.safetensors").read_bytes()[:-4] + b"\0\0\0\1")
    damaged = run("pull", "me/net", "--out", tmp_path / "damaged")
    assert (damaged.exit_code, (tmp_path / "damaged").exists()) == (1, False)
    assert "sha256 differs" in damaged.stderr


def test_a_dry_run_and_the_offline_switch_ask_nobody(hub, tmp_path, monkeypatch):
    mine = saved(tmp_path / "mine", licence="MIT")
    hub.fault = AssertionError("the hub was asked")
    told = run("push", mine, "me/net", "--dry-run", "--private")
    assert told.exit_code == 0, told.output
    size = (mine / "model.safetensors").stat().st_size
    assert f"model.safetensors   {size:>13,} bytes" in told.stdout
    assert "nothing was sent; without --dry-run these go to me/net (private, licence MIT)" in told.stdout
    refused = run("push", mine, "me/net", "--offline")
    assert refused.exit_code == 1
    assert "me/net: nothing is sent, downloads are off" in refused.stderr
    assert not hub.folder.exists()


@pytest.mark.parametrize(
    ("stated", "words", "code", "told"),
    [
        ("", (), 1, "states no licence, so nobody may use what is published; state one by --licence"),
        ("", ("--licence", "Apache-2.0"), 0, "licence Apache-2.0"),
        ("", ("--licence-ok",), 0, "licence not stated"),
        ("CC-BY-NC-4.0", (), 1, "its licence restricts use: CC-BY-NC-4.0"),
        ("NVIDIA, non-commercial", ("--licence-ok",), 0, "licence NVIDIA, non-commercial"),
        ("MIT", ("--licence", "Apache-2.0"), 2, "has one already, which stays: MIT"),
    ],
)
def test_who_publishes_must_have_looked_at_the_licence(hub, tmp_path, stated, words, code, told):
    mine = saved(tmp_path / "mine", licence=stated)
    done = run("push", mine, "me/net", *words)
    assert done.exit_code == code, done.output
    assert told in done.output
    assert hub.folder.exists() == (code == 0)
    if code == 0:
        assert Card.read(hub.folder / "me" / "net").licence == (stated or "".join(words[1:]))


def test_a_private_push_does_not_go_to_a_public_repository(hub, tmp_path):
    mine = saved(tmp_path / "mine", licence="MIT")
    hub.public = True
    done = run("push", mine, "me/net", "--private")
    assert done.exit_code == 1
    assert "me/net: is there already, and public, which --private does not allow" in done.stderr
    assert not hub.folder.exists()


def test_a_refusal_of_the_hub_says_what_is_needed_and_shows_no_secret(hub, tmp_path):
    mine = saved(tmp_path / "mine", licence="MIT")
    hub.fault = ConnectionError("401 for https://me:s3cret@hub.test/api?token=s3cret")
    hub.fault.response = SimpleNamespace(status_code=401)
    done = run("push", mine, "me/net")
    assert done.exit_code == 1
    assert "a token that may write is needed: hf auth login" in done.stderr
    assert "s3cret" not in done.output


@pytest.mark.parametrize("words", [("push", "mine", "net"), ("pull", "a/b/c", "--out", "x")])
def test_what_is_no_hub_id_is_told(words):
    done = run(*words)
    assert done.exit_code == 2
    assert "expected a hub id, user/name" in done.stderr


def test_texts_of_others_do_nothing_on_the_page():
    card = Card(
        architecture="unet",
        config={},
        classes=("<img src=x>", "a](http://b)"),
        palette=((0, 0, 0), (1, 1, 1)),
        licence="x\n---\n# y",
    )
    page = model_page(card, "me/net")
    assert yaml.safe_load(page.split("---\n")[1])["license"] == "other"
    assert "<img" not in page.replace(r"\<img", "")
    assert "a](http" not in page
    assert page.count("\n# ") == 1
