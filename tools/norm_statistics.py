"""Take a model's batch norm statistics anew from images, with or without its dropout, and save it with them.

    python tools/norm_statistics.py RUN IMAGES OUT [--dropout] [--images 30] [--seed 0]

The weights stay. A network whose dropout stands before batch norm sees other statistics while it trains than it meets
at prediction; what that costs is the difference between two such folders in `segatlas eval OUT`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

import segatlas


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run or model folder")
    parser.add_argument("folder", type=Path, help="images to take the statistics from")
    parser.add_argument("out", type=Path, help="model folder to write")
    parser.add_argument("--dropout", action="store_true", help="as in training")
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    files = sorted(path for path in given.folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        parser.error(f"{given.folder}: no PNG or JPEG image")
    predictor = segatlas.load(given.run, device="cpu", precision="fp32")
    net = predictor.model
    forget(net, dropout=given.dropout)
    for file in random.Random(given.seed).sample(files, min(given.images, len(files))):
        with torch.inference_mode():
            net(predictor.prepare(file).pixels[None])
    net.eval()
    segatlas.save_pretrained(net, given.out, classes=predictor.card.classes, card=predictor.card)
    print(f"written: {given.out}, statistics of {min(given.images, len(files))} images")


def forget(net: nn.Module, dropout: bool) -> None:
    """Let batch norm average what it sees from here on, all images alike; dropout as in training, or none."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            module.momentum = None
            module.train()
        elif isinstance(module, _DropoutNd):
            module.train(dropout)


if __name__ == "__main__":
    main()
