"""Programs that show runs: TensorBoard, Weights & Biases, MLflow. Each takes numbers, images and files.

None of them may end a training: what fails is said once and left from there on. Nothing leaves this machine unless the
recipe asks for it by `log.wandb.mode=online` or the address of an MLflow server.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np

from segatlas.cache import is_offline
from segatlas.config.trackers import MlflowConfig, WandbConfig
from segatlas.downloads.http import redacted
from segatlas.errors import MissingExtraError, TrainingError
from segatlas.files import whole_file
from segatlas.recipe import Config
from segatlas.training.run import RunFolder

SENT = "numbers, recipe, env.json, validation sheets and the report"
"""What a tracker is given, in words."""
MOST_PARAMETERS = 100
"""Of one request to MLflow."""
LONGEST_PARAMETER = 500
"""Letters of a value there; servers of some years refuse longer ones."""
LONGEST_REASON = 200
"""Letters of what a tracker says of its fault."""
MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it tells its makers of each use otherwise
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is away holds a training up for seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Where the environment says nothing else."""
PATIENCE = 60.0
"""Seconds that W&B may take to begin a run, and to send the last of it."""


class Tracker(Protocol):
    """What shows a run. Any method may raise anything; `Guarded` takes care of that."""

    title: str

    def begin(self, config: Config) -> str:
        """Take the recipe up; return one line that says what goes where, "" for none."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    def image(self, step: int, name: str, path: Path, pixels: np.ndarray) -> None:
        """Take an image, written to `path`: (H, W, 3) uint8 pixels."""

    def file(self, path: Path) -> None:
        """Take a file of the run folder."""

    def close(self, *, finished: bool) -> None:
        """End the run, `finished` or not."""


def needed_extras(config: Config) -> None:
    """Raise MissingExtraError where a recipe asks for a tracker that is not installed."""
    for name in ("wandb", "mlflow"):
        if getattr(config.log, name) is not None and find_spec(name) is None:
            raise MissingExtraError(f"log.{name}", name, name)


def open_trackers(config: Config, folder: RunFolder, *, step: int | None, warn: Callable[[str], None]) -> list[Guarded]:
    """Return the trackers of a recipe; nothing is begun yet.

    Args:
        config: the recipe.
        folder: of the run.
        step: where a resumed run goes on; None of a new one.
        warn: says what went wrong with one.
    """
    ids = Ids(folder.root / "trackers.json", resumed=step is not None)
    made: dict[str, Callable[[], Tracker]] = {}
    if config.log.tensorboard:
        made["TensorBoard"] = lambda: TensorBoard(folder.root / "tensorboard", step)
    if (wandb := config.log.wandb) is not None:
        made["W&B"] = lambda: Wandb(wandb, folder, ids)
    if (mlflow := config.log.mlflow) is not None:
        made["MLflow"] = lambda: Mlflow(mlflow, folder, ids, root=Path(config.run.root).expanduser())
    return [Guarded(title, make, warn) for title, make in made.items()]


class Guarded:
    """A tracker whose first fault is told once and ends it, not the training."""

    def __init__(self, title: str, make: Callable[[], Tracker], warn: Callable[[str], None]):
        self.title, self._warn = title, warn
        self._tracker: Tracker | None = None
        self._tracker = self._try(make)

    def begin(self, config: Config) -> str:
        """Return the line that says what goes where."""
        return self._call("begin", config) or ""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Pass numbers on; those that are not finite are left out."""
        self._call("numbers", step, {name: value for name, value in values.items() if np.isfinite(value)})

    def image(self, step: int, name: str, path: Path, pixels: np.ndarray) -> None:
        """Pass an image on."""
        self._call("image", step, name, path, pixels)

    def file(self, path: Path) -> None:
        """Pass a file on that is there."""
        if path.is_file():
            self._call("file", path)

    def close(self, *, finished: bool) -> None:
        """End the run there."""
        self._call("close", finished=finished)
        self._tracker = None

    def _call(self, method: str, *given: Any, **named: Any) -> Any:
        if self._tracker is None:
            return None
        return self._try(lambda: getattr(self._tracker, method)(*given, **named))

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # of libraries and servers of others, with no common class
            said = str(error).strip().splitlines()
            told = f"{type(error).__name__}: {redacted(said[0])[:LONGEST_REASON]}" if said else type(error).__name__
            self._warn(f"{self.title} failed and gets nothing more of this run, which goes on ({told})")
            self._tracker = None
            return None


class Ids:
    """What the trackers call a run, kept in its folder, so that a resumed run goes on where it was."""

    def __init__(self, path: Path, *, resumed: bool):
        self.path = path
        self.known: dict[str, str] = {}
        if resumed:
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                found = {}
            self.known = {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}

    def keep(self, name: str, value: str) -> None:
        """Write down what a tracker calls the run."""
        self.known[name] = value
        with whole_file(self.path, error=TrainingError) as temporary:
            temporary.write_text(json.dumps(self.known, indent=1) + "\n", encoding="utf-8")


