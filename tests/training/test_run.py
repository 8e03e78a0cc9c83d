import os
from pathlib import Path

import pytest

from segatlas.config.schema import Config
from segatlas.errors import SegAtlasError, UsageError
from segatlas.training.run import find_run, link_last
from segatlas.training.run import make_run_folder as make
from segatlas.training.run_lock import RunLock


def config(**run: object) -> Config:
    return Config.model_validate({"run": run})


def make_run_folder(config):
    """Make a run folder; the run ends at once."""
    lock = RunLock()
    try:
        return make(config, lock)
    finally:
        lock.release()


def test_runs_are_numbered_and_last_points_to_the_newest(tmp_path: Path):
    first = make_run_folder(config(root=str(tmp_path), name="net"))
    second = make_run_folder(config(root=str(tmp_path), name="net"))
    assert [first.root.name, second.root.name] == ["net-001", "net-002"]
    assert not (tmp_path / "semantic" / "last").exists()  # neither has begun
    for folder in (first, second):
        link_last(folder, config(root=str(tmp_path), name="net"))
    assert (tmp_path / "semantic" / "last").resolve() == second.root.resolve()


def test_a_discarded_run_takes_what_it_made_with_it_and_nothing_else(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    for run, left in (
        ({"root": str(tmp_path / "a" / "b"), "name": "net"}, ["mine", "mine/notes.txt"]),
        ({"dir": str(tmp_path / "c" / "d")}, ["mine", "mine/notes.txt"]),
        ({"dir": str(tmp_path / "mine")}, ["mine", "mine/notes.txt"]),
    ):
        lock = RunLock()
        folder = make(config(**run), lock)
        for path in (folder.config, folder.last, folder.root / "tensorboard"):
            path.write_text("")
        folder.discard(lock)
        assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == left


def test_run_dir_is_taken_literally_and_an_earlier_run_there_is_never_overwritten(tmp_path: Path):
    place = tmp_path / "here"
    folder = make_run_folder(config(dir=str(place), root=str(tmp_path)))
    folder.config.write_text("seed: 0\n")
    with pytest.raises(UsageError, match="already holds a run"):
        make_run_folder(config(dir=str(place), root=str(tmp_path)))
    assert make_run_folder(config(dir=str(place), root=str(tmp_path), exist_ok=True)).root == place


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegAtlasError, match="cannot write the run folder"):
        make_run_folder(config(dir=str(tmp_path / "file" / "run")))


def test_resume_finds_last_a_folder_or_a_checkpoint(tmp_path: Path):
    folder = make_run_folder(config(root=str(tmp_path), name="net"))
    link_last(folder, config(root=str(tmp_path)))
    folder.config.write_text("seed: 0\n")
    for where in ("last", folder.root, folder.last):
        assert find_run(where, root=str(tmp_path)).root == folder.root.resolve()


def test_resuming_what_is_not_a_run_is_a_clear_error(tmp_path: Path):
    with pytest.raises(UsageError, match="not a run folder"):
        find_run(tmp_path)


def test_the_last_run_is_the_newest_of_any_task(tmp_path: Path):
    first = make_run_folder(config(root=str(tmp_path), name="net"))
    other = Config.model_validate({"run": {"root": str(tmp_path), "name": "net"}, "task": "instance"})
    link_last(first, config(root=str(tmp_path)))
    os.utime(tmp_path / "semantic" / "last", (0, 0), follow_symlinks=False)  # the clock of links is coarse
    second = make_run_folder(other)
    link_last(second, other)
    second.config.write_text("seed: 0\n")
    assert second.root.parent == tmp_path / "instance"
    assert second.root != first.root
    assert find_run("last", root=str(tmp_path)).root == second.root.resolve()


def test_a_run_named_by_a_relative_path_keeps_one_without_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = config(root="runs", name="net")
    folder = make_run_folder(run)
    (folder.root / "config.yaml").write_text("")
    link_last(folder, run)
    assert folder.root == Path("runs/semantic/net-001")
    for where in ("last", "runs/semantic/last", "runs/semantic/net-001/", folder.last):
        assert find_run(where).root == folder.root
    assert find_run(tmp_path / folder.root).root == (tmp_path / folder.root).resolve()
    monkeypatch.chdir(folder.root)
    assert find_run(".").root == Path.cwd()
    monkeypatch.chdir("model" if Path("model").is_dir() else "plots")
    assert find_run("..").root == Path.cwd().parent
