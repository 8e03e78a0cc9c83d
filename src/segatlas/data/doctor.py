"""The name of `segatlas.data.checks` in earlier versions."""

from __future__ import annotations

import warnings
from typing import Any

from segatlas.data import checks

warnings.warn("segatlas.data.doctor is called segatlas.data.checks now", DeprecationWarning, stacklevel=2)


def __getattr__(name: str) -> Any:
    return getattr(checks, name)
