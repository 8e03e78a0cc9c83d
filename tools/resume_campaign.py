"""Kill trainings at random moments, resume them, and compare with the same training undisturbed, bit by bit.

    python tools/resume_campaign.py --runs 50 --seed 1
    python tools/resume_campaign.py --runs 8 --settings 4 --objects
    python tools/resume_campaign.py --runs 2 --settings 2 --objects --processes 2

Settings are drawn from what a resume has to survive (loader processes, EMA, accumulation, bf16, a plateau, dropout and
stochastic depth, two processes ...), with --objects by networks that draw boxes while they train. Each run is started
through the command line, killed with SIGKILL at a random time after its first checkpoint, some of them twice, and
resumed through the command line. The end must be that of the whole run with the same settings: every tensor and number
of last.ckpt, the model folder, each line of metrics.csv (but speed) and each line of the terminal. Prints a Markdown
table; the exit status is 1 where a run differs.

Runs of one process are forked from this one, which spares the import of torch; `--fresh` starts an interpreter each.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import torch

from segatlas.cli.main import main as command_line
from segatlas.data.shapes import make_shapes
from segatlas.training import train as _preloaded  # noqa: F401  what forked runs would each load

CLASSES_OF_PIXELS = "losses=[cross_entropy, {name: dice, weight: 0.5}]"
TWO_STAGES = (
    "encoder: resnet18_w8, neck_channels: 8, anchor_sizes: [8, 16, 32, 64, 128], box_channels: 16, mask_convs: 1, "
    "mask_channels: 8, proposals: [64, 16], train_proposals: [64, 32], top: 8"
)
NETWORKS = {
    "unet, dropout": ("model={name: unet, width: 4, dropout: 0.2}", CLASSES_OF_PIXELS),
    "segformer, drop path": (
        "model={name: segformer, encoder: mit_b0, decoder_channels: 16, drop_path: 0.3}",
        CLASSES_OF_PIXELS,
    ),
    "mask_rcnn": (f"model={{name: mask_rcnn, {TWO_STAGES}}}", "losses=[two_stage]", "train.metric=ap"),
    "panoptic_fpn": (
        f"model={{name: panoptic_fpn, channels: 8, groups: 2, {TWO_STAGES}}}",
        "losses=[two_stage, semantic_branch]",
        "train.metric=pq",
    ),
    "pointrend_instance": (
        f"model={{name: pointrend_instance, mask_width: 16, point_channels: 8, train_points: 16, {TWO_STAGES}}}",
        "losses=[two_stage]",
        "train.metric=ap",
    ),
    "condinst": (
        "model={name: condinst, encoder: resnet18_w8, neck_channels: 8, head_convs: 1, head_channels: 8, groups: 2, "
        "mask_convs: 1, mask_channels: 8, train_masks: 3, top: 8}",
        "losses=[dynamic_masks]",
        "train.metric=ap",
    ),
    "panoptic_deeplab": (
        "model={name: panoptic_deeplab, encoder: resnet18_w8, aspp_channels: 8, channels: 8, instance_channels: 8, "
        "low_channels: [8, 8, 4], instance_low_channels: [8, 8, 4], head_channels: 8, instance_head_channels: 4, "
        "dropout: 0.1}",
        "losses=[hard_pixels, {name: center_mse, weight: 200}, {name: offset_l1, weight: 0.01}]",
        "train.metric=pq",
    ),
    "mask2former": (
        "model={name: mask2former, encoder: resnet18_w8, queries: 6, channels: 16, mask_channels: 16, heads: 2, "
        "pixel_layers: 1, pixel_hidden: 16, layers: 2, hidden: 16, groups: 4, dropout: 0.1}",
        "losses=[{name: query_points, points: 64}]",
        "task=panoptic",
        "train.metric=pq",
    ),
}
OBJECTS = tuple(list(NETWORKS)[2:])
COMMON = (
    "data.name=shapes",
    "transforms={scale: [0.8, 1.25], crop: [32, 32], photometric: {}}",
    "eval={boundary: false, sizes: false}",
    "log.tensorboard=false",
    "log.samples=0",
    "train.device=cpu",
    "train.threads=1",
    "train.lr=1e-2",
    "train.epochs=3",
)
PATIENCE = 600.0
"""Seconds after which a run counts as hanging."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to train; `processes` above 1 means gloo."""

    network: str
    workers: int
    processes: int
    ema: bool
    accumulate: int
    precision: str
    schedule: str
    val_every: int | None
    checkpoint_every: int | None
    log_every: int

    @classmethod
    def draw(cls, rng: random.Random, index: int, *, objects: bool = False, processes: int | None = None) -> Setting:
        """Draw a setting; one of six has two processes, one of four drops paths, and loader processes go round.

        objects: networks of objects by turns. processes: so many in each setting.
        """
        processes = processes or (2 if index % 6 == 5 else 1)
        network = "segformer, drop path" if index % 4 == 1 and processes == 1 else "unet, dropout"
        return cls(
            network=OBJECTS[index % len(OBJECTS)] if objects else network,
            workers=index % 3,
            processes=processes,
            ema=rng.random() < 0.5,
            accumulate=rng.choice((1, 2)),
            precision=rng.choice(("fp32", "bf16")),
            schedule=rng.choice(("poly", "cosine", "plateau")),
            val_every=rng.choice((None, None, 3, 4)),
            checkpoint_every=rng.choice((None, 1, 3)),
            log_every=rng.choice((1, 3, 5)),
        )

    def words(self) -> list[str]:
        """Return the command line's words."""
        schedule = {"plateau": "{name: plateau, patience: 1, factor: 0.5}"}.get(
            self.schedule, f"{{name: {self.schedule}}}"
        )
        return [
            *COMMON,
            *NETWORKS[self.network],
            f"data.workers={self.workers}",
            f"train.devices={self.processes}",
            f"train.batch={1 if self.processes == 2 and self.network not in OBJECTS else 2}",
            f"train.accumulate={self.accumulate}",
            f"train.ema={'{decay: 0.9}' if self.ema else 'null'}",
            f"train.precision={self.precision}",
            f"train.schedule={schedule}",
            f"train.val_every={self.val_every or 'null'}",
            f"train.checkpoint_every={self.checkpoint_every or 'null'}",
            f"log.every={self.log_every}",
        ]

    def describe(self) -> str:
        """Return the setting in a table's words."""
        parts = [self.network, f"workers {self.workers}"]
        parts += ["two processes"] if self.processes == 2 else []
        parts += ["EMA"] if self.ema else []
        parts += ["accumulate 2"] if self.accumulate == 2 else []
        parts += [self.precision, self.schedule]
        parts += [f"validation every {self.val_every} steps"] if self.val_every else []
        parts += [f"checkpoint every {self.checkpoint_every}"] if self.checkpoint_every else []
        return ", ".join([*parts, f"log every {self.log_every}"])


