"""The run folder: its name, what lies where, and the `last` link."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segatlas.checkpoint.model_folder import PRETRAINED_FILE
from segatlas.errors import SegAtlasError, UsageError
from segatlas.files import near_paths, point_link, sweep_leftovers
from segatlas.recipe import Config
from segatlas.tasks import TASKS
from segatlas.training.run_lock import LOCK_FILE, RunLock


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Paths inside one run folder.

    found: names that lay there before a new run. made: folders that were made for it, the outermost first.
    """

    root: Path
    found: frozenset[str] = frozenset()
    made: tuple[Path, ...] = ()

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, machine, command, data manifest."""
        return self.root / "env.json"

    @property
    def metrics(self) -> Path:
        """One row per log line and validation."""
        return self.root / "metrics.csv"

    @property
    def log(self) -> Path:
        """Everything said while training."""
        return self.root / "log.txt"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.root / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation."""
        return self.root / "checkpoints" / "best.ckpt"

    @property
    def model(self) -> Path:
        """Weights and card of the best validation."""
        return self.root / "model"

    @property
    def pretrained(self) -> Path:
        """Weights that another training begins with, of the best validation of a pre-training."""
        return self.root / PRETRAINED_FILE

    @property
    def evaluation(self) -> Path:
        """All numbers of the final evaluation."""
        return self.root / "eval.json"

    @property
    def plots(self) -> Path:
        """Curves and confusion images."""
        return self.root / "plots"

    @property
    def samples(self) -> Path:
        """Image sheets, one a validation."""
        return self.root / "samples"

    @property
    def report(self) -> Path:
        """The report as one HTML file."""
        return self.root / "report.html"

    def sweep(self) -> None:
        """Remove what killed processes left half-written, and put back a model that one had moved aside."""
        for folder in (self.root, self.last.parent, self.plots, self.samples):
            sweep_leftovers(folder)

    def discard(self, lock: RunLock) -> None:
        """Remove what a new run has left, and the folders that were made for it; `lock` is its own, and is released.

        What lay there before stays.
        """
        for path in self.root.iterdir():
            if path.name in self.found or path.name == LOCK_FILE:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        lock.release()  # not before: without it another training may begin there
        for folder in reversed(self.made):
            with suppress(OSError):  # something else lies there by now
                folder.rmdir()


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training. `best` is the model folder, of a pre-training the file that others begin with.

    `metrics` are the numbers of the best validation.
    """

    dir: Path
    best: Path
    metrics: dict[str, float] = field(default_factory=dict)
    report: Any = None

    @property
    def headline(self) -> str:
        """The score in words; of a pre-training that of its best validation."""
        if self.report is not None:
            return str(self.report.headline)
        return ", ".join(f"{name} {value:.4f}" for name, value in [*self.metrics.items()][:1])

    def model(self) -> Any:
        """Return a Predictor with the best weights."""
        from segatlas.inference import load

        return load(self.best)


def make_run_folder(config: Config, lock: RunLock) -> RunFolder:
    """Create the folder of a new run: `run.dir`, or the next free `<root>/<task>/<name>-NNN`; take its lock.

    `link_last` makes it the run that is called `last`, once it has begun.

    Raises UsageError when `run.dir` already holds a run and `run.exist_ok` is off, or another training is at work in
    it; SegAtlasError when the place cannot be written.
    """
    run = config.run
    name = run.name or f"{config.model.name}_{config.data.name}"
    try:
        if run.dir:
            root = Path(run.dir).expanduser()
            made = _make(root)
            folder = RunFolder(root=root, made=made, found=frozenset(path.name for path in root.iterdir()))
            lock.take(folder.root)
            if folder.config.exists() and not run.exist_ok:
                raise UsageError(
                    f"{folder.root} already holds a run; choose another run.dir, set run.exist_ok=true to replace it, "
                    f"or continue it with --resume {folder.root}"
                )
        else:
            made = _make(_parent(run.root, config.task))
            root = _next_numbered(_parent(run.root, config.task), name)
            folder = RunFolder(root=root, made=(*made, root))
            lock.take(folder.root)
        for sub in (folder.last.parent, folder.plots, folder.samples):
            sub.mkdir(exist_ok=True)
    except OSError as error:
        raise SegAtlasError(f"cannot write the run folder: {error}") from error
    return folder


def link_last(folder: RunFolder, config: Config) -> None:
    """Point `<root>/<task>/last` to a run that has begun. A file system without links simply has none."""
    parent = _parent(config.run.root, config.task)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        point_link(parent / "last", folder.root)
    except OSError:
        return


def find_run(where: str | Path, *, root: str = "runs") -> RunFolder:
    """Return the run folder meant by `last` (the newest of any task), a run folder's path or a checkpoint inside.

    It is called by its own name, not by a link's, and relative to the current folder where it was named so.
    """
    named = path = _newest(root) if str(where) == "last" else Path(where).expanduser()
    if path.suffix == ".ckpt":
        path = path.resolve().parent.parent
    if not (path / "config.yaml").exists():
        near = ", ".join(str(other) for other in near_paths(path) if (other / "config.yaml").exists())
        hint = f"; a run called nearly so: {near}" if near else ""
        raise UsageError(f"nothing to resume: {path} is not a run folder (it has no config.yaml){hint}")
    folder, here = path.resolve(), Path.cwd()
    if not named.is_absolute() and here in folder.parents:
        folder = folder.relative_to(here)
    return RunFolder(root=folder)


def config_of_run(resume: str | Path | None, given: str | None) -> Config | None:
    """Return the recipe of a run that has begun already, with what it chose at its start; None of a new one.

    Args:
        resume: the run that goes on, or its checkpoint.
        given: the run folder that the first process has made, where this is another of its processes.
    """
    if resume is None and given is None:
        return None
    return Config.load((RunFolder(root=Path(given)) if given is not None else find_run(str(resume))).config)


def _parent(root: str, task: str) -> Path:
    return Path(root).expanduser() / task


def _newest(root: str) -> Path:
    """Return the `last` link that was set last; where no task has one, that of the first task."""
    links = [_parent(root, task) / "last" for task in TASKS]
    return max(links, key=lambda link: link.lstat().st_mtime_ns if link.is_symlink() else 0)


def _make(folder: Path) -> tuple[Path, ...]:
    """Make a folder; return which were missing, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(reversed(missing))


def _next_numbered(parent: Path, name: str) -> Path:
    taken = [int(m[1]) for p in parent.iterdir() if (m := re.fullmatch(re.escape(name) + r"-(\d{3,})", p.name))]
    number = max(taken, default=0) + 1
    while True:  # mkdir decides when two runs start at the same moment
        folder = parent / f"{name}-{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        return folder
