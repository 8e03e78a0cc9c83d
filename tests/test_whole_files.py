"""segatlas.files."""

from __future__ import annotations

import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segatlas import files
from segatlas.errors import DataError, UsageError, WeightsError
from segatlas.files import near_paths, read_text, sha256, sweep_leftovers, whole_file, whole_folder

DEAD = 2**22 + 1
"""No process has this number: it is above the highest that Linux gives."""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def leftover(place: Path, kind: str = "tmp", *, process: int = DEAD, machine: str | None = None) -> Path:
    """Return the name that a process would have left of `place`."""
    return place.with_name(f".{place.name}.{machine or files._machine()}-{process}-0123abcd.{kind}")


def make_old(path: Path) -> None:
    then = time.time() - files.ABANDONED_SECONDS - 60
    os.utime(path, (then, then))


# ---- files
@pytest.mark.parametrize("durable", [True, False])
def test_a_file_has_its_name_only_when_all_of_it_is_there(tmp_path, durable):
    target = tmp_path / "in" / "a.txt"
    with whole_file(target, durable=durable) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.parent == target.parent
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]


def write_text(path, text, fault=None):
    with whole_file(path) as temporary:
        temporary.write_text(text)
        if fault:
            raise fault


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (ValueError("x"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), DataError),
    ],
)
def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path, fault, seen):
    target = tmp_path / "a.txt"
    write_text(target, "earlier")
    with pytest.raises(seen):
        write_text(target, "half", fault)
    assert target.read_text() == "earlier"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("kind", [DataError, WeightsError, UsageError])
def test_the_caller_chooses_the_error_and_it_names_the_file(tmp_path, kind):
    (tmp_path / "in").write_text("a file")
    with (
        pytest.raises(kind, match=r"in/a\.txt: cannot be written: Not a directory"),
        whole_file(tmp_path / "in/a.txt", error=kind),
    ):
        raise AssertionError


def test_another_file_at_fault_is_named(tmp_path):
    said = r"out\.txt: cannot be written: No such file or directory \(.*missing"
    with pytest.raises(DataError, match=said), whole_file(tmp_path / "out.txt"):
        (tmp_path / "missing").read_bytes()


