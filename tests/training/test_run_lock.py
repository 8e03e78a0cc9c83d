"""One run folder, one training: the lock is the system's, so it goes with its process and blocks nobody for ever."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from segatlas.errors import UsageError
from segatlas.training import run_lock
from segatlas.training.run_lock import LOCK_FILE, RunLock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")


@pytest.fixture
def started():
    """Return a function that runs another in a forked process, waits until it is done there, and gives its number."""
    processes: list[int] = []

    def start(action: Callable[[], None]) -> int:
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                action()
                os.write(writer, b"1")
                signal.pause()
            finally:
                os._exit(1)
        processes.append(process)
        assert os.read(reader, 1) == b"1"
        os.close(reader)
        os.close(writer)
        return process

    yield start
    for process in processes:
        kill(process)


def kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def is_free(folder: Path) -> bool:
    lock = RunLock()
    try:
        lock.take(folder)
    except UsageError:
        return False
    lock.release()
    return True


def test_the_second_training_is_told_who_is_at_work_and_since_when(tmp_path, started):
    process = started(lambda: RunLock().take(tmp_path))
    with pytest.raises(UsageError) as caught:
        RunLock().take(tmp_path)
    text = str(caught.value)
    assert f"{tmp_path} is in use: process {process} on {os.uname().nodename} trains there since 20" in text
    assert "choose another run.dir" in text
    with pytest.raises(UsageError, match=f"process {process} "):  # asking has not wiped the words
        RunLock().take(tmp_path)


def test_two_trainings_of_one_process_are_kept_apart_too(tmp_path):
    lock = RunLock()
    lock.take(tmp_path)
    assert not is_free(tmp_path)
    lock.release()
    assert is_free(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_training_leaves_its_folder_free(tmp_path, started):
    process = started(lambda: RunLock().take(tmp_path))
    assert not is_free(tmp_path)
    kill(process)
    assert (tmp_path / LOCK_FILE).exists()
    assert is_free(tmp_path)


def test_a_loader_process_that_outlives_a_killed_training_does_not_hold_its_folder(tmp_path, started):
    loader = tmp_path / "loader"

    def train_with_a_loader() -> None:
        RunLock().take(tmp_path)
        process = os.fork()
        if process == 0:
            signal.pause()
            os._exit(1)
        loader.write_text(str(process))

    training = started(train_with_a_loader)
    assert not is_free(tmp_path)
    kill(training)
    os.kill(int(loader.read_text()), 0)  # it is still there
    try:
        assert is_free(tmp_path)
    finally:
        os.kill(int(loader.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    "left_over", ["", "{", '{"process": "x"}', "null", '{"process": 1, "host": "a", "since": "b"}']
)
def test_a_lock_file_that_nobody_holds_means_nothing_whatever_it_says(tmp_path, left_over):
    (tmp_path / LOCK_FILE).write_text(left_over)
    assert is_free(tmp_path)


def test_words_that_cannot_be_read_are_left_out_of_the_message(tmp_path):
    lock = RunLock()
    lock.take(tmp_path)
    (tmp_path / LOCK_FILE).write_text('{"process": "\x1b[31m"}')
    with pytest.raises(UsageError, match="is in use: another process trains there"):
        RunLock().take(tmp_path)
    lock.release()


def test_a_file_removed_between_opening_and_locking_is_opened_anew(tmp_path, monkeypatch):
    original, lock = run_lock._lock, RunLock()

    def lock_after_its_removal(file: int) -> None:
        original(file)
        monkeypatch.setattr(run_lock, "_lock", original)
        (tmp_path / LOCK_FILE).unlink()

    monkeypatch.setattr(run_lock, "_lock", lock_after_its_removal)
    lock.take(tmp_path)
    assert not is_free(tmp_path)
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_training_goes_on(tmp_path, monkeypatch, caplog, number):
    def no_locks(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_lock, "_lock", no_locks)
    lock = RunLock()
    lock.take(tmp_path)
    assert f"no lock on {tmp_path}" in caplog.text
    assert "nothing keeps a second training out of it" in caplog.text
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        RunLock().take(tmp_path / "nothing")
