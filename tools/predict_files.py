"""Images per second and peak memory of predicting many image files, each side in fresh processes that take turns:

    python tools/predict_files.py [--against SRC] [--files 500] [--rounds 5] [--batch 1] [--json FILE]

The files are seeded noise on smooth colours, JPEG and PNG of about 256 x 256 pixels; the network is a small U-Net, so
that what is done around a network is a large part. A process loads the model folder, predicts a few files, then all of
them with one `predict_iter`, as a user would, and tells its time and its largest resident memory.

With --against (the `src` folder of another checkout) each round has a process of either side. They take turns of a few
files, A B B A, so that what slows the machine for a while slows both; ratios are this one's median over the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZES = ((240, 320), (320, 240), (256, 256))
WARM_UPS = 8
TURN = 20
"""Files that a process predicts before it is the other one's turn."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="SRC", help="the src folder of another checkout")
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1, help="images of one size per pass")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args(arguments)
    sides = {"this": ROOT / "src"} | ({"other": args.against.resolve()} if args.against else {})
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", args.files)
        write_model(sides["this"], folder)
        for number in range(args.rounds):
            for side, figures in one_round(sides, folder, args.batch).items():
                rounds[side].append(figures)
                print(f"round {number + 1}, {side}: {figures}", file=sys.stderr, flush=True)
    found = summary(rounds, args.files)
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps({**found, "rounds": rounds}, indent=1) + "\n", encoding="utf-8")
    return 0


def write_images(folder: Path, count: int) -> None:
    """Write `count` images, every other one a PNG."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        height, width = SIZES[number % len(SIZES)]
        smooth = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
        noise = generator.integers(-12, 13, (height, width, 3))
        image = Image.fromarray((np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number:04d}.{'png' if number % 2 else 'jpg'}")


def one_round(sides: dict[str, Path], folder: str, batch: int) -> dict[str, dict[str, float]]:
    """Return the figures of each side, each from a process of its own; the two take turns."""
    found: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        started = {side: stack.enter_context(start(source, folder, str(batch))) for side, source in sides.items()}
        order = list(started)
        for process in started.values():
            answer(process)  # ready
        while len(found) < len(started):
            for side in order:
                process = started[side]
                assert process.stdin is not None
                print(TURN, file=process.stdin, flush=True)
                if figures := answer(process):
                    found[side] = figures
            order.reverse()
    return found


def start(source: Path, *words: str) -> subprocess.Popen[str]:
    """Start this script on the package in `source`, with one thread of torch."""
    settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(source)}
    command = [sys.executable, str(Path(__file__).resolve()), "child", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ, **settings}, **pipes)


def answer(process: subprocess.Popen[str]) -> dict[str, float]:
    """Return what a process says next, {} while it has files left."""
    assert process.stdout is not None
    said: dict[str, float] = json.loads(process.stdout.readline())
    return said


def write_model(source: Path, folder: str) -> None:
    with start(source, folder, "model") as process:
        answer(process)


def child(folder: str, word: str) -> None:
    """Make the model folder (`word` is "model"), or predict all images in passes of `word`, some at each line read."""
    import torch

    import segatlas as sa

    if word == "model":
        torch.manual_seed(0)
        net = sa.create_model("unet", num_classes=5, width=4)
        sa.save_pretrained(net, f"{folder}/model", classes=[f"class {index}" for index in range(5)])
        return print("{}")
    files = sorted(Path(folder, "images").iterdir())
    predictor = sa.load(f"{folder}/model", device="cpu")
    for _ in predictor.predict_iter(files[:WARM_UPS], batch=int(word)):
        pass
    results, took = predictor.predict_iter(files, batch=int(word)), {"wall_s": 0.0, "processor_s": 0.0}
    done = 0
    print("{}", flush=True)
    for line in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(min(int(line), len(files) - done)):
            next(results)
            done += 1
        took["wall_s"] += time.perf_counter() - wall
        took["processor_s"] += time.process_time() - processor
        if done < len(files):
            print("{}", flush=True)
            continue
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({name: round(value, 3) for name, value in {**took, "peak_mib": peak}.items()}), flush=True)
        return None
    return None


def summary(rounds: dict[str, list[dict[str, float]]], files: int) -> dict[str, Any]:
    """Return the medians of each side, and this one's over the other's."""
    found: dict[str, Any] = {side: medians(figures, files) for side, figures in rounds.items()}
    if "other" in found:
        found["ratio"] = {name: round(value / found["other"][name], 3) for name, value in found["this"].items()}
    return found


def medians(rounds: Sequence[dict[str, float]], files: int) -> dict[str, float]:
    found = {name: round(median(figures[name] for figures in rounds), 3) for name in rounds[0]}
    found["images_per_second"] = round(files / found["wall_s"], 1)
    found["images_per_processor_second"] = round(files / found["processor_s"], 1)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        sys.exit(main())
