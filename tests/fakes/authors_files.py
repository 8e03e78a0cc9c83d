"""Where files that authors publish lie, which tests look at and the project does not hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def espnet_files() -> Path:
    """Return the folder with the authors' files of ESPNet and ESPNetV2; skips the test where there is none."""
    base = Path(os.environ.get("SEGATLAS_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    path = Path(os.environ.get("SEGATLAS_ESPNET", base / "espnet"))
    if not path.is_dir():
        pytest.skip(f"none of ESPNet's published files at {path} (set SEGATLAS_ESPNET; see tools/authors_espnet.py)")
    return path
