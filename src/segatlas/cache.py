"""Where things are kept that can be made or fetched again, and whether they may be fetched. Loads no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

OFFLINE_VARIABLE = "SEGATLAS_OFFLINE"


def cache_folder(part: str) -> Path:
    """Return the folder of one kind of cached things; it need not exist.

    `SEGATLAS_CACHE` names the parent of all; by default it is `segatlas` in the user's cache folder.
    """
    own = os.environ.get("SEGATLAS_CACHE")
    if own:
        return Path(own).expanduser() / part
    if os.name == "nt":
        users = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        users = Path.home() / "Library" / "Caches"
    else:
        users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return users / "segatlas" / part


def is_offline() -> bool:
    """Tell whether downloads are off: `SEGATLAS_OFFLINE` is set to anything but 0 (`--offline` sets it)."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip() not in ("", "0")
