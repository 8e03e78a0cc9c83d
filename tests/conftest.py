"""For all tests: nothing is kept in the user's own decoded store."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGATLAS_STORE", str(tmp_path_factory.mktemp("store")))
        yield
