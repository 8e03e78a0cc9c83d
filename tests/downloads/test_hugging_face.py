"""segatlas.downloads.hugging_face, with a hub that is a folder on this disk."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.build.starting import start_from
from segatlas.downloads import hugging_face as hub_module
from segatlas.downloads.hugging_face import fetch_file, fetch_folder
from segatlas.errors import WeightsError
from segatlas.hub.loading import find_start, load_pretrained
from segatlas.training import building

WEIGHTS = "model.safetensors"


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
    said = r"downloads are off \(--offline, SEGATLAS_OFFLINE or HF_HUB_OFFLINE\)"
    for fetch in (load_pretrained, find_start, partial(fetch_folder, names=("card.json",))):
        with pytest.raises(WeightsError, match=said):
            fetch("user/net")
    said = r"encoder_weights = 'imagenet': .* is not on this disk, and downloads are off .*give a file instead"
    with pytest.raises(WeightsError, match=said):
        create_model("unet", num_classes=2, encoder="resnet18", encoder_weights="imagenet")
    hub.cached = True
    assert load_pretrained("user/net")[1].classes == ("sky", "road")
    assert fetch_file("user/net", "card.json").is_file()


def test_a_recipes_start_from_may_be_a_hub_id_and_start_from_itself_says_who_fetches_it(hub):
    net = create_model("unet", num_classes=2, width=4)
    report = building._start_from(net, "user/net", partial=False)
    assert report is not None
    assert report.card is not None
    assert report.card.classes == ("sky", "road")
    with pytest.raises(WeightsError, match=r"user/net: no such file or folder; .* fetched by .*find_start"):
        start_from(net, "user/net")


def test_offline_of_one_call_holds_for_hub_ids_too(hub):
    hub.connected = False
    with pytest.raises(WeightsError, match="downloads are off"):
        load_pretrained("user/net", offline=True)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("LocalEntryNotFoundError", "no connection to the hub"),
        ("RepositoryNotFoundError", "the hub has no such repository, or it is a private one"),
        ("GatedRepoError", "its owner asks for consent"),
    ],
)
def test_faults_of_the_hub_that_are_known_are_told_in_plain_words(hub, monkeypatch, kind, told):
    error = getattr(huggingface_hub.errors, kind)

    def fail(*args, **kwargs):
        raise error.__new__(error, "Got: ConnectError: [Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(WeightsError, match=rf"as a hub id it cannot be fetched \({told}[^()]*\)$") as caught:
        load_pretrained("nvidia/segformer-b0")
    assert "Error" not in str(caught.value)


def test_what_the_hub_says_of_an_address_shows_no_password(hub, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no route to https://me:s3cret@mirror/user/net?token=s3cret now")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(WeightsError) as caught:
        load_pretrained("user/net")
    assert "no route to https://***@mirror/user/net?*** now" in str(caught.value)


# ---- the real client, and a hub on this machine
@contextmanager
def hub_on_this_machine(monkeypatch, tmp_path, content: bytes, *, fault: str = ""):
    """Serve one file as the hub does, `announced` too large or `endless` on demand; yield what was sent of it."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head(endless=False)

        def do_GET(self) -> None:
            if self.path.startswith("/api/"):
                self._list()
                return
            self._head(endless=fault == "endless")
            with suppress(OSError):  # cut off, as it should be
                for _ in range(1000 if fault == "endless" else 1):
                    self.wfile.write(content)
                    sent.append(len(content))

        def _list(self) -> None:
            files = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in ("card.json", WEIGHTS)]
            info = {"id": "user/net", "sha": "0" * 40, "siblings": [{"rfilename": file["path"]} for file in files]}
            answer = json.dumps(files if "/tree/" in self.path else info).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _head(self, *, endless: bool) -> None:
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            if not endless:
                self.send_header("Content-Length", str(1 << 20 if fault == "announced" else len(content)))
            self.end_headers()
            self.close_connection = True

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    for name in ("HF_HUB_OFFLINE", "SEGATLAS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("hf_hub_download", "snapshot_download"):
        here = partial(getattr(huggingface_hub, name), endpoint=address, cache_dir=tmp_path / "cache")
        monkeypatch.setattr(huggingface_hub, name, here)
    try:
        yield sent
    finally:
        server.shutdown()
        server.server_close()


def largest_in(folder: Path) -> int:
    return max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)


def test_a_file_of_the_hub_within_its_bound_is_fetched(tmp_path, monkeypatch):
    with hub_on_this_machine(monkeypatch, tmp_path, bytes(5000)):
        assert fetch_file("user/net", WEIGHTS, most_bytes=5000).read_bytes() == bytes(5000)


def test_a_file_of_the_hub_that_announces_too_much_is_refused_before_its_first_byte(tmp_path, monkeypatch):
    with hub_on_this_machine(monkeypatch, tmp_path, bytes(5000), fault="announced"):
        said = r"user/net/model\.safetensors on the hub announces 1048576 bytes, at most 6000 are taken"
        with pytest.raises(WeightsError, match=said):
            fetch_file("user/net", WEIGHTS, most_bytes=6000)
    assert largest_in(tmp_path / "cache") < 5000


def test_an_endless_file_of_the_hub_stops_at_its_bound_and_is_removed(tmp_path, monkeypatch):
    block = bytes(100_000)
    with hub_on_this_machine(monkeypatch, tmp_path, block, fault="endless") as sent:
        with pytest.raises(WeightsError, match="sends more than 250000 bytes"):
            fetch_file("user/net", WEIGHTS, most_bytes=250_000)
        assert len(sent) < 1000
    assert largest_in(tmp_path / "cache") < len(block)


def test_an_endless_model_folder_of_the_hub_stops_at_the_bound_for_any_file(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_module, "MOST_BYTES", 250_000)
    block = bytes(100_000)
    with hub_on_this_machine(monkeypatch, tmp_path, block, fault="endless") as sent:
        with pytest.raises(WeightsError, match="user/net on the hub sends more than 250000 bytes"):
            load_pretrained("user/net")
        assert len(sent) < 2000
    assert largest_in(tmp_path / "cache") < len(block)
