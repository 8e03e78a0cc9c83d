"""Images at addresses, from a server on this machine."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from fakes.web import FakeWeb, serving
from PIL import Image

from segatlas.data.formats import addresses
from segatlas.data.formats.addresses import fetch_image, is_address, shown_address
from segatlas.data.formats.images import decode_image
from segatlas.downloads import http
from segatlas.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def png(pixels: np.ndarray = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGATLAS_OFFLINE", raising=False)
    monkeypatch.setattr(http, "PAUSE", 0.0)


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    with serving(png()) as server:
        yield server


def kept(tmp_path):
    folder = tmp_path / "cache" / "images"
    return [file for file in folder.iterdir() if not file.name.endswith(".lock")] if folder.is_dir() else []


def test_what_is_an_address_and_how_it_is_shown():
    assert [is_address(one) for one in ("http://h/a.png", "HTTPS://h", "ftp://h/a.png", "a.png", b"http://h")] == [
        *(True, True, False, False, False)
    ]
    assert shown_address("https://me:secret@h/a.png?key=secret#x") == "https://***@h/a.png"


def test_an_image_is_fetched_once_and_taken_from_the_cache_for_a_day(web, tmp_path):
    for _ in range(2):
        assert np.array_equal(decode_image(fetch_image(f"{web.url}/a.png")), PIXELS)
    assert len(web.requests) == 1
    (file,) = kept(tmp_path)
    web.content = png(255 - PIXELS)
    assert np.array_equal(decode_image(fetch_image(f"{web.url}/a.png")), PIXELS)
    old = time.time() - addresses.MOST_AGE - 1
    os.utime(file, (old, old))
    assert np.array_equal(decode_image(fetch_image(f"{web.url}/a.png")), 255 - PIXELS)
    assert np.array_equal(decode_image(fetch_image(f"{web.url}/a.png?other")), 255 - PIXELS)
    assert len(web.requests) == 3


@pytest.mark.parametrize("switch", ["argument", "variable"])
def test_offline_asks_no_server_and_takes_a_copy_of_any_age(web, tmp_path, monkeypatch, switch):
    url = f"{web.url}/a.png"
    if switch == "variable":
        monkeypatch.setenv("SEGATLAS_OFFLINE", "1")
    with pytest.raises(DataError, match=r"/a\.png: downloads are off .* no copy of it is in .*images"):
        fetch_image(url, offline=switch == "argument")
    assert web.requests == []
    monkeypatch.delenv("SEGATLAS_OFFLINE", raising=False)
    fetch_image(url)
    os.utime(*kept(tmp_path), (0, 0))
    monkeypatch.setenv("SEGATLAS_OFFLINE", "1")
    assert fetch_image(url) == web.content
    assert len(web.requests) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>Not found</html>", "is a web page, no image"),
        (b"<!-- hello --> <HTML lang=en>", "is a web page, no image"),
        (b'{"error": 1}', r"is not an image, .* \(it begins with b'\{\"error"),
        (b"", "empty file"),
    ],
)
def test_what_is_no_image_is_told_and_not_kept(web, tmp_path, content, fault):
    web.content = content
    with pytest.raises(DataError, match=fault) as stop:
        fetch_image(f"{web.url}/a.png?key=secret")
    assert "secret" not in str(stop.value)
    assert kept(tmp_path) == []


def test_too_large_a_file_is_refused_before_or_while_it_comes(web, tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "MOST_IMAGE_BYTES", 100_000)
    web.faults = ["huge", "endless"]
    with pytest.raises(DataError, match=r"announces \d+ bytes, at most 100000 are taken$"):
        fetch_image(f"{web.url}/a.png")
    with pytest.raises(DataError, match=r"sends more than 100000 bytes, which is all that is taken$"):
        fetch_image(f"{web.url}/a.png")
    assert kept(tmp_path) == []


def test_a_download_that_breaks_begins_anew_for_the_image_may_be_another_one_by_then(web):
    web.faults = ["break"]
    assert fetch_image(f"{web.url}/a.png") == web.content
    assert [wanted for _, wanted in web.requests] == [None, None]


def test_no_such_file_and_no_server_are_told(web):
    web.faults = [404]
    with pytest.raises(DataError, match=r"/a\.png: the server answers 404"):
        fetch_image(f"{web.url}/a.png")
    with pytest.raises(DataError, match="no connection"):
        fetch_image("http://127.0.0.1:9/a.png")
