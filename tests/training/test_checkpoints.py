"""Signals reach a run's loader processes too, which were forked with its handlers: the run alone decides."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest

from segatlas.config.schema import TrainConfig
from segatlas.training.checkpoints import RunCheckpoints
from segatlas.training.run import RunFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")


def end_of_a_loader_process(folder: Path, number: signal.Signals) -> int:
    """Return how a process ends (0, or minus the signal) that was forked in training and gets a signal of that number.

    It ends with 1 where the run's own line was written in it.
    """
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    logging.getLogger("segatlas").addHandler(handler)
    give_back = RunCheckpoints(RunFolder(root=folder), TrainConfig()).catch_interrupts()
    try:
        process = os.fork()
        if process == 0:
            os.kill(os.getpid(), number)
            os._exit(bool(said))
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    finally:
        give_back()
        logging.getLogger("segatlas").removeHandler(handler)


def test_ctrl_c_is_answered_by_the_run_and_not_by_its_loader_processes_too(tmp_path: Path) -> None:
    assert end_of_a_loader_process(tmp_path, signal.SIGINT) == 0


def test_a_loader_process_that_is_terminated_ends(tmp_path: Path) -> None:
    assert end_of_a_loader_process(tmp_path, signal.SIGTERM) == -signal.SIGTERM
