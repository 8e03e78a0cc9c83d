from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fresh_pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_the_committed_tables_equal_a_fresh_run():
    fresh = fresh_pages()
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "generated").glob("*.md")}
    assert sorted(committed) == sorted(fresh)
    stale = [name for name in fresh if committed[name] != fresh[name]]
    assert not stale, f"run tools/generate_docs.py: {stale}"
