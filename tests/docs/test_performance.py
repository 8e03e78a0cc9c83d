"""docs/performance.md says what docs/performance.json holds, and every miss is explained."""

from __future__ import annotations

import copy
import json

from benchmarks.page import FIGURES, PAGE, filled, missed, read_explanations
from benchmarks.table import ROWS

KEYS = {row.key for row in ROWS}


def figures() -> dict:
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def test_the_page_equals_one_made_from_the_figures():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, figures(), read_explanations()) == page, "run: python benchmarks/page.py"


def test_every_missed_target_names_its_reason():
    assert [key for key in missed(figures()) if not read_explanations().get(key)] == []


def test_explanations_and_figures_belong_to_rows_that_there_are():
    assert set(read_explanations()) <= KEYS
    assert {row["key"] for row in figures()["rows"]} <= KEYS


def test_a_figure_that_changes_changes_the_page():
    other = copy.deepcopy(figures())
    line = next(line for row in other["rows"] for line in row["lines"])
    line["ratio_cpu"] = 12345.678
    page = PAGE.read_text(encoding="utf-8")
    assert "12345.68" in filled(page, other, {})


def test_a_miss_is_listed_with_its_explanation():
    other = copy.deepcopy(figures())
    row = next(row for row in other["rows"] if row["lines"])
    row["lines"][0]["met"] = False
    text = filled(PAGE.read_text(encoding="utf-8"), other, {row["key"]: "the clock was wrong"})
    assert f"- `{row['key']}`: the clock was wrong" in text
