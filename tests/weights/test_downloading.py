"""segatlas.weights.downloading, against a server on this machine."""

from __future__ import annotations

import hashlib

import pytest
from fakes.web import serving

from segatlas.errors import WeightsError
from segatlas.weights import downloading
from segatlas.weights.downloading import download

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(downloading, "PAUSE", 0.0)
    monkeypatch.setattr(downloading, "TIMEOUT", 0.3)


def fetch(web, folder, **options):
    return download(f"{web.url}/some/weights.pth", folder / "in" / "weights.pth", sha256=SHA256[:8], **options)


def test_a_file_arrives_whole_and_its_progress_is_told(tmp_path):
    seen = []
    with serving(CONTENT) as web:
        file = fetch(web, tmp_path, report=lambda done, whole: seen.append((done, whole)))
    assert file.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [entry.name for entry in file.parent.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("fault", ["break", "stall"])
def test_a_broken_download_goes_on_where_it_stopped(tmp_path, fault):
    with serving(CONTENT) as web:
        web.faults = [fault]
        file = fetch(web, tmp_path)
        ranges = [wanted for _, wanted in web.requests]
    assert file.read_bytes() == CONTENT
    assert ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_server_without_ranges_sends_all_again(tmp_path):
    with serving(CONTENT, ranges=False) as web:
        web.faults = ["break"]
        assert fetch(web, tmp_path).read_bytes() == CONTENT


def test_a_later_call_goes_on_with_what_an_earlier_one_left(tmp_path):
    with serving(CONTENT) as web:
        web.faults = ["break", 503, 503, 503]
        with pytest.raises(WeightsError, match=r"after 4 attempts \(the server answers 503"):
            fetch(web, tmp_path)
        assert not (tmp_path / "in/weights.pth").exists()
        assert fetch(web, tmp_path).read_bytes() == CONTENT
        assert web.requests[-1][1] == f"bytes={len(CONTENT) // 2}-"


def test_a_part_that_is_already_whole_is_checked_and_taken(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/weights.pth.part").write_bytes(CONTENT)
    with serving(CONTENT) as web:
        assert fetch(web, tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_are_thrown_away_and_fetched_anew(tmp_path):
    with serving(CONTENT) as web:
        web.faults = ["corrupt"]
        assert fetch(web, tmp_path).read_bytes() == CONTENT
        assert [wanted for _, wanted in web.requests] == [None, None]


def test_a_file_with_another_hash_leaves_nothing(tmp_path):
    with serving(CONTENT + b"more") as web, pytest.raises(WeightsError, match=rf"sha256 begins with .*{SHA256[:8]}"):
        fetch(web, tmp_path)
    assert list((tmp_path / "in").iterdir()) == []


def test_a_missing_file_is_not_asked_for_twice(tmp_path):
    with serving(CONTENT) as web:
        web.faults = [404]
        with pytest.raises(WeightsError, match=r"/some/weights\.pth: the server answers 404"):
            fetch(web, tmp_path)
        assert len(web.requests) == 1


def test_no_server_at_all_is_said(tmp_path):
    with pytest.raises(WeightsError, match="no connection"):
        download("http://127.0.0.1:9/x.pth", tmp_path / "x.pth", sha256=SHA256[:8])


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "in").write_text("a file")
    with serving(CONTENT) as web, pytest.raises(WeightsError, match="cannot be written"):
        fetch(web, tmp_path)
