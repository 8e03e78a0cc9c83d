"""Training on two processes under torchrun (gloo): a kill at any moment and a resume end as if nothing had happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import resume_campaign
from segatlas.config import to_yaml
from segatlas.data.shapes import make_shapes

ROOT = Path(__file__).resolve().parents[2]


def torchrun(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    words = ["torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    return python(*words, str(Path(__file__).with_name("two_processes.py")), *arguments, **environment)


def python(*words: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=290, check=False)


@pytest.mark.timeout(900)  # three times two processes that import torch
def test_a_killed_run_on_two_processes_resumes_to_the_same_weights(recipe, tmp_path):
    data = make_shapes(tmp_path / "shapes", train=10, val=1, test=0, size=(32, 48), seed=1)  # val: one process has none
    settings = (
        f"data.root={data}",
        "data.workers=1",
        "log.every=2",
        "train.accumulate=2",
        "train.batch=1",
        "train.ema={decay: 0.9}",
        "train.checkpoint_every=1",
    )
    recipes = {}
    for name in ("whole", "cut"):
        recipes[name] = tmp_path / f"{name}.yaml"
        recipes[name].write_text(to_yaml(recipe(*settings, "log.samples=0", name=name)))
    whole = torchrun(str(recipes["whole"]))
    assert whole.returncode == 0, whole.stderr[-2000:]
    killed = torchrun(str(recipes["cut"]), KILL_AT="3")
    assert killed.returncode != 0
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3
    # the other way to start two processes: the command line does it
    resumed = python("segatlas", "train", "--resume", str(tmp_path / "cut"), "--devices", "2", "--json", "--quiet")
    assert len(resumed.stdout.splitlines()) == 1, "both processes speak"
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert resume_campaign.differences(tmp_path / "whole", tmp_path / "cut") == []
    assert (tmp_path / "cut" / "report.html").exists()
