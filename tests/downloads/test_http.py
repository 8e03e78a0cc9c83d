"""segatlas.downloads.http, against a server on this machine."""

from __future__ import annotations

import hashlib
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from fakes.web import serving

from segatlas.downloads import http
from segatlas.downloads.http import download
from segatlas.errors import WeightsError

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(http, "PAUSE", 0.0)
    monkeypatch.setattr(http, "TIMEOUT", 0.3)


def there(folder):
    """Return what is in a folder, without locks."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock"))


def fetch(web, folder, **options):
    return download(f"{web.url}/some/weights.pth", folder / "in" / "weights.pth", sha256=SHA256[:8], **options)


def test_a_file_arrives_whole_and_its_progress_is_told(tmp_path):
    seen = []
    with serving(CONTENT) as web:
        file = fetch(web, tmp_path, report=lambda done, whole: seen.append((done, whole)))
    assert file.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert there(file.parent) == ["weights.pth"]


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
    assert there(tmp_path / "in") == []


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


@pytest.mark.parametrize("name", ["weights.pth.part", "weights.pth", ".weights.pth.lock"])
def test_a_folder_in_the_way_is_named_before_anything_is_fetched(tmp_path, name):
    (tmp_path / "in" / name).mkdir(parents=True)
    (tmp_path / "in" / name / "mine").write_text("kept")
    with serving(CONTENT) as web:
        with pytest.raises(WeightsError, match=rf"/in/{re.escape(name)}: a folder is in the way .* move or delete it"):
            fetch(web, tmp_path)
        assert web.requests == []
    assert (tmp_path / "in" / name / "mine").read_text() == "kept"


# ---- servers that mean no good
@pytest.mark.parametrize("fault", ["drip", "drip headers"])
def test_a_server_that_drips_is_cut_off_and_what_came_is_kept(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(http, "WINDOW", 0.3)
    with serving(CONTENT) as web:
        web.faults = [fault] * http.ATTEMPTS
        with pytest.raises(WeightsError, match=r"after 4 attempts \(too slow: \d+ bytes in 0.3 seconds"):
            fetch(web, tmp_path)
        assert fetch(web, tmp_path).read_bytes() == CONTENT
        assert (web.requests[-1][1] is None) == (fault == "drip headers")


def test_an_endless_body_is_cut_off_and_removed(tmp_path):
    with serving(CONTENT) as web:
        web.faults = ["endless"]
        with pytest.raises(WeightsError, match="sends more than 200000 bytes"):
            fetch(web, tmp_path, most_bytes=200_000)
        assert len(web.requests) == 1
    assert there(tmp_path / "in") == []


def test_a_file_larger_than_any_or_than_the_disk_is_refused_before_a_byte_is_written(tmp_path):
    for most, word in ((http.MOST_BYTES, "at most 17179869184 are taken"), (1 << 50, "no room: 1099511627776")):
        with serving(CONTENT) as web:
            web.faults = ["huge"]
            with pytest.raises(WeightsError, match=word):
                fetch(web, tmp_path, most_bytes=most)
        assert there(tmp_path / "in") == []


def test_a_part_that_is_larger_than_the_bound_is_removed_and_fetched_anew(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/weights.pth.part").write_bytes(bytes(200_001))
    with serving(CONTENT) as web:
        assert fetch(web, tmp_path, most_bytes=200_000).read_bytes() == CONTENT
        assert web.requests == [("/some/weights.pth", None)]


def test_a_resumed_download_counts_what_is_there_already(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/weights.pth.part").write_bytes(CONTENT[:90_000])
    with serving(CONTENT) as web, pytest.raises(WeightsError, match=f"announces {len(CONTENT)} bytes, at most 100000"):
        fetch(web, tmp_path, most_bytes=100_000)
    assert there(tmp_path / "in") == []


def test_a_file_of_exactly_the_bound_is_taken(tmp_path):
    with serving(CONTENT) as web:
        assert fetch(web, tmp_path, most_bytes=len(CONTENT)).read_bytes() == CONTENT


def test_a_server_that_goes_on_from_another_byte_begins_anew(tmp_path):
    with serving(CONTENT) as web:
        web.faults = ["break", "elsewhere"]
        assert fetch(web, tmp_path).read_bytes() == CONTENT
        assert [wanted for _, wanted in web.requests] == [None, f"bytes={len(CONTENT) // 2}-", None]


@pytest.mark.parametrize("scheme", ["file", "ftp", "data"])
def test_a_redirect_to_another_scheme_is_not_followed(tmp_path, scheme):
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    with serving(CONTENT) as web:
        web.faults = [f"{scheme}://{secret}"]
        with pytest.raises(WeightsError, match=rf"redirects to {scheme}:.*not followed"):
            fetch(web, tmp_path)
    assert there(tmp_path / "in") == []


def test_an_address_of_another_scheme_is_refused(tmp_path):
    (tmp_path / "mirror").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="only addresses that begin with http"):
        download(f"file://{tmp_path}/mirror", tmp_path / "x.pth", sha256=SHA256[:8])


# ---- secrets
def test_a_password_is_sent_to_its_server_alone_and_never_shown(tmp_path, caplog):
    caplog.set_level("DEBUG")
    with serving(CONTENT) as other, serving(CONTENT) as web:
        web.faults = [503, f"{other.url}/x?token=s3cret"]
        url = web.url.replace("://", "://me:s3cret%40x@") + "/weights.pth?token=s3cret"
        file = download(url, tmp_path / "weights.pth", sha256=SHA256[:8])
        assert file.read_bytes() == CONTENT
        assert web.authorizations == ["Basic bWU6czNjcmV0QHg="] * 2
        assert other.authorizations == [None]
        web.faults = [404]
        with pytest.raises(WeightsError) as caught:
            download(url, tmp_path / "other.pth", sha256=SHA256[:8])
    shown = caplog.text + str(caught.value)
    assert "503" in shown
    assert "s3cret" not in shown
    assert "***@127.0.0.1" in shown


@pytest.mark.parametrize(
    "url", ["http://me:s3cret@/x", "http://me:s3cret@host:port/x", "http://me:s3/cret@host/x", "x"]
)
def test_an_address_that_is_none_is_said_without_its_password(tmp_path, monkeypatch, url):
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    with pytest.raises(WeightsError) as caught:
        download(url, tmp_path / "x.pth", sha256=SHA256[:8])
    assert "cret" not in str(caught.value)
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "HTTP://me:s3cret@127.0.0.1:1/x",
        "http://me:s3'cret@127.0.0.1:1/x",
        "http://me:s3 cret@127.0.0.1:1/x",
        "http://me:s3\ncret@127.0.0.1:1/x",
        "ftp://me:s3cret@host/x",
        "me:s3cret@host/x",
    ],
)
def test_a_password_is_hidden_whatever_it_holds_and_whatever_scheme_it_follows(tmp_path, monkeypatch, url):
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    with pytest.raises(WeightsError, match=r"//\*\*\*@") as caught:
        download(url, tmp_path / "x.pth", sha256=SHA256[:8])
    assert "cret" not in str(caught.value)


# ---- links, threads, processes
@pytest.mark.parametrize("link", ["symbolic", "hard", "to nothing"])
def test_a_part_that_is_a_link_is_not_written_through(tmp_path, link):
    victim, part = tmp_path / "victim", tmp_path / "in/weights.pth.part"
    part.parent.mkdir()
    if link != "to nothing":
        victim.write_bytes(CONTENT[:1000])
    if link == "hard":
        part.hardlink_to(victim)
    else:
        part.symlink_to(victim)
    with serving(CONTENT) as web:
        assert fetch(web, tmp_path).read_bytes() == CONTENT
        assert web.requests == [("/some/weights.pth", None)]
    assert not (tmp_path / "in/weights.pth").is_symlink()
    assert victim.read_bytes() == CONTENT[:1000] if link != "to nothing" else not victim.exists()


def test_of_many_threads_that_fetch_one_file_one_does_and_all_have_it(tmp_path):
    with serving(CONTENT) as web, ThreadPoolExecutor(6) as pool:
        web.faults = ["break"]
        found = list(pool.map(lambda _: fetch(web, tmp_path).read_bytes(), range(6)))
        assert found == [CONTENT] * 6
        assert len(web.requests) == 2


def test_of_two_processes_that_fetch_one_file_one_does_and_both_have_it(tmp_path):
    with serving(CONTENT) as web:
        web.faults = ["break"]
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            jobs = [pool.submit(download, f"{web.url}/w", tmp_path / "w", sha256=SHA256[:8]) for _ in range(2)]
            assert [job.result(timeout=60).read_bytes() for job in jobs] == [CONTENT] * 2
        assert len(web.requests) == 2
