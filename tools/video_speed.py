"""Frames per second from file to file: `predict` of a video beside a plain loop, in turns, in one process:

    python tools/video_speed.py MODEL CLIP [--rounds 5] [--frames N] [--device cpu] [--threads N]

The plain loop decodes a frame, predicts it, tints it and encodes it, one after the other, with the same model and
encoder settings. Printed are medians over the rounds, the ratio (above 1: `predict` makes more frames per second), and
the number of labels that differ between the two. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from segatlas.data.video import open_frames
from segatlas.inference import Predictor, load
from segatlas.output import draw
from segatlas.output.options import WriterOptions
from segatlas.output.video import CODEC_OPTIONS
from segatlas.video import VideoTargets, write_video


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, help="so many of the clip")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    predictor = load(args.model, device=args.device)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.mp4"
        sides = {"predict": by_predict, "plain": by_plain_loop}
        for side in sides.values():  # the fast form is made, files are in the page cache
            side(predictor, args.clip, out, 2)
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(args.rounds):
            for name in sorted(sides, reverse=number % 2 == 1):
                frames, seconds = sides[name](predictor, args.clip, out, args.frames)
                rates[name].append(frames / seconds)
    found = {name: round(median(values), 2) for name, values in rates.items()}
    ratio = median(a / b for a, b in zip(rates["predict"], rates["plain"], strict=True))
    differ = differing_labels(predictor, args.clip, args.frames)
    print(f"{frames} frames: predict {found['predict']} frames/s, plain loop {found['plain']}, ratio {ratio:.2f}")
    print(f"labels that differ: {differ}")
    print(json.dumps({"frames": frames, **found, "ratio": round(ratio, 3), "labels_that_differ": differ}))
    return int(differ > 0)


def by_predict(predictor: Predictor, clip: Path, out: Path, most: int | None) -> tuple[int, float]:
    """Return frames and seconds of what the command does."""
    start = time.perf_counter()
    summary = write_video(
        predictor, open_frames(clip), VideoTargets(videos={"overlay": out}), WriterOptions(), most=most
    )
    return summary.frames, time.perf_counter() - start


def by_plain_loop(predictor: Predictor, clip: Path, out: Path, most: int | None) -> tuple[int, float]:
    """Return frames and seconds of a loop without threads of its own and without care for time stamps."""
    import av

    start, count = time.perf_counter(), 0
    with av.open(str(clip)) as given, av.open(str(out), "w") as made:
        stream: Any = None
        for frame in islice(given.decode(video=0), most):
            image = frame.to_ndarray(format="rgb24")
            drawn = draw(predictor.card.task, "overlay", predictor.predict(image))
            drawn = drawn[: drawn.shape[0] // 2 * 2, : drawn.shape[1] // 2 * 2]
            if stream is None:
                stream = made.add_stream("libx264", rate=given.streams.video[0].average_rate or 25)
                stream.height, stream.width, stream.pix_fmt = *drawn.shape[:2], "yuv420p"
                stream.codec_context.options = CODEC_OPTIONS["libx264"]
                stream.codec_context.max_b_frames = 0
            made.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(drawn), format="rgb24")))
            count += 1
        made.mux(stream.encode(None))
    return count, time.perf_counter() - start


def differing_labels(predictor: Predictor, clip: Path, most: int | None) -> int:
    """Return how many pixels get other labels, or are drawn otherwise, in the stream than alone."""
    task, differ = predictor.card.task, 0
    for frame, result in predictor.stream(str(clip), most=most):
        alone = predictor.predict(frame.image)
        if result.class_map is not None:
            differ += int((result.semantic != alone.semantic).sum())
        else:
            differ += int((draw(task, "overlay", result) != draw(task, "overlay", alone)).any(axis=2).sum())
    return differ


if __name__ == "__main__":
    sys.exit(main())
