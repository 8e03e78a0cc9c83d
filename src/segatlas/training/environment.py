"""env.json: what was used to train, so that a run can be understood and repeated later."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from segatlas.data.dataset import SegmentationData
from segatlas.recipe import Config
from segatlas.training.building import TrainingComponents

PACKAGES = ("segatlas", "torch", "lightning", "numpy", "opencv-python-headless", "pillow", "timm")


def recorded_environment(file: Path) -> dict[str, Any]:
    """Return what `describe_environment` wrote to a run's file; {} where that is missing or damaged."""
    try:
        recorded = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def describe_environment(config: Config, parts: TrainingComponents) -> dict[str, Any]:
    """Return versions, machine, command, seed, git state and a hash of the data's file list, as plain types."""
    return {
        "command": sys.argv,
        "seed": config.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git": _git_state(),
        "data": {part.split: manifest(part) for part in (parts.train, parts.val)},
    }


def manifest(dataset: SegmentationData) -> dict[str, Any]:
    """Return the number of images and a hash over every file's name and size."""
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        for path in dataset.files(index):
            if path is not None:
                digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
    return {"images": len(dataset), "sha256_of_names_and_sizes": digest.hexdigest()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_state() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
