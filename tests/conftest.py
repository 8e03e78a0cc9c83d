"""For all tests: nothing is kept in the user's own decoded store, and no test depends on how full the disk is."""

from __future__ import annotations

import pytest

from segatlas.data.store import store as store_module

TERABYTE = 10**12


@pytest.fixture(scope="session", autouse=True)
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGATLAS_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setattr(store_module, "free_space", lambda folder: (TERABYTE, TERABYTE))
        yield
