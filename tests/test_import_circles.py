"""No file of the package reaches itself by imports, wherever in a file they stand."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "src"


def modules(root: Path) -> dict[str, Path]:
    """Return name -> file of every module below `root`."""
    files = {path: path.relative_to(root).with_suffix("").parts for path in root.rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in files.items()}


def imports(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """Yield what a file of a package imports: at its top, inside functions, under TYPE_CHECKING."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            outer = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def names_of_its_room(nodes: Iterable[ast.AST], name: str) -> Iterator[str]:
    """Yield the files that texts "segatlas.room.file" or "segatlas.room.file:name" name in a file of that room."""
    room = ".".join(name.split(".")[:2])
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{room}."):
            yield node.value.partition(":")[0]


def graph(root: Path) -> dict[str, set[str]]:
    """Return module -> modules that it imports.

    A package stands for its `__init__.py`, not for what is in it; but one that imports by name (`import_module`, for a
    table of names) reaches every file in its folder. So does a text that names a file of the same room. Names of other
    rooms are data, as in the record of a task that says who draws it: whoever asks for them stands above both.
    """
    files = modules(root)
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        text, is_package = path.read_text(encoding="utf-8"), path.name == "__init__.py"
        nodes = list(ast.walk(ast.parse(text)))
        reached = {target for target in names_of_its_room(nodes, name) if target in files}
        for target in imports(nodes, name if is_package else name.rpartition(".")[0]):
            places = (target, target.rpartition(".")[0])  # `from a.b import c`: the file c, or a name in the file a.b
            reached.update([place for place in places if place in files][:1])
        if is_package and "import_module(" in text:
            reached.update(other for other in files if other.startswith(f"{name}."))
        found[name] = reached - {name}
    return found


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return for each group of modules that reach each other one shortest circle, written a -> b -> a."""
    reach = {name: _reached(edges, name) for name in edges}
    done: set[str] = set()
    found = []
    for name in sorted(edges):
        if name in reach[name] and name not in done:
            group = {other for other in reach[name] if name in reach[other]}
            done |= group
            found.append(min((_way(edges, start) for start in sorted(group)), key=len))
    return found


def _reached(edges: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in edges[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def _way(edges: Mapping[str, set[str]], start: str) -> list[str]:
    """Return the shortest way from a module back to itself."""
    ways, seen = [[start]], set()
    for way in ways:
        for target in sorted(edges[way[-1]]):
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    raise AssertionError(start)


def test_no_file_of_the_package_reaches_itself_by_imports():
    found = circles(graph(ROOT))
    assert not found, "circles:\n" + "\n".join(" -> ".join(way) for way in found)


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"a": "from pkg.b import x", "b": "from pkg import a"}, ["pkg.a", "pkg.b", "pkg.a"]),
        ({"a": "def f():\n    from pkg.b import x", "b": "import pkg.a"}, ["pkg.a", "pkg.b", "pkg.a"]),
        (
            {"a": "if TYPE_CHECKING:\n    from pkg.b import B", "b": "from pkg.c import C", "c": "from .a import A"},
            ["pkg.a", "pkg.b", "pkg.c", "pkg.a"],
        ),
        (
            {"room/__init__": "import_module(f'{__name__}.{name}')", "room/one": "from pkg.room import TABLE"},
            ["pkg.room", "pkg.room.one", "pkg.room"],
        ),
        (
            {"room/table": "T = {'one': 'pkg.room.one:One'}", "room/one": "from pkg.room.table import T"},
            ["pkg.room.one", "pkg.room.table", "pkg.room.one"],
        ),
    ],
    ids=[
        "at the top",
        "inside a function",
        "under TYPE_CHECKING",
        "a package that imports by name",
        "a table of names",
    ],
)
def test_a_circle_is_found_and_told_wherever_its_imports_stand(tmp_path, files, circle):
    plant(tmp_path, files)
    assert circles(graph(tmp_path)) == [circle]


@pytest.mark.parametrize(
    "files",
    [
        {"a": "from pkg.b import x", "b": "from pkg.c import y", "c": "import os"},
        {"room/__init__": "from pkg.room.one import One", "room/one": "from pkg.room.two import Two", "room/two": ""},
        {"room/table": "T = {'one': 'pkg.other.one:One'}", "other/one": "from pkg.room.table import T"},
    ],
    ids=["a chain", "files of a package", "names of another room"],
)
def test_imports_that_only_point_down_are_no_circle(tmp_path, files):
    plant(tmp_path, files)
    assert circles(graph(tmp_path)) == []


def plant(root: Path, files: Mapping[str, str]) -> None:
    """Write a package `pkg` of these files."""
    for name, text in {"__init__": "", **files}.items():
        path = root / "pkg" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
