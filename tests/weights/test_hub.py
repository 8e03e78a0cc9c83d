"""segatlas.weights.hub, with a hub that is a folder on this disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import huggingface_hub
import pytest

from segatlas.errors import WeightsError
from segatlas.weights import create_model, load_pretrained, save_pretrained, start_from
from segatlas.weights.hub import fetch_file, fetch_folder


class Hub:
    """Answers as `huggingface_hub` does; `connected` is False where it must not be asked."""

    def __init__(self, folder: Path):
        self.folder, self.connected = folder, True
        self.cached, self.patterns = False, None

    def snapshot_download(self, hub_id, *, allow_patterns, local_files_only):
        self.patterns = allow_patterns
        return self._found(local_files_only)

    def hf_hub_download(self, hub_id, name, *, local_files_only):
        return f"{self._found(local_files_only)}/{name}"

    def _found(self, local_files_only: bool) -> str:
        if local_files_only and not self.cached:
            raise huggingface_hub.errors.LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder")
        if not local_files_only and not self.connected:
            raise AssertionError("the hub was asked")
        return str(self.folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.delenv("SEGATLAS_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    save_pretrained(create_model("unet", num_classes=2, width=4), tmp_path / "hub", classes=["sky", "road"])
    hub = Hub(tmp_path / "hub")
    for name in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(hub, name))
    return hub


def test_of_a_hub_id_the_card_and_the_safetensors_file_are_fetched_and_nothing_else(hub):
    assert load_pretrained("user/net")[1].classes == ("sky", "road")
    assert hub.patterns == ["card.json", "model.safetensors"]


def test_a_repository_that_is_no_model_folder_is_named(hub):
    (hub.folder / "card.json").unlink()
    with pytest.raises(WeightsError, match=r"user/net: has no card\.json: .* is no model folder"):
        load_pretrained("user/net")


@pytest.mark.parametrize(
    ("variable", "value"), [("SEGATLAS_OFFLINE", "1"), ("SEGATLAS_OFFLINE", "please"), ("HF_HUB_OFFLINE", "1")]
)
def test_offline_asks_no_hub_and_says_which_switch_it_was(hub, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    hub.connected = False
    net = create_model("unet", num_classes=2, width=4)
    said = r"downloads are off \(--offline, SEGATLAS_OFFLINE or HF_HUB_OFFLINE\)"
    for fetch in (load_pretrained, fetch_folder, partial(start_from, net)):
        with pytest.raises(WeightsError, match=said):
            fetch("user/net")
    said = r"encoder_weights = 'imagenet': .* is not on this disk, and downloads are off .*give a file instead"
    with pytest.raises(WeightsError, match=said):
        create_model("unet", num_classes=2, encoder="resnet18", encoder_weights="imagenet")
    hub.cached = True
    assert load_pretrained("user/net")[1].classes == ("sky", "road")
    assert fetch_file("user/net", "card.json").is_file()


def test_offline_of_one_call_holds_for_hub_ids_too(hub):
    hub.connected = False
    with pytest.raises(WeightsError, match="downloads are off"):
        load_pretrained("user/net", offline=True)


def test_what_the_hub_says_of_an_address_shows_no_password(hub, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route to https://me:s3cret@mirror/user/net?token=s3cret now")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(WeightsError) as caught:
        load_pretrained("user/net")
    assert "no route to https://***@mirror/user/net?*** now" in str(caught.value)
