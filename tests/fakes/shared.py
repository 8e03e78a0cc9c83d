"""Where the real images lie that some tests look at: beside the repository, or where SEGATLAS_SHARED says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_data(name: str) -> Path:
    """Return a folder of real data; skips the test where it is missing."""
    base = Path(os.environ.get("SEGATLAS_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    path = base / "data" / name
    if not path.exists():
        pytest.skip(f"no real data at {path} (set SEGATLAS_SHARED)")
    return path
