from __future__ import annotations

import importlib.util
import re
import types
from pathlib import Path

import pytest

from segatlas.models import ARCHITECTURES, list_models, lookup
from segatlas.recipe import Config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def committed() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "generated").glob("*.md")}


def test_the_committed_tables_hold_every_name_and_what_a_fresh_run_tells_of_each_architecture(tool, committed):
    fresh = tool.pages(ARCHITECTURES)
    assert sorted(committed) == sorted(fresh)
    new, old = fresh.pop("models.md"), committed["models.md"]
    told, names = (
        set(old.splitlines()),
        [name for entry in ARCHITECTURES.values() for name in (entry.name, *entry.variants)],
    )
    assert [line for line in new.splitlines() if line not in told] == []
    assert re.findall(r"^\| `(\w+)` \| \[", old, re.MULTILINE)[: len(names)] == names
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert not stale, f"run tools/generate_docs.py: {stale}"


@pytest.mark.slow
def test_the_committed_tables_equal_a_fresh_run(tool, committed):
    fresh = tool.pages()
    stale = [name for name in fresh if committed[name] != fresh[name]]
    assert not stale, f"run tools/generate_docs.py: {stale}"


def test_the_table_of_networks_survives_an_architecture_without_recipe(tool, monkeypatch):
    others = {recipe: name for recipe, name in tool.networks_of_recipes().items() if lookup(name)[0].name != "lraspp"}
    monkeypatch.setattr(tool, "networks_of_recipes", lambda: others)
    for part in ("published_weights", "torchvision_weights", "readable_files"):
        monkeypatch.setattr(tool, part, lambda *given: iter(()))
    monkeypatch.setattr("segatlas.models.ARCHITECTURES", {"lraspp": ARCHITECTURES["lraspp"]})
    assert tool.train_words("lraspp") == []
    text = "\n".join(tool.models())
    assert re.search(r"^\| `lraspp` \|.*\| no recipe \|$", text, re.MULTILINE)
    assert "## Fields of lraspp" in text


def test_every_training_command_of_the_table_is_a_recipe_of_that_network(tool: types.ModuleType):
    for name in list_models():
        network = str(Config.load(*tool.train_words(name)).model.name)
        (entry, variant), (trained, _) = lookup(name), lookup(network)
        assert entry is trained
        assert variant in (None, network)
    assert tool.train_words("fcn_hr48") == ["fcn_ade20k_hr48"]
    assert tool.train_words("pspnet_r101") == ["pspnet_ade20k", "model.name=pspnet_r101"]
    assert tool.train_words("stdc1") == ["stdc_ade20k"]
