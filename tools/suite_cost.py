"""A pytest plugin: processor seconds of the tests by file, and what an architecture costs in those that grow with them.

    PYTHONPATH=tools OMP_NUM_THREADS=1 python -m pytest -p suite_cost -m "not slow"

Seconds are those of this process and its children (user and system), so that other programs count little. Run it
without `-n`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

GROWING = (
    *("tests/models/test_contracts.py", "tests/models/test_table.py", "tests/models/test_listing.py"),
    *("tests/conversion/importers/test_goldens.py", "tests/conversion/importers/test_importers.py"),
    *("tests/config/test_plain.py", "tests/build/test_describing.py", "tests/training/test_dry.py"),
    *("tests/encoders/test_contract.py", "tests/docs/test_generated.py", "tests/config/test_recipe.py"),
)
"""Files with a case for each architecture, or for each of its encoders, importers and recipes."""

EXPECTED = 60
"""Architectures that the suite has to hold."""

SECONDS: Counter[str] = Counter()


def spent() -> float:
    """Return the processor seconds so far of this process and of its children that ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    before = spent()
    yield
    SECONDS[item.nodeid.partition("::")[0]] += spent() - before


def pytest_terminal_summary(terminalreporter: Any) -> None:
    from segatlas.models import ARCHITECTURES

    write, count = terminalreporter.write_line, len(ARCHITECTURES)
    for file, seconds in SECONDS.most_common(25):
        write(f"{seconds:7.1f} s  {file}")
    growing = sum(SECONDS[file] for file in GROWING)
    more = growing / count * (EXPECTED - count)
    write(
        f"{growing:7.1f} s  for {count} architectures, {growing / count:.2f} s each, in the files that grow with them"
    )
    write(f"{SECONDS.total():7.1f} s  in all; with {EXPECTED} architectures about {SECONDS.total() + more:.0f} s")
