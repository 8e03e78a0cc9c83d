"""No file of the package reaches itself by imports, wherever in a file they stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "src"


def modules(root: Path) -> dict[str, Path]:
    """Return name -> file of every module below `root`."""
    files = {path: path.relative_to(root).with_suffix("").parts for path in root.rglob("*.py")}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in files.items()}


def imports(text: str, package: str) -> Iterator[str]:
    """Yield what a file of a package imports: at its top, inside functions, under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            outer = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph(root: Path) -> dict[str, set[str]]:
    """Return module -> modules that it imports.

    A package stands for its `__init__.py`, not for what is in it; but one that imports by name (`import_module`, for a
    table of names) reaches every file in its folder. So does a text that names a file of the same room. Names of other
    rooms are data, as in the record of a task that says who draws it: whoever asks for them stands above both.
    """
    files = modules(root)
    found: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        text, is_package = path.read_text(encoding="utf-8"), path.name == "__init__.py"
        for target in imports(text, name if is_package else name.rpartition(".")[0]):
            places = (target, target.rpartition(".")[0])  # `from a.b import c`: the file c, or a name in the file a.b
            found[name].update([place for place in places if place in files][:1])
        if is_package and "import_module(" in text:
            found[name].update(other for other in files if other.startswith(f"{name}."))
        found[name].update(names_of_its_room(text, name) & files.keys())
    return {name: targets - {name} for name, targets in found.items()}


def names_of_its_room(text: str, name: str) -> set[str]:
    """Return the texts "segatlas.room.file" or "segatlas.room.file:name" in a file of that room."""
    room = ".".join(name.split(".")[:2])
    texts = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return {one.partition(":")[0] for one in texts if isinstance(one, str) and one.startswith(f"{room}.")}


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
