"""PyAV, where it is installed."""

from __future__ import annotations

from types import ModuleType

from segatlas.errors import MissingExtraError


def import_av() -> ModuleType:
    """Return PyAV. MissingExtraError where it is not installed."""
    try:
        import av
        import av.error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "av":
            raise
        raise MissingExtraError("video", "PyAV", "video") from None
    module: ModuleType = av
    return module
