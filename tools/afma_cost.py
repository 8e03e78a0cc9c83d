"""What AFMA adds to its host: `python tools/afma_cost.py [--threads 2] [--turns 10] [--only time|memory|training]`.

The host is a U-Net on ResNet-34 with 12 classes, an image at a time, in fp32 and the form that predicts. Times are
medians of turns in one process, host and host with AFMA one after the other. Memory is that of a process of its own for
each number: the most that a call held beyond the network, of both, and of AFMA's part alone, given what the host gives.
Training is AFMA's part with its loss, forward and backward.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segatlas.bench.machine import LoadWatch
from segatlas.bench.memory import peak_growth
from segatlas.bench.timing import time_alternating
from segatlas.build.network import create_model
from segatlas.inference.fast_form import fast_form
from segatlas.losses import LOSSES
from segatlas.models.afma import AFMA, logits_of
from segatlas.structures import InputSpec

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 12
CASES = ((512, 3), (1024, 3), (512, 1), (1024, 1))
"""(side of the image, level)."""
MB = 1e6


def networks(level: int) -> tuple[AFMA, torch.nn.Module]:
    """Return the network with AFMA, and the fast form of its host alone."""
    torch.manual_seed(0)
    host = create_model("unet", encoder="resnet34", num_classes=CLASSES).eval()
    net: Any = create_model("afma", host=host, level=level, num_classes=CLASSES).eval()
    return net, fast_form(host, [InputSpec(channels=3)])


@torch.inference_mode()
def times(side: int, level: int, turns: int) -> dict[str, float]:
    """Return medians in ms of both, of wall clock and of processor time."""
    net, host = networks(level)
    both, image = fast_form(net, [InputSpec(channels=3)]), torch.randn(1, 3, side, side)
    alone, whole = time_alternating([lambda: host(image), lambda: both(image)], repeats=turns, warmups=2)
    return {
        "host_ms": alone.wall_ms.median,
        "ms": whole.wall_ms.median,
        "ratio": whole.wall_ms.median / alone.wall_ms.median,
        "cpu_ratio": whole.cpu_ms.median / alone.cpu_ms.median,
    }


@torch.inference_mode()
def memory(side: int, level: int, what: str) -> float:
    """Return the most MB that a call holds beyond the network: of "host", "both", or AFMA's "own" part."""
    net, host = networks(level)
    both: Any = fast_form(net, [InputSpec(channels=3)])
    image, small = torch.randn(1, 3, side, side), torch.randn(1, 3, 64, 64)
    both(small), host(small)  # what is loaded once does not count
    if what != "own":
        used = host if what == "host" else both
        return (peak_growth(lambda: used(image)) or 0) / MB
    out, maps, _ = both.host.forward_with_maps(image)
    logits, features = logits_of(out).clone(), maps[level - 1].clone()
    del out, maps
    return (peak_growth(lambda: both.changed(logits, both.attention(image, features))) or 0) / MB


def training(side: int, level: int) -> float:
    """Return the most MB that AFMA's part and its loss hold, forward and backward."""
    net, _ = networks(level)
    loss = LOSSES["patch_attention"]()
    cells, width = -(-side // net.stride), net.cell_maps.in_channels

    def step(image: Tensor, features: Tensor, logits: Tensor, labels: Tensor) -> None:
        attention = net.attention(image, features)
        changed = net.changed(logits, attention)
        (changed.square().mean() + loss(attention, labels)).backward()

    def given(side: int, cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        labels = torch.randint(0, CLASSES, (1, side, side))
        maps = torch.randn(1, 3, side, side), torch.randn(1, width, cells, cells), torch.randn(1, CLASSES, side, side)
        return (*maps, labels)

    step(*given(64, -(-64 // net.stride)))
    whole = given(side, cells)
    return (peak_growth(lambda: step(*whole)) or 0) / MB


def apart(*words: Any) -> Any:
    """Return what a case gives in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--case", json.dumps(words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a line for each case, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--side", type=int, help="leave out images of other sizes")
    parser.add_argument("--only", choices=("time", "memory", "training"), help="leave out the others")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.case is not None:
        kind, *words = json.loads(args.case)
        torch.set_num_threads(1)
        print(json.dumps((memory if kind == "memory" else training)(*words)))
        return
    watch = LoadWatch()
    for side, level in CASES:
        if args.side not in (None, side):
            continue
        told = []
        if args.only in (None, "time"):
            found = times(side, level, args.turns)
            told += [f"{found['host_ms']:.0f} ms, with AFMA {found['ms']:.0f} ms: {found['ratio']:.3f} of the time"]
            told += [f"{found['cpu_ratio']:.3f} of the processor time"]
        if args.only in (None, "memory"):
            host, both, own = (apart("memory", side, level, what) for what in ("host", "both", "own"))
            told += [f"peak {host:.0f} MB, with AFMA {both:.0f} MB, AFMA's part alone {own:.0f} MB"]
        if args.only in (None, "training"):
            told += [f"its part of a training step {apart('training', side, level):.0f} MB"]
        print(f"{side} x {side}, level {level}: {'; '.join(told)}", flush=True)
    print(watch.finish())


if __name__ == "__main__":
    main()
