"""For all tests: their order; nothing is kept in the user's own decoded store, and the disk seems to have room."""

from __future__ import annotations

import pytest

from segatlas.data.store import store as store_module

TERABYTE = 10**12

LONG = ("test_two_processes", "test_blocks", "test_contracts", "test_resume", "test_fit", "test_dry", "test_learn")
"""Files that take longest: they begin, so that no process of a run on several is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGATLAS_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setattr(store_module, "free_space", lambda folder: (TERABYTE, TERABYTE))
        yield
