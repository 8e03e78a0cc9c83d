"""The wheel: it builds, holds all files of the package, and works where nothing of this checkout is in reach."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
OFFLINE = {"SEGATLAS_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}
SMALL = (
    "model.encoder=null model.width=4 train.steps=2 train.batch=2 transforms.crop=null train.schedule.warmup=1 "
    "data.workers=0 train.device=cpu train.threads=1"
)


def call(folder: Path, program: str | Path, line: str) -> str:
    """Run a program in a folder, with no path of ours in its environment; return what it printed."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SEGATLAS", "PIP_"))}
    done = subprocess.run(
        [str(program), *shlex.split(line)],
        cwd=folder,
        env={**plain, **OFFLINE, "SEGATLAS_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{line}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: a build leaves files beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in SOURCES:
        shutil.copyfile(ROOT / name, folder / name)
    call(folder, sys.executable, "-m pip wheel -q --no-deps --no-build-isolation -w dist .")
    [built] = (folder / "dist").glob("segatlas-*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "src" / "segatlas"
    ours = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == ours
    assert {"segatlas/hub/catalogue.json", "segatlas/hub/parameters.json", "segatlas/py.typed"} <= held


@pytest.mark.slow
def test_installed_in_a_fresh_environment_it_makes_trains_predicts_and_evaluates(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    python, command = home / "bin" / "python", home / "bin" / "segatlas"
    [packages] = home.glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")  # all packages but editable ones
    call(tmp_path, sys.executable, f"-m pip --python '{python}' install -q --no-deps '{wheel}'")

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    told = call(tmp_path, python, "-c 'import segatlas; print(segatlas.__version__, segatlas.__file__)'").split()
    assert told == [version, str(packages / "segatlas" / "__init__.py")]
    call(tmp_path, command, "data make-shapes shapes --train 4 --val 2 --test 2 --size 32x48")
    call(tmp_path, command, f"train unet_shapes data.root=shapes run.dir=run {SMALL} --quiet")
    call(tmp_path, command, "predict run shapes/test/images --out results --device cpu")
    call(tmp_path, command, "eval run --split test --device cpu")
    assert (tmp_path / "run" / "report.html").is_file()
    assert len(list((tmp_path / "results").glob("*_mask.png"))) == 2
    assert "bisenetv1-r101-coco-stuff164k" in call(tmp_path, command, "models list bisenetv1* --published")
