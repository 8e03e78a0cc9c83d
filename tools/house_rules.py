"""House rules that no linter knows. Prints each breach as `path:line: rule` and exits 1 when there is one."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from house_words import repeated_classes, word_breaches

THIS = Path(__file__).resolve()
ROOT = THIS.parent.parent
TASK_NAMES = {"semantic", "instance", "panoptic"}
TASK_ROOMS = {"tasks", "criteria", "postprocess", "output"}
"""Where the name of a task may decide something; elsewhere the task's record is asked."""
SCORE_NAMES, SCORE_FREE_ROOMS = {"miou"}, {"training", "inference", "drawing"}
TORCH_PRIVATE = "torch_private.py"
MOST_LINES, MOST_FUNCTION_LINES = 600, 80
LOOSE_ENDS = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError\b|assert True\b")
# Package index hosts must not be named in the tree: built from pieces so that this file passes its own rule.
INDEX_HOSTS = re.compile("|".join((r"pypi\." + "org", r"python" + r"hosted\.org", r"pytorch\.org/" + "whl")))


def tracked_files() -> list[Path]:
    """Return the files git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in dict.fromkeys(listed.stdout.splitlines()) if (ROOT / line).is_file()]


def breaches(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, rule) for everything in one file that breaks a rule."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if INDEX_HOSTS.search(line):
            yield number, "names a package index host"
        if path.suffix == ".py" and path != THIS and LOOSE_ENDS.search(line):
            yield number, "loose end"
    yield from word_breaches(path.relative_to(ROOT).as_posix(), text)
    if path.suffix == ".py":
        yield from python_breaches(path, text)


def python_breaches(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield breaches that need the syntax tree: lengths, eval and exec, tests that cannot fail."""
    length = text.count("\n")
    if length > MOST_LINES:
        yield length, f"file has {length} lines, {MOST_LINES} at most"
    in_tests, room = "tests" in path.relative_to(ROOT).parts, room_of(path)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                yield node.lineno, f"function {node.name} has {lines} lines, {MOST_FUNCTION_LINES} at most"
            if in_tests and node.name.startswith("test_") and not checks_something(node):
                yield node.lineno, f"test {node.name} checks nothing"
        if not in_tests and runs_text(node):
            yield node.lineno, "eval or exec runs text"
        if room and path.name != TORCH_PRIVATE and is_private_torch(node):
            yield node.lineno, f"uses what torch does not promise; only ops/{TORCH_PRIVATE} does, with a public way"
    yield from task_breaches(room, text)


def room_of(path: Path) -> str:
    """Return the room of the package that a file is in, "" for a file elsewhere."""
    parts = path.relative_to(ROOT).parts
    return parts[2].removesuffix(".py") if parts[:2] == ("src", "segatlas") else ""


def task_breaches(room: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield where a room compares with a task's name, or names a task's score, in place of asking the task."""
    for node in ast.walk(ast.parse(text)) if room else ():
        if room not in TASK_ROOMS and isinstance(node, ast.Compare | ast.MatchValue) and texts_in(node) & TASK_NAMES:
            yield node.lineno, "compares with the name of a task; ask its record in segatlas.tasks"
        if room in SCORE_FREE_ROOMS and isinstance(node, ast.Constant) and node.value in SCORE_NAMES:
            yield node.lineno, f"names the score {node.value}; ask the task for its scores"


def texts_in(node: ast.AST) -> set[str]:
    """Return the texts that stand anywhere in a node."""
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def runs_text(node: ast.AST) -> bool:
    """Return whether a node calls the built-in eval or exec."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")


def is_private_torch(node: ast.AST) -> bool:
    """Return whether a node reads `torch...._name`, imports such a name, or reads a tensor's `_version`."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
        names = [*(node.module or "").split("."), *(one.name for one in node.names)]
        return any(name.startswith("_") for name in names)
    if isinstance(node, ast.Import):
        return any(one.name.startswith("torch.") and "._" in one.name for one in node.names)
    if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.endswith("__"):
        return False
    root = node.value
    while isinstance(root, ast.Attribute):
        root = root.value
    return node.attr == "_version" or (isinstance(root, ast.Name) and root.id == "torch")


def checks_something(test: ast.AST) -> bool:
    """Return whether a test asserts, expects an error, or calls a helper whose name says that it checks."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.startswith(("assert", "check", "raises", "expect", "gradcheck", "warns", "fail")):
                return True
    return False


def main() -> int:
    files = tracked_files()
    found = [f"{path.relative_to(ROOT)}:{line}: {rule}" for path in files for line, rule in breaches(path)]
    sources = ((str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in files if path.suffix == ".py")
    found += [f"{name}:{line}: {rule}" for name, line, rule in repeated_classes(sources)]
    print("\n".join(found) if found else "house rules: ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
