"""The authors' AFMA repository as a whole: files hold tensors, their names say which of the encoder's maps is used."""

from __future__ import annotations

import re
from typing import Any

from segatlas.conversion.importers.source import Library

_NAME = re.compile(r"My_[^_]+_(?P<encoder>\w+?)_(?P<level>[1-5])_(?:val|checkpoint)\.pth$")


def settings_named(name: str) -> dict[str, Any]:
    """See `Library`: the level, the last number of a published name."""
    found = _NAME.match(name)
    return {"level": int(found["level"])} if found else {}


SOURCE = Library(name="afma", title="the authors' AFMA", settings_named=settings_named)
