"""For all tests: their order; nothing is kept in the user's own decoded store, and the disk seems to have room.

Each line that a command prints with --json is compared with what is published of it, whichever test has it printed.

The plots at the end of a training are left white, but in the tests that look at one: they were a third of the time of
each training.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
import pytest
import typer
from json_lines import checked_line, invoke

from segatlas.data.store import store as store_module

TERABYTE = 10**12

LONG = ("test_two_processes", "test_blocks", "test_contracts", "test_resume", "test_fit", "test_dry", "test_learn")
"""Files that take longest: they begin, so that no process of a run on several is left with one at the end."""

DRAWN = ("test_fit", "test_train_objects", "test_pretraining")
"""Files of tests whose trainings draw their plots, as those of `drawing` do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGATLAS_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setattr(store_module, "free_space", lambda folder: (TERABYTE, TERABYTE))
        yield


@pytest.fixture(scope="module", autouse=True)
def white_plots(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem not in DRAWN and request.path.parent.name != "drawing":
            white = cv2.imencode(".png", np.full((8, 8, 3), 255, np.uint8))[1].tobytes()
            for plot in ("curves_image", "confusion_image"):
                patch.setattr(f"segatlas.drawing.{plot}", lambda *_, **__: white)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_command_tree() -> Iterator[None]:
    """The parser of all commands, 60 ms each time it is made, is made once in a process and not at each call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def published_lines() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segatlas.cli.common.json_line", checked_line)
        patch.setattr("segatlas.cli.examples.CommandWithExamples.invoke", invoke)
        yield