def test_the_mode_is_the_umasks_whatever_the_writer_made_of_it(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a") as temporary:
            other = tmp_path / "b"
            other.touch(mode=0o600)
            other.replace(temporary)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_many_threads_that_write_one_file_all_succeed(tmp_path):
    def write(number):
        with whole_file(tmp_path / "a", durable=False) as temporary:
            temporary.write_text(str(number) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(200)))
    text = (tmp_path / "a").read_text()
    assert text == text[: len(text) // 1000] * 1000
    assert names(tmp_path) == ["a"]


def test_a_link_to_a_file_becomes_a_file_and_what_it_named_stays(tmp_path):
    (tmp_path / "store").write_text("kept")
    (tmp_path / "a").symlink_to("store")
    with whole_file(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "store").read_text() == "kept"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with whole_file(pipe) as temporary:
        temporary.write_text("through")
    reader.join()
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127])
def test_a_name_of_the_greatest_length_can_be_written(tmp_path, name):
    with whole_file(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == [name]


# ---- folders
def test_a_folder_has_its_name_only_when_all_of_it_is_there(tmp_path):
    target = tmp_path / "in" / "set"
    with whole_folder(target) as fresh:
        (fresh / "masks").mkdir()
        (fresh / "masks/a").write_text("x")
        assert not target.exists()
    assert (target / "masks/a").read_text() == "x"
    assert names(tmp_path / "in") == ["set"]


def test_an_empty_folder_is_filled_and_a_full_one_refused(tmp_path):
    (tmp_path / "set").mkdir()
    with whole_folder(tmp_path / "set") as fresh:
        (fresh / "a").write_text("x")
    with (
        pytest.raises(WeightsError, match="set: cannot be written"),
        whole_folder(tmp_path / "set", error=WeightsError) as fresh,
    ):
        (fresh / "b").write_text("x")
    assert names(tmp_path / "set") == ["a"]
    assert names(tmp_path) == ["set"]


def test_a_replaced_folder_keeps_the_files_that_the_new_one_lacks(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    for name in ("weights", "notes"):
        (target / name).write_text("old")
    (tmp_path / "link").symlink_to("model")
    with whole_folder(tmp_path / "link", replace=True) as fresh:
        (fresh / "weights").write_text("new")
    assert {name: (target / name).read_text() for name in names(target)} == {"weights": "new", "notes": "old"}
    assert names(tmp_path) == ["link", "model"]
    assert (tmp_path / "link").is_symlink()


def test_a_folder_that_cannot_take_its_place_leaves_the_earlier_one(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    rename = Path.rename

    def failing(self, other):
        if self.name.endswith(".tmp") and not target.exists():
            raise KeyboardInterrupt
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt), whole_folder(target, replace=True) as fresh:
        (fresh / "weights").write_text("new")
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "model").write_text("a file")
    said = "model: cannot be written: Not a directory"
    with pytest.raises(DataError, match=said), whole_folder(tmp_path / "model", replace=True):
        pass
    assert names(tmp_path) == ["model"]


def test_many_threads_that_write_one_folder_all_succeed(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/notes").write_text("mine")

    def write(number):
        with whole_folder(tmp_path / "model", replace=True, durable=False) as fresh:
            for name in ("card", "weights"):
                (fresh / name).write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert (tmp_path / "model/card").read_text() == (tmp_path / "model/weights").read_text()
    assert (tmp_path / "model/notes").read_text() == "mine"
    assert names(tmp_path) == ["model"]


# ---- leftovers
def test_leftovers_of_dead_processes_go_and_all_else_stays(tmp_path):
    place = tmp_path / "model"
    gone = [leftover(place), leftover(tmp_path / "last.ckpt"), leftover(place, process=os.getpid())]
    kept = [
        leftover(place, process=os.getppid()),
        leftover(place, machine="abcdef"),
        tmp_path / ".model.new-0123abcd",
        tmp_path / ".mine.tmp",
        tmp_path / "model.tmp",
        tmp_path / ".git",
    ]
    for path in gone[:1] + kept[:1] + kept[2:3]:
        path.mkdir()
        (path / "weights").write_text("half")
    for path in gone[1:] + kept[1:2] + kept[3:]:
        path.write_text("half")
    assert sorted(sweep_leftovers(tmp_path)) == sorted(gone)
    assert names(tmp_path) == sorted(path.name for path in kept)


def test_leftovers_of_which_nothing_is_known_go_after_a_day(tmp_path):
    gone = [leftover(tmp_path / "a", machine="abcdef"), leftover(tmp_path / "b", process=os.getppid())]
    gone += [tmp_path / ".model.new-0123abcd", tmp_path / ".a.txt.77.tmp"]
    for path in gone:
        path.touch()
        make_old(path)
    busy = leftover(tmp_path / "c", machine="abcdef")
    busy.mkdir()
    (busy / "recent").touch()
    make_old(busy)
    sweep_leftovers(tmp_path)
    assert names(tmp_path) == [busy.name]


def test_what_is_being_written_is_no_leftover(tmp_path):
    with whole_file(tmp_path / "a") as one, whole_folder(tmp_path / "b") as two:
        assert sweep_leftovers(tmp_path) == []
        assert one.exists()
        assert two.exists()


def test_the_next_writing_of_a_folder_removes_its_leftovers_and_no_others(tmp_path):
    mine, other = leftover(tmp_path / "model"), leftover(tmp_path / "other")
    mine.mkdir()
    other.mkdir()
    with whole_folder(tmp_path / "model", replace=True):
        assert not mine.exists()
    assert names(tmp_path) == [other.name, "model"]


@pytest.mark.parametrize("arrived", [False, True], ids=["before the new one came", "after"])
def test_a_folder_moved_aside_by_a_killed_process_comes_back(tmp_path, arrived):
    place = tmp_path / "model"
    old = leftover(place, "old")
    old.mkdir()
    (old / "weights").write_text("old")
    (old / "notes").write_text("mine")
    if arrived:
        place.mkdir()
        (place / "weights").write_text("new")
    sweep_leftovers(tmp_path)
    assert (place / "weights").read_text() == ("new" if arrived else "old")
    assert (place / "notes").read_text() == "mine"
    assert names(tmp_path) == ["model"]


# ---- reading
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_is_utf8_with_or_without_a_mark(tmp_path, mark):
    (tmp_path / "a").write_bytes(mark + "straße\r\nМир\rend".encode())
    assert read_text(tmp_path / "a") == "straße\nМир\nend"


@pytest.mark.parametrize(
    ("content", "offset", "kind"),
    [
        ("road\nstraße".encode("latin-1"), 9, "Latin-1"),
        (b"\xef\xbb\xbfroad\xe9", 7, "Latin-1"),
        ("road".encode("utf-16"), 0, "UTF-16;"),
        ("road".encode("utf-16-le"), 1, "UTF-16 without"),
        ("road".encode("utf-16-be"), 0, "UTF-16 without"),
        ("road".encode("utf-32"), 0, "UTF-32"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 0, "a binary file"),
        (b"road\0tree and more", 4, "a binary file"),
    ],
)
def test_text_that_is_not_utf8_is_refused_with_its_place_and_kind(tmp_path, content, offset, kind):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_text(tmp_path / "classes.txt", error=WeightsError)
    assert f"classes.txt: is not text in UTF-8 (byte 0x{content[offset]:02x} at offset {offset})" in str(caught.value)
    assert f"seems to be {kind}" in str(caught.value)


def test_a_missing_a_huge_and_an_unreadable_text_are_named(tmp_path):
    with pytest.raises(DataError, match="none: no such file"):
        read_text(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    with open(tmp_path / "huge", "wb") as stream:
        stream.truncate(1001)
    with pytest.raises(DataError, match="huge: is larger than 1000 bytes"):
        read_text(tmp_path / "huge", most_bytes=1000)


def test_the_hash_of_a_file_is_its_content_s(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")
    with pytest.raises(WeightsError, match="none: cannot be read"):
        sha256(tmp_path / "none", error=WeightsError)


def test_near_paths_replace_the_parts_that_are_missing(tmp_path, monkeypatch):
    for name in ("runs/semantic/unet_folder-001", "runs/semantic/unet_folder-002", "runs/instance/last", "photos"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs/semantic/last").symlink_to(tmp_path / "runs/semantic/unet_folder-002")
    monkeypatch.chdir(tmp_path)
    assert near_paths("runs/semantic/lst") == [Path("runs/semantic/last")]
    assert near_paths("run/semantic/last") == [Path("runs/semantic/last")]
    assert near_paths("run/semntic/unet_foldr-001")[0] == Path("runs/semantic/unet_folder-001")
    assert near_paths(tmp_path / "fotos") == [tmp_path / "photos"]
    assert near_paths("photos") == near_paths("wholly-different") == near_paths("photos/a/b") == []
