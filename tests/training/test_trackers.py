"""What TensorBoard, W&B and MLflow get of a run: the packages where they are installed, else stand-ins of them."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

from segatlas.errors import ConfigError, MissingExtraError
from segatlas.training import trackers, train
from segatlas.training.module import SegmentationModule

SHORT = ("train.steps=2", "train.val_every=1", "train.checkpoint_every=1", "eval={boundary: false, sizes: false}")
KEY = "secret-of-the-test"


class Standing(ModuleType):
    """A module that is no file."""

    def __init__(self, name: str, **content: object):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.__dict__.update(content)


class FakeWandb:
    """Notes what `wandb` is asked for; `broken` names what raises."""

    def __init__(self, folder, broken: str = ""):
        self.begun, self.logged, self.saved, self.ended, self.broken = [], [], [], [], broken
        self.dir, self.url = str(folder), "https://wandb.test/run"
        folder.mkdir()
        settings = type("Settings", (SimpleNamespace,), {"model_fields": {"console": 0, "x_disable_meta": 0}})
        self.key: str | None = KEY
        self.module = Standing("wandb", init=self.init, Settings=settings, Image=self.image, login=self.login)

    def image(self, path):
        return ("image", path)

    def login(self, *, prompt):
        return self.key is not None

    def init(self, **given):
        self.begun.append(given)
        return self

    def define_metric(self, *_, **__):
        pass

    def log(self, values):
        if self.broken == "log":
            raise ConnectionError("no route to https://me:s3cret@wandb.test now")
        self.logged.append(values)

    def save(self, path, **_):
        self.saved.append(path.rpartition("/")[2])

    def finish(self, exit_code):
        self.ended.append(exit_code)


class FakeMlflow:
    """Notes what `mlflow` is asked for."""

    def __init__(self):
        self.created, self.metrics, self.parameters, self.artifacts, self.states = [], [], {}, [], []
        self.calls = SimpleNamespace(
            get_experiment_by_name=lambda name: None,
            create_experiment=lambda name, artifact_location: name,
            create_run=self.create_run,
            update_run=lambda run, status: self.states.append((run, status)),
            log_batch=self.log_batch,
            log_artifact=lambda run, path, artifact_path=None: self.artifacts.append(path.rpartition("/")[2]),
            set_terminated=lambda run, status: self.states.append((run, status)),
        )
        self.addresses = []
        entities = Standing(
            "mlflow.entities", Param=lambda *given: given, Metric=lambda name, value, now, step: (name, value, step)
        )
        self.modules = {
            "mlflow": Standing("mlflow", MlflowClient=self.client),
            "mlflow.entities": entities,
        }

    def client(self, tracking_uri):
        self.addresses.append(tracking_uri)
        return self.calls

    def create_run(self, experiment, run_name):
        self.created.append((experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_batch(self, run, metrics=(), params=()):
        self.metrics += metrics
        self.parameters.update(params)


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    fake = FakeWandb(tmp_path / "of-wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake.module)
    for name in ("WANDB_MODE", "SEGATLAS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return fake


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMlflow()
    for name, module in fake.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def stop_once(monkeypatch):
    """Let the second step of the first training fail."""
    original, stopped = SegmentationModule.training_step, []

    def training_step(self, batch, index):
        if self.global_step == 1 and not stopped:
            stopped.append(True)
            raise ValueError("stopped by the test")
        return original(self, batch, index)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)


def test_trackers_get_numbers_recipe_sheets_and_files_and_a_resumed_run_goes_on_there(
    recipe, wandb, mlflow, monkeypatch
):
    stop_once(monkeypatch)
    config = recipe(*SHORT, "log.wandb={project: mine}", "log.mlflow={}", "log.tensorboard=true")
    with pytest.raises(ValueError, match="stopped"):
        train(config, quiet=True)
    assert (wandb.ended, mlflow.states) == ([1], [("r1", "KILLED")])
    run = train(config, resume=config.run.dir, quiet=True)

    first, second = wandb.begun
    assert (first["mode"], first["project"], first["name"]) == ("offline", "mine", "run")
    assert first["id"] == second["id"] == json.loads((run.dir / "trackers.json").read_text())["wandb"]
    assert first["config"]["model"]["name"] == "unet"
    assert [row["step"] for row in wandb.logged if "loss" in row] == [1, 2]
    assert [row["samples"] for row in wandb.logged if "samples" in row] == [
        ("image", str(run.dir / "samples" / f"step_00000{step}.png")) for step in (1, 2)
    ]
    assert wandb.saved[-5:] == ["config.yaml", "env.json", "eval.json", "report.html", "metrics.csv"]
    assert wandb.ended == [1, 0]

    assert mlflow.created == [("segatlas", "run")]
    assert mlflow.addresses[0].startswith("sqlite:///")
    assert mlflow.parameters["model.name"] == "unet"
    assert [step for name, _, step in mlflow.metrics if name == "val/miou"] == [1, 2]
    assert {"config.yaml", "step_000002.png", "report.html"} <= set(mlflow.artifacts)
    assert mlflow.states[1:] == [("r1", "RUNNING"), ("r1", "FINISHED")]

    log = (run.dir / "log.txt").read_text()
    assert "W&B: offline, nothing is sent; " in log
    assert "MLflow: nothing is sent; " in log
    events = b"".join(path.read_bytes() for path in (run.dir / "tensorboard").iterdir())
    for part in (b"val/miou", b"samples", b"\x89PNG", b"name: unet"):
        assert part in events
    for path in run.dir.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_a_tracker_that_fails_is_told_once_without_secrets_and_the_training_goes_on(recipe, wandb):
    wandb.broken = "log"
    run = train(recipe(*SHORT, "log.wandb={}", "log.samples=0"), quiet=True)
    log = (run.dir / "log.txt").read_text()
    assert log.count("W&B failed and gets nothing more of this run, which goes on") == 1
    assert "ConnectionError: no route to https://***@wandb.test now" in log
    assert wandb.saved == ["config.yaml", "env.json"]
    assert wandb.ended == []
    assert (run.dir / "report.html").exists()


def guarded(recipe, tmp_path, *words):
    said = []
    folder = trackers.RunFolder(root=tmp_path)
    config = recipe(*words)
    return config, trackers.open_trackers(config, folder, step=None, warn=said.append), said


def test_online_sends_where_it_is_asked_for_and_a_key_is_there_and_no_switch_says_otherwise(
    recipe, wandb, monkeypatch, tmp_path
):
    config, [tracker], said = guarded(recipe, tmp_path, "log.wandb.mode=online")
    told = "W&B: sends numbers, recipe, env.json, validation sheets and the report to https://wandb.test/run"
    assert tracker.begin(config) == told
    monkeypatch.setenv("SEGATLAS_OFFLINE", "1")
    config, [tracker], said = guarded(recipe, tmp_path, "log.wandb.mode=online")
    assert "nothing is sent" in tracker.begin(config)
    monkeypatch.delenv("SEGATLAS_OFFLINE")
    wandb.key = None
    config, [tracker], said = guarded(recipe, tmp_path, "log.wandb.mode=online")
    assert tracker.begin(config) == ""
    assert "no key for it here: run `wandb login`, or set WANDB_API_KEY" in said[0]
    assert [given["mode"] for given in wandb.begun] == ["online", "offline"]


def test_a_server_of_mlflow_is_named_and_not_asked_offline(recipe, mlflow, monkeypatch, tmp_path):
    monkeypatch.delenv("SEGATLAS_OFFLINE", raising=False)
    words = "log.mlflow={uri: 'http://server.test:5000', experiment: mine}"
    config, [tracker], said = guarded(recipe, tmp_path, words)
    assert tracker.begin(config).endswith("sheets and the report to http://server.test:5000")
    monkeypatch.setenv("SEGATLAS_OFFLINE", "1")
    *_, said = guarded(recipe, tmp_path, words)
    assert "http://server.test:5000 is not asked: SEGATLAS_OFFLINE is set" in said[0]
    assert mlflow.addresses == ["http://server.test:5000"]


def test_a_password_in_a_recipe_is_refused(recipe):
    with pytest.raises(ConfigError, match=r"log\.mlflow\.uri.*(?s:.)*MLFLOW_TRACKING_PASSWORD"):
        recipe("log.mlflow={uri: 'https://me:s3cret@server.test'}")


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_written(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(MissingExtraError, match=rf"log\.{name} needs {name} .*segatlas\[{name}\]"):
            train(recipe(f"log.{name}={{}}"), quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_package_itself_takes_a_run_and_sends_nothing(recipe, name):
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    config = recipe(*SHORT, f"log.{name}={{}}")
    run = train(config, quiet=True)
    assert "failed" not in (run.dir / "log.txt").read_text()
    written = [run.dir / "wandb" / "latest-run"] if name == "wandb" else [run.dir.parent / "runs" / "mlflow.db"]
    assert all(path.exists() for path in written)
