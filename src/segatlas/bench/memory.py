"""Peak memory of one call beyond the loaded model, each in a fresh child process.

A process that has run other things before keeps their memory, so nothing can be told from the parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from segatlas.bench.settings import BenchSettings
from segatlas.errors import SegAtlasError
from segatlas.inference.runner import Precision

MIB = 2**20
_CHILD = "from segatlas.bench.memory import child; child()"
_WARM_UP = (64, 64)


def measure_memory(model: str, precision: Precision, piece: str, settings: BenchSettings) -> float | None:
    """Return the peak memory of one call in MiB beyond the loaded model; None where the system does not tell.

    Raises:
        SegAtlasError: the child process failed, for lack of memory for example.
    """
    request = {"model": model, "precision": precision, "piece": piece, "settings": asdict(settings)}
    source = str(Path(__file__).resolve().parents[2])  # the child finds this very package, installed or not
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SegAtlasError(f"{model}, {precision}: memory of '{piece}' could not be measured ({said[-1]})")
    answer: float | None = json.loads(done.stdout.splitlines()[-1])
    return answer


def child() -> None:
    """Read a request from stdin, measure, print the answer as the last line. Runs in the child process."""
    import torch

    from segatlas.bench.subjects import forward, load_subject, make_calls
    from segatlas.inference import Predictor
    from segatlas.structures import noise_inputs

    request = json.load(sys.stdin)
    values = request["settings"]
    settings = BenchSettings(**{**values, "size": tuple(values["size"]), "precisions": tuple(values["precisions"])})
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    subject = load_subject(request["model"], settings)
    call = make_calls(subject, request["precision"], settings)[request["piece"]]
    # A tiny first pass loads libraries and touches all weights, which belong to the loaded model, not to the call.
    warm_up = noise_inputs(subject.card.inputs, _WARM_UP).given()
    forward(Predictor(subject.net, subject.card, device="cpu", precision=request["precision"]), warm_up)
    grown = peak_growth(call)
    print(json.dumps(None if grown is None else round(grown / MIB, 1)))


def peak_growth(call: Callable[[], object]) -> int | None:
    """Run `call` and return its peak resident memory minus the resident memory before, in bytes.

    On Linux the kernel's high-water mark is set back first. Elsewhere the highest mark of the whole process is used, so
    that a call that stays below what loading took reads as 0. None where there is no such mark.
    """
    _return_free_memory()
    before = _reset_peak()
    call()
    after = _peak()
    return None if before is None or after is None else max(0, after - before)


def _return_free_memory() -> None:
    """Give what loading freed back to the system: a call that used it again would seem to need less."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # a C library without this call
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> int | None:
    """Set the high-water mark back where the system can; return the mark as it now is, in bytes."""
    with contextlib.suppress(OSError):  # no such file outside Linux, or closed to us in a container
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int | None:
    """Return the high-water mark of resident memory in bytes."""
    # VmHWM first: getrusage hands the mark of the parent process on to its child.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
