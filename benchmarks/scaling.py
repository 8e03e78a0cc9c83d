"""How time and memory grow with the size of the image, the number of classes and the number of windows.

Run as a script it prints one JSON object: lists of records, one table each. Every record comes from a fresh process: a
tiny call first, which loads libraries, then one call whose peak of resident memory is read, then a few for the time.
The network is two small convolutions at stride 4, so that what grows is what SegAtlas does around a network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

SIDES = {0.25: 512, 1: 1024, 4: 2048, 16: 4096, 64: 8192}
"""Megapixels (of 2 ** 20) and the side of a square image."""

CLASSES = (2, 19, 150, 1000)
STRIDE = 4
WINDOW = 512
SMALL = 64
MOST_SECONDS = 1.5
"""A call is made up to three times for its time, while that takes no longer."""

MIB = 2**20


def main() -> None:
    """Measure everything and print it."""
    found: dict[str, Any] = {"network": "3x3 convolutions 3 > 16 > classes, strides 2 and 2", "threads": os.cpu_count()}
    for name, requests in tables().items():
        found[name] = [request["shown"] | ask(request) for request in requests]
    print(json.dumps(found, indent=1))


def tables() -> dict[str, list[dict[str, Any]]]:
    """Return what to measure, by table."""
    maps = [map_request(size, 19) for size in SIDES] + [map_request(1, classes) for classes in CLASSES if classes != 19]
    predictions = [predict_request(size, 19, window) for size in SIDES for window in (None, WINDOW)]
    classes = [predict_request(4, count, WINDOW) for count in CLASSES]
    windows = [predict_request(16, 19, window) for window in (2048, 1024, 256)]
    return {
        "class_map_from_logits_at_stride_4": maps,
        "predict_by_image_size": predictions,
        "predict_by_classes": classes,
        "predict_by_windows": windows,
    }


def map_request(size: float, classes: int) -> dict[str, Any]:
    logits = classes * (SIDES[size] // STRIDE) ** 2 * 4 / MIB
    shown = {"megapixels": size, "classes": classes, "logits_mib": round(logits, 1)}
    return {"piece": "class_map", "side": SIDES[size], "classes": classes, "shown": shown}


def predict_request(size: float, classes: int, window: int | None) -> dict[str, Any]:
    from segatlas.inference.sliding import make_windows
    from segatlas.ops import window_starts

    count = 1
    if window is not None:
        windows = make_windows(window)
        count = len(window_starts(SIDES[size], windows.crop[0], windows.stride[0])) ** 2
    shown = {"megapixels": size, "classes": classes, "window": window, "windows": count}
    return {"piece": "predict", "side": SIDES[size], "classes": classes, "window": window, "shown": shown}


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Measure one record in a process of its own."""
    import segatlas

    paths = [str(Path(segatlas.__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), json.dumps(request)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"processor_ms": None, "wall_ms": None, "extra_mib": None, "reason": said[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def child(request: dict[str, Any]) -> None:
    """Measure one record and print it."""
    from segatlas.bench.memory import peak_growth

    make = {"class_map": make_map_call, "predict": make_predict_call}[request["piece"]]
    make(request | {"side": SMALL})()
    call = make(request)
    clocks: list[tuple[float, float]] = []
    growth = peak_growth(lambda: clocks.append(clock(call)))
    while len(clocks) < 4 and sum(wall for _, wall in clocks) < MOST_SECONDS:
        clocks.append(clock(call))
    later = clocks[1:] or clocks  # the first one pays for new memory
    result = request["side"] ** 2 * (1 if request["classes"] <= 255 else 4)
    print(
        json.dumps(
            {
                "processor_ms": round(1000 * median(cpu for cpu, _ in later), 2),
                "wall_ms": round(1000 * median(wall for _, wall in later), 2),
                "extra_mib": None if growth is None else round((growth - result) / MIB, 1),
            }
        )
    )


def clock(call: Callable[[], object]) -> tuple[float, float]:
    """Return processor and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def make_map_call(request: dict[str, Any]) -> Callable[[], object]:
    """Return the class map of label-like logits: one class leads in each block of 24 x 24 samples."""
    import torch

    from segatlas.ops import class_map

    side, classes = request["side"], request["classes"]
    generator = torch.Generator().manual_seed(0)
    low = side // STRIDE
    logits = torch.randn(1, classes, low, low, generator=generator)
    for top, left in blocks(low, 24):
        leader = int(torch.randint(0, classes, (), generator=generator))
        logits[:, leader, top : top + 24, left : left + 24] += 8
    return lambda: class_map(logits, (side, side))


def blocks(side: int, step: int) -> Iterator[tuple[int, int]]:
    return ((top, left) for top in range(0, side, step) for left in range(0, side, step))


def make_predict_call(request: dict[str, Any]) -> Callable[[], object]:
    """Return predict on an image of noise, held as an array."""
    import numpy as np
    import torch

    from segatlas.checkpoint.card import Card, InputSpec
    from segatlas.checkpoint.preprocessing import Preprocessing
    from segatlas.inference import Predictor

    side, classes = request["side"], request["classes"]
    card = Card(
        architecture="unet",
        config={},
        classes=tuple(f"class {index}" for index in range(classes)),
        palette=((0, 0, 0),) * classes,
        inputs=(InputSpec(channels=3),),
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3),
    )
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    predictor = Predictor(small_net(classes), card, device="cpu", window=request["window"])
    return lambda: predictor.predict(image)


def small_net(classes: int) -> Any:
    """Return the network: two convolutions of stride 2."""
    from torch import Tensor, nn

    from segatlas.structures import SemanticLogits

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU())
            self.classifier = nn.Conv2d(16, classes, 3, stride=2, padding=1)

        def forward(self, x: Tensor) -> SemanticLogits:
            return SemanticLogits(self.classifier(self.features(x)), canvas=(x.shape[-2], x.shape[-1]))

    return Small()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(json.loads(sys.argv[1]))
    else:
        main()
