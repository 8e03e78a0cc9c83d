"""Images per second and peak memory of predicting many image files, each side in fresh processes that take turns:

    python tools/predict_files.py [--against SRC] [--files 500] [--rounds 5] [--batch 1] [--json FILE]

The files are seeded noise on smooth colours, JPEG and PNG of about 256 x 256 pixels; the network is a small U-Net, so
that what is done around a network is a large part. A process loads the model folder, predicts a few files, then all of
them with one `predict_iter`, as a user would, and tells its time and its largest resident memory.

With --against (the `src` folder of another checkout) each round has a process of either side. They take turns of a few
files, A B B A, so that what slows the machine for a while slows both. Ratios are medians of this one's turns over the
other's turns beside them: below 1 is less time, less memory.
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

Turn = dict[str, float]
"""wall_s, processor_s; of a process's last turn also peak_mib."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="SRC", help="the src folder of another checkout")
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1, help="images of one size per pass")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args(arguments)
    sides = {"this": ROOT / "src"} | ({"other": args.against.resolve()} if args.against else {})
    rounds: list[dict[str, list[Turn]]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", args.files)
        write_model(folder)
        for number in range(args.rounds):
            rounds.append(one_round(sides, folder, args.batch))
            print(f"round {number + 1}: {summary(rounds[-1:], args.files)}", file=sys.stderr, flush=True)
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


def one_round(sides: dict[str, Path], folder: str, batch: int) -> dict[str, list[Turn]]:
    """Return the turns of each side, each in a process of its own."""
    turns: dict[str, list[Turn]] = {side: [] for side in sides}
    with ExitStack() as stack:
        started = {side: stack.enter_context(start(source, folder, str(batch))) for side, source in sides.items()}
        order = list(started)
        for process in started.values():
            answer(process)  # is ready
        while not all(of_side and "peak_mib" in of_side[-1] for of_side in turns.values()):
            for side in order:
                process = started[side]
                assert process.stdin is not None
                print("go on", file=process.stdin, flush=True)
                turns[side].append(answer(process))
            order.reverse()
    return turns


def start(source: Path, *words: str) -> subprocess.Popen[str]:
    """Start this script on the package in `source`, with one thread of torch."""
    settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(source)}
    command = [sys.executable, str(Path(__file__).resolve()), "child", *words]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
    )


def answer(process: subprocess.Popen[str]) -> Turn:
    """Return what a process says next."""
    assert process.stdout is not None
    said: Turn = json.loads(process.stdout.readline())
    return said


def child(folder: str, batch: str) -> None:
    """Predict all images, some at each line read; print what each turn took, with the last one the peak of memory."""
    import segatlas as sa

    files = sorted(Path(folder, "images").iterdir())
    predictor = sa.load(f"{folder}/model", device="cpu")
    for _ in predictor.predict_iter(files[:WARM_UPS], batch=int(batch)):
        pass
    results = predictor.predict_iter(files, batch=int(batch))
    print("{}", flush=True)
    for first in range(0, len(files), TURN):
        sys.stdin.readline()
        wall, processor = time.perf_counter(), time.process_time()
        for _ in files[first : first + TURN]:
            next(results)
        turn = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
        if first + TURN >= len(files):
            turn["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({name: round(value, 4) for name, value in turn.items()}), flush=True)


def write_model(folder: str) -> None:
    import torch

    import segatlas as sa

    torch.manual_seed(0)
    net = sa.create_model("unet", num_classes=5, width=4)
    sa.save_pretrained(net, f"{folder}/model", classes=[f"class {index}" for index in range(5)])


def summary(rounds: Sequence[dict[str, list[Turn]]], files: int) -> dict[str, Any]:
    """Return the figures of each side, medians of all rounds, and ratios: medians of turn by turn, this over other."""
    found: dict[str, Any] = {}
    for side in rounds[0]:
        wall, processor = (
            median(sum(turn[name] for turn in one[side]) for one in rounds) for name in ("wall_s", "processor_s")
        )
        found[side] = {
            "images_per_second": round(files / wall, 1),
            "images_per_processor_second": round(files / processor, 1),
            "peak_mib": round(median(one[side][-1]["peak_mib"] for one in rounds), 1),
        }
    if "other" in found:
        pairs = [pair for one in rounds for pair in zip(one["this"], one["other"], strict=True)]
        found["ratio"] = {
            name: round(median(this[name] / other[name] for this, other in pairs if name in this), 3)
            for name in ("wall_s", "processor_s", "peak_mib")
        }
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        sys.exit(main())