# ---- processes
class Training:
    """One start of the command line, in a session of its own so that all its processes can be killed at once."""

    def __init__(self, words: Sequence[str], output: Path, *, fresh: bool):
        self._popen: subprocess.Popen[bytes] | None = None
        self.status: int | None = None
        if fresh:
            with output.open("ab") as file:
                command = [sys.executable, "-m", "segatlas", *words]
                self._popen = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
            self.pid = self._popen.pid
        else:
            self.pid = os.fork()
            if self.pid == 0:
                _be_the_command_line(words, output)

    def running(self) -> bool:
        """Return whether it still runs; afterwards `status` is its exit status."""
        if self.status is None and self._popen is not None:
            self.status = self._popen.poll()
        elif self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is None

    def wait(self, until: Any = lambda: False, patience: float = PATIENCE) -> float:
        """Wait for its end or for `until()`; return the seconds. Raises TimeoutError after `patience`."""
        started = time.monotonic()
        while self.running() and not until():
            if time.monotonic() - started > patience:
                self.kill()
                raise TimeoutError(f"still running after {patience:.0f} s")
            time.sleep(0.005)
        return time.monotonic() - started

    def kill(self) -> None:
        """Kill all its processes with SIGKILL."""
        if self.running():
            os.killpg(self.pid, signal.SIGKILL)
            while self.running():
                time.sleep(0.005)


