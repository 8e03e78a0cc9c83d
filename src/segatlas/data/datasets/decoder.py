"""How datasets come by arrays: decoded each time, or once and kept in the decoded store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segatlas.data.formats.guards import read_bytes
from segatlas.data.store import Store


class Decoder:
    """Gives arrays made of files or of entries of annotation files. store: where they are kept; None keeps nothing."""

    def __init__(self, store: Store | None = None):
        self.store = store

    def file(self, path: Path, kind: str, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        """Return what `decode` makes of a file's content. kind: all else that the result depends on."""
        return decode(read_bytes(path)) if self.store is None else self.store.array(path, kind, decode)

    def entry(self, content: bytes, kind: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return what `make` gives. content and kind: all that it depends on."""
        return make() if self.store is None else self.store.made(content, kind, make)