class TensorBoard:
    """Event files in the run folder."""

    title = "TensorBoard"

    def __init__(self, folder: Path, step: int | None):
        from torch.utils.tensorboard import SummaryWriter

        # what a killed run wrote past its checkpoint is no longer shown
        self._writer = SummaryWriter(str(folder), purge_step=None if step is None else step + 1)

    def begin(self, config: Config) -> str:
        """Show the recipe as text."""
        from segatlas.config import to_yaml

        self._writer.add_text("recipe", "".join(f"    {line}\n" for line in to_yaml(config).splitlines()))
        return ""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, path: Path, pixels: np.ndarray) -> None:
        """Add a sheet."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def file(self, path: Path) -> None:
        """Take none: event files hold no files."""

    def close(self, *, finished: bool) -> None:
        """Flush and close."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases: offline in `wandb/` of the run folder, or online."""

    title = "W&B"

    def __init__(self, settings: WandbConfig, folder: RunFolder, ids: Ids):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports of its own faults are not asked for either
        import wandb

        self._module, self._settings, self._folder, self._ids = wandb, settings, folder, ids
        asked = os.environ.get("WANDB_MODE", "")
        self._mode = settings.mode
        if is_offline() or asked in ("offline", "dryrun", "disabled"):  # whoever asked for less is heard
            self._mode = "offline"

    def begin(self, config: Config) -> str:
        """Open the run, or go on with it."""
        settings, folder = self._settings, self._folder
        if self._mode == "online" and not self._has_key():
            raise RuntimeError("no key for it here: run `wandb login`, or set WANDB_API_KEY")
        known = self._ids.known.get("wandb")
        name = known or uuid4().hex[:12]
        self._run = self._module.init(
            project=settings.project,
            entity=settings.entity,
            name=settings.name or folder.root.name,
            id=name,
            resume="allow",
            mode=self._mode,
            dir=str(folder.root),
            config=config.model_dump(mode="json"),
            settings=self._quiet_settings(),
        )
        self._ids.keep("wandb", name)
        self._run.define_metric("*", step_metric="step")  # its own counter takes no step twice, as a resumed run does
        if self._mode == "online":
            return f"W&B: sends {SENT} to {redacted(str(self._run.url))}"
        return f"W&B: offline, nothing is sent; `wandb sync {folder.root / 'wandb'}/offline-run-*` sends {SENT}"

    def _has_key(self) -> bool:
        """Tell whether W&B finds a key in its own places; it would wait for somebody to type one."""
        if "prompt" in inspect.signature(self._module.login).parameters:
            return bool(self._module.login(prompt=False))
        return bool(self._module.api.api_key)  # until 2026

    def _quiet_settings(self) -> Any:
        """Return settings that collect what a recipe asks for, and nothing of the machine or the sources."""
        wanted = {
            "console": "off",
            "silent": True,
            "disable_git": True,
            "disable_code": True,
            "disable_job_creation": True,
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_disable_machine_info": True,
            "x_save_requirements": False,
            "init_timeout": PATIENCE,
            "finish_timeout": PATIENCE,
        }
        known = self._module.Settings.model_fields
        return self._module.Settings(**{key: value for key, value in wanted.items() if key in known})

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log a row."""
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, path: Path, pixels: np.ndarray) -> None:
        """Log a sheet, the file as it was drawn."""
        self._run.log({"step": step, name: self._module.Image(str(path))})

    def file(self, path: Path) -> None:
        """Keep a copy of a file with the run."""
        copy = Path(self._run.dir) / path.name  # a file of elsewhere would be a link, and each link a warning
        shutil.copyfile(path, copy)
        self._run.save(str(copy), base_path=str(copy.parent), policy="now")

    def close(self, *, finished: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if finished else 1)


class Mlflow:
    """A run of MLflow: in a database beside the runs, or on a server."""

    title = "MLflow"

    def __init__(self, settings: MlflowConfig, folder: RunFolder, ids: Ids, *, root: Path):
        for variable, value in MLFLOW_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient

        self._settings, self._folder, self._ids = settings, folder, ids
        self._artifacts: str | None = None
        uri = settings.uri
        if uri is None:
            root.mkdir(parents=True, exist_ok=True)
            uri, self._artifacts = f"sqlite:///{(root / 'mlflow.db').resolve()}", (root / "mlflow").resolve().as_uri()
        self._uri = uri
        if self._is_server and is_offline():
            raise RuntimeError(f"{redacted(uri)} is not asked: SEGATLAS_OFFLINE is set")
        self._client = MlflowClient(tracking_uri=uri)

    @property
    def _is_server(self) -> bool:
        return urlsplit(self._uri).scheme not in ("", "file", "sqlite")

    def begin(self, config: Config) -> str:
        """Open the run, or go on with it."""
        self._run = self._ids.known.get("mlflow") or ""
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
        else:
            name = self._settings.name or self._folder.root.name
            self._run = self._client.create_run(self._experiment(), run_name=name).info.run_id
            self._ids.keep("mlflow", self._run)
            self._parameters(config.model_dump(mode="json"))
        if self._is_server:
            return f"MLflow: sends {SENT} to {redacted(self._uri)}"
        return f"MLflow: nothing is sent; look at it by `mlflow ui --backend-store-uri {self._uri}`"

    def _experiment(self) -> str:
        name = self._settings.experiment
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=self._artifacts))

    def _parameters(self, recipe: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        values = [Param(key, value[:LONGEST_PARAMETER]) for key, value in _flat(recipe)]
        for start in range(0, len(values), MOST_PARAMETERS):
            self._client.log_batch(self._run, params=values[start : start + MOST_PARAMETERS])

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def image(self, step: int, name: str, path: Path, pixels: np.ndarray) -> None:
        """Keep a sheet, the file as it was drawn."""
        self._client.log_artifact(self._run, str(path), artifact_path=name)

    def file(self, path: Path) -> None:
        """Keep a copy of a file with the run."""
        self._client.log_artifact(self._run, str(path))

    def close(self, *, finished: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._run, status="FINISHED" if finished else "KILLED")


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and values as text of a recipe; those that are not set are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif value is not None and value != []:
            yield f"{above}{key}", value if isinstance(value, str) else json.dumps(value)


def head_of(folder: RunFolder) -> Sequence[Path]:
    """Return the files that are attached at the start."""
    return (folder.config, folder.environment)


def end_of(folder: RunFolder) -> Sequence[Path]:
    """Return the files that are attached at the end."""
    return (folder.evaluation, folder.report, folder.metrics)