def _be_the_command_line(words: Sequence[str], output: Path) -> None:
    status = 70
    try:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["segatlas", *words]
        command_line()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


# ---- comparing
def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between two finished runs, worst first."""
    found = []
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other)]
    for state in states:
        state.pop("recipe", None)  # names the run folder
    found += _unequal(states[0], states[1], "last.ckpt")
    for name in ("model.safetensors", "card.json"):
        if (one / "model" / name).read_bytes() != (other / "model" / name).read_bytes():
            found.append(f"model/{name}")
    if _rows(one) != _rows(other):
        found.append("metrics.csv")
    if _lines(one) != _lines(other):
        found.append("terminal lines")
    return found


def _unequal(one: Any, other: Any, where: str) -> list[str]:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        names = [f"{where}.{key}" for key in one.keys() ^ other.keys()]
        return names + [
            name for key in one.keys() & other.keys() for name in _unequal(one[key], other[key], f"{where}.{key}")
        ]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [name for i, pair in enumerate(zip(one, other, strict=True)) for name in _unequal(*pair, f"{where}.{i}")]
    else:
        same = one == other
    return [] if same else [where]


def _rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_s"} for row in csv.DictReader(file)]


def _lines(run: Path) -> dict[str, str]:
    """Return the last thing said about each step and each validation, without speed and time left."""
    said = {}
    for line in (run / "log.txt").read_text(encoding="utf-8").splitlines():
        match = re.search(r"(step \d+/\d+)  (loss \S+  lr \S+)|(step \d+  validation): (.*)", line)
        if match:
            said[match[1] or match[3]] = match[2] or match[4]
    return said


# ---- the campaign
@dataclass(kw_only=True)
class Baseline:
    """The whole run of a setting, with the seconds until its first checkpoint and until its evaluation."""

    setting: Setting
    run: Path
    first: float
    trained: float
    killed_at: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    runs: int = 0


class Campaign:
    """The runs of one setting, in a folder that all campaigns share."""

    def __init__(self, work: Path, setting: Setting, rng: random.Random, *, fresh: bool):
        self.work, self.setting, self.rng, self.fresh = work, setting, rng, fresh

    def start(self, run: Path, *words: str) -> Training:
        """Start `segatlas train`."""
        return Training(["train", *words], run.with_suffix(".out"), fresh=self.fresh or self.setting.processes > 1)

    def begin(self, run: Path) -> Training:
        """Start a run anew."""
        places = [f"run.dir={run}", f"run.root={self.work / 'runs'}", f"data.root={self.work / 'data'}"]
        places.append(f"data.store={self.work / 'store'}")
        return self.start(run, "--config", str(self.work / "recipe.yaml"), *places, *self.setting.words())

    def baseline(self, run: Path) -> Baseline:
        """Train without a disturbance."""
        last = run / "checkpoints" / "last.ckpt"
        training = self.begin(run)
        first = training.wait(last.exists)
        trained = first + training.wait((run / "eval.json").exists)
        training.wait()
        if training.status != 0:
            output = run.with_suffix(".out").read_text()
            raise RuntimeError(f"{self.setting.describe()}: exit status {training.status}\n{output}")
        return Baseline(setting=self.setting, run=run, first=first, trained=trained)

    def disturbed(self, base: Baseline, run: Path, kills: int) -> None:
        """Kill and resume; note in `base` what differs."""
        last = run / "checkpoints" / "last.ckpt"
        training = self.begin(run)
        steps = []
        for _ in range(kills):
            seen = last.stat().st_mtime_ns if last.exists() else 0
            training.wait(lambda seen=seen: last.exists() and last.stat().st_mtime_ns != seen)
            training.wait(patience=PATIENCE, until=_after(self.rng.uniform(0, base.trained - base.first)))
            ended = not training.running()
            training.kill()
            steps.append("end" if ended else str(torch.load(last, weights_only=True)["global_step"]))
            training = self.start(run, "--resume", str(run))
        training.wait()
        base.runs += 1
        base.killed_at.append(" and ".join(steps))
        if training.status != 0:
            base.faults.append(f"{run.name}: exit status {training.status}, see {run.with_suffix('.out')}")
            return
        found = differences(base.run, run)
        if found:
            base.faults.append(f"{run.name}: killed at {steps}: {len(found)} differ: {', '.join(found[:4])}")
        else:
            shutil.rmtree(run)


def _after(seconds: float) -> Any:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def table(bases: Sequence[Baseline]) -> str:
    """Return the Markdown table of a campaign."""
    lines = ["| Setting | Resumed at step | Equal |", "| --- | --- | --- |"]
    for base in bases:
        equal = base.runs - len(base.faults)
        lines.append(f"| {base.setting.describe()} | {', '.join(base.killed_at)} | {equal} of {base.runs} |")
    runs, faults = sum(base.runs for base in bases), sum(len(base.faults) for base in bases)
    return "\n".join([*lines, f"| all | | {runs - faults} of {runs} |"])


def run_setting(work: Path, index: int, runs: int, options: argparse.Namespace) -> Baseline:
    """Draw setting `index`, train it whole, then `runs` times with kills."""
    rng = random.Random(f"{options.seed}/{index}")
    setting = Setting.draw(rng, index, objects=options.objects, processes=options.processes)
    campaign = Campaign(work, setting, rng, fresh=options.fresh)
    base = campaign.baseline(work / f"whole-{index}")
    for number in range(runs):
        run = work / f"run-{index}-{number}"
        try:
            campaign.disturbed(base, run, kills=2 if rng.random() < 0.3 else 1)
        except TimeoutError as error:
            base.runs += 1
            base.faults.append(f"{run.name}: {error}")
        fault = next((fault for fault in base.faults if fault.startswith(f"{run.name}:")), f"{run.name}: equal")
        print(f"{fault}  [{base.setting.describe()}; {base.killed_at[-1:]}]", file=sys.stderr, flush=True)
    return base


def main() -> int:
    """Run a campaign. Exit status 1 where a run differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settings", type=int, default=12, help="settings drawn; runs of one share the whole run")
    parser.add_argument("--jobs", type=int, default=1, help="settings that are tried at the same time")
    parser.add_argument("--fresh", action="store_true", help="a new interpreter for every start")
    parser.add_argument("--objects", action="store_true", help="networks that find objects in place of the others")
    parser.add_argument("--processes", type=int, choices=(1, 2), help="so many in each; default: one of six has two")
    parser.add_argument("--keep", type=Path, help="folder to work in; it is not removed")
    options = parser.parse_args()
    work = (options.keep or Path(tempfile.mkdtemp(prefix="resume_campaign_"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    make_shapes(work / "data", train=13, val=3, test=1, size=(32, 48), seed=1)
    (work / "recipe.yaml").write_text("seed: 5\n")
    torch.set_num_threads(1)
    count = min(options.settings, options.runs)
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = [
            pool.submit(run_setting, work, index, len(range(index, options.runs, count)), options)
            for index in range(count)
        ]
        bases = [future.result() for future in waiting]
    print(table(bases))
    failed = any(base.faults for base in bases)
    if not options.keep and not failed:
        shutil.rmtree(work)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
