"""How much memory is free: of the machine, of the container that this process is in, or of a device."""

from __future__ import annotations

import re
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")
LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""Files of a container's limit and of what it uses, in the second version of Linux's control groups and the first."""


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free where a network would run, None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    told = [one for one in (_of_machine(MEMINFO), _of_container(CONTAINER)) if one is not None]
    return min(told, default=None)


def _of_machine(meminfo: Path) -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="utf-8"), flags=re.M)
    except OSError:  # not Linux
        return None
    return int(found[1]) * 1024 if found else None


def _of_container(folder: Path) -> int | None:
    """Return what a container's limit leaves; None where it has none, whose limit is a word or larger than any."""
    for limit, used in LIMITS:
        try:
            return max(int((folder / limit).read_text()) - int((folder / used).read_text()), 0)
        except (OSError, ValueError):
            continue
    return None
