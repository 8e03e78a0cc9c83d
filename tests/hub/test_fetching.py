"""segatlas.hub.fetching, with a tiny checkpoint in MMSegmentation's layout on a server on this machine."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fakes.web import serving

import segatlas as sa
from segatlas.build.network import build_network, make_config
from segatlas.cache import cache_folder
from segatlas.conversion.converting import tensors_of
from segatlas.downloads import http
from segatlas.errors import WeightsError
from segatlas.hub import catalogue, fetching
from segatlas.hub.catalogue import NON_COMMERCIAL, Published

CLASSES = ("sky", "road", "tree")


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    """A PSPNet with a norm and classifier of its own, as MMSegmentation 0.x saves it."""
    torch.manual_seed(0)
    fields = {
        "num_classes": 3,
        "encoder": "resnet18c",
        "channels": 4,
        "encoder_options": {"basic_conv2_dilated": False},
    }
    net = build_network(*make_config("pspnet", fields))
    state = tensors_of("mmseg", "pspnet", net.config, net.state_dict())
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "meta": {"CLASSES": CLASSES}}, buffer)
    return buffer.getvalue()


@pytest.fixture
def web(checkpoint, tmp_path, monkeypatch):
    """The server, with the catalogue reduced to its one file."""
    sha256 = hashlib.sha256(checkpoint).hexdigest()[:8]
    entry = Published(
        name="pspnet-tiny-shapes",
        file="pspnet_tiny",
        architecture="pspnet",
        dataset="shapes",
        config="pspnet_tiny_config",
        url=f"{fetching.HOST}some/folder/pspnet_tiny-{sha256}.pth",
        sha256=sha256,
        numbers=len(checkpoint) // 4,
        miou=50.0,
        miou_ms_flip=51.0,
        licence="Apache-2.0",
    )
    other = Published(**{**vars(entry), "name": "mit-tiny", "file": "mit_tiny", "licence": NON_COMMERCIAL})
    monkeypatch.setattr(catalogue, "published", lambda: (entry, other))
    monkeypatch.setattr(http, "PAUSE", 0.0)
    monkeypatch.setenv("SEGATLAS_CACHE", str(tmp_path / "cache"))
    with serving(checkpoint) as server:
        monkeypatch.setenv("SEGATLAS_MIRROR", f"{server.url}/mirror")
        yield server


def test_a_name_is_downloaded_from_the_mirror_converted_once_and_then_found_offline(web):
    predictor = sa.load("pspnet-tiny-shapes")
    assert predictor.card.classes == CLASSES
    assert predictor.card.licence == "Apache-2.0"
    assert predictor.card.metric["miou"] == 0.5
    assert [path.startswith("/mirror/some/folder/pspnet_tiny-") for path, _ in web.requests] == [True]
    again = sa.load("pspnet_tiny", offline=True)
    assert len(web.requests) == 1
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again.scores(x), predictor.scores(x))


def test_offline_says_where_to_put_the_file_and_takes_it_from_there(web, checkpoint):
    with pytest.raises(WeightsError, match=r"downloads are off; get https://.*put it at .*downloads/pspnet_tiny"):
        sa.load("pspnet-tiny-shapes", offline=True)
    entry = catalogue.published()[0]
    file = cache_folder("downloads") / entry.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    file.write_bytes(checkpoint[:1000])
    with pytest.raises(WeightsError, match=r"sha256 begins with .* incomplete or another one: delete it"):
        sa.load("pspnet-tiny-shapes", offline=True)
    file.write_bytes(checkpoint)
    assert sa.load("pspnet-tiny-shapes", offline=True).card.architecture == "pspnet"
    assert web.requests == []


@pytest.mark.parametrize(("value", "off"), [("1", True), ("yes", True), ("2", True), ("0", False), ("", False)])
def test_the_environment_switches_downloads_off_unless_it_says_0(web, monkeypatch, value, off):
    monkeypatch.setenv("SEGATLAS_OFFLINE", value)
    if off:
        with pytest.raises(WeightsError, match="downloads are off"):
            sa.load("pspnet-tiny-shapes")
    else:
        assert sa.load("pspnet-tiny-shapes").card.classes == CLASSES
    assert len(web.requests) == (0 if off else 1)


def test_several_threads_that_load_one_name_fetch_and_convert_it_once(web, monkeypatch):
    made, convert = [], fetching.convert_file
    monkeypatch.setattr(fetching, "convert_file", lambda *args, **facts: made.append(1) or convert(*args, **facts))
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: fetching.fetch_published("pspnet-tiny-shapes"), range(4)))
    assert len(folders) == len(made) == len(web.requests) == 1


def test_a_mirrors_password_and_token_reach_neither_log_nor_message_nor_card(web, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    address = web.url.replace("://", "://me:s3cret@")
    monkeypatch.setenv("SEGATLAS_MIRROR", f"{address}/mirror/?token=s3cret")
    web.faults = [404]
    with pytest.raises(WeightsError) as caught:
        sa.load("pspnet-tiny-shapes")
    web.faults = [503]
    folder = fetching.fetch_published("pspnet-tiny-shapes")
    assert web.requests[-1][0].startswith("/mirror/some/folder/pspnet_tiny-")
    assert web.requests[-1][0].endswith(".pth?token=s3cret")
    shown = str(caught.value) + caplog.text + (folder / "card.json").read_text()
    assert "***@127.0.0.1" in shown
    assert "s3cret" not in shown


def test_a_failed_download_names_the_address_and_leaves_no_model(web):
    web.faults = [404]
    with pytest.raises(WeightsError, match=r"pspnet-tiny-shapes: .*answers 404.*by other means"):
        sa.load("pspnet-tiny-shapes")
    assert not cache_folder("models").exists()


@pytest.mark.parametrize(
    ("fault", "said"), [("endless", "sends more than {} bytes"), ("huge", "announces 1099511627776 bytes, at most {} ")]
)
def test_a_file_larger_than_its_own_network_can_be_is_refused_and_removed(web, monkeypatch, fault, said):
    monkeypatch.setattr(http, "OTHER_BYTES", 1000)
    address = web.url.replace("://", "://me:s3cret@")
    monkeypatch.setenv("SEGATLAS_MIRROR", f"{address}/mirror")
    entry = Published(**{**vars(catalogue.published()[0]), "numbers": 5000})
    monkeypatch.setattr(catalogue, "published", lambda: (entry,))
    written = sizes_while_written(monkeypatch)
    web.faults = [fault]
    with pytest.raises(WeightsError, match=said.format(16 * 5000 + 1000)) as caught:
        sa.load("pspnet-tiny-shapes")
    assert "***@127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "use another server; get https://download.openmmlab.com/" in str(caught.value)
    assert max(written, default=0) <= 16 * 5000 + 1000
    assert bool(written) == (fault == "endless")
    assert not list(cache_folder("downloads").glob("[!.]*"))
    assert not cache_folder("models").exists()


def sizes_while_written(monkeypatch) -> list[int]:
    """Return a list that gets the size of the part file whenever a download reports its progress."""
    written: list[int] = []
    copy = http._copy

    def watched(response, out, watch, done, whole, most_bytes, report):
        return copy(response, out, watch, done, whole, most_bytes, lambda *_: written.append(out.tell()))

    monkeypatch.setattr(http, "_copy", watched)
    return written


def test_weights_that_forbid_commercial_use_are_refused_when_that_is_asked_for(web, monkeypatch):
    with pytest.raises(WeightsError, match=r"mit-tiny: refused.*non-commercial"):
        sa.load("mit-tiny", commercial_ok=True)
    monkeypatch.setenv("SEGATLAS_COMMERCIAL_OK", "1")
    with pytest.raises(WeightsError, match="refused"):
        sa.load("mit-tiny")
    assert sa.load("pspnet-tiny-shapes").card.licence == "Apache-2.0"


def test_a_name_that_nearly_is_one_gets_the_nearest(web):
    with pytest.raises(WeightsError, match=r"pspnet-tiny-shape: no such file or folder; .* pspnet-tiny-shapes"):
        sa.load("pspnet-tiny-shape")
