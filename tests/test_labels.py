from __future__ import annotations

import re
from pathlib import Path

from segatlas import labels, structures
from segatlas.config import rules
from segatlas.data.formats import masks

ROOT = Path(__file__).resolve().parents[1]


def test_255_is_said_to_mean_ignore_in_one_file():
    files = [path for folder in ("src", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    said = re.compile(r"^\s*(?:IGNORE|IGNORE_INDEX|MAX_CLASSES)\b[^=\n]*= *255|\bignore\w*: int = 255", re.MULTILINE)
    found = [path.relative_to(ROOT).as_posix() for path in files if said.search(path.read_text(encoding="utf-8"))]
    assert found == ["src/segatlas/labels.py"]
    assert {structures.IGNORE, rules.IGNORE, masks.IGNORE} == {labels.IGNORE} == {255}
