"""A recipe beside a plain training loop on the same data, for as many steps of as many images, scored by the same code:

    python tools/beside_plain_loop.py my-data --steps 300 --batch 2
    python tools/beside_plain_loop.py unet_folder data.root=my-data transforms.turns=true --seed 1 --only recipe

The first words are those of `segatlas train`. The plain loop is what one writes in an hour: U-Net with a ResNet-34 from
random weights (`--weights imagenet`: where they can be had), AdamW at a constant 1e-3, cross-entropy, whole images,
flips and quarter turns. Printed are seconds of training, mIoU and the IoU of each class, of the recipe's best
validation and of the loop's end, and the recipe's choices. Runs are left in `--out`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.checkpoint.preprocessing import default_preprocessing
from segatlas.cli.data_words import with_recipe
from segatlas.data import create_dataset
from segatlas.data.dataset import SegmentationData
from segatlas.evaluation import evaluate
from segatlas.labels import IGNORE
from segatlas.recipe import Config
from segatlas.training import train

CHOSEN = ("chosen ", "encoder weights", "weights at the start")


def plain_loop(data: SegmentationData, *, steps: int, batch: int, seed: int, weights: str | None) -> nn.Module:
    """Return a network trained on a split of masks of classes."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    net = create_model(
        "unet", encoder="resnet34", encoder_weights=weights, num_classes=len(data.classes), in_channels=data.channels
    ).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < batch:
            order += draw.permutation(len(data)).tolist()
        taken, order = order[:batch], order[batch:]
        images, labels = padded([turned(data, index, draw) for index in taken])
        output = net(images)
        logits = F.interpolate(output.logits, labels.shape[-2:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def turned(data: SegmentationData, index: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (C, H, W), normalised, and its labels (H, W), turned and flipped alike."""
    sample, known = data.load(index), default_preprocessing(data.channels)
    if sample.label is None:
        raise SystemExit(f"{data.key(index)} has no mask of classes: the plain loop needs one")
    image = (sample.image / np.float32(known.max_value) - np.float32(known.mean)) / np.float32(known.std)
    image, label = image.transpose(2, 0, 1), sample.label
    turns, across, down = draw.integers(4), draw.random() < 0.5, draw.random() < 0.5
    image, label = np.rot90(image, turns, (1, 2)), np.rot90(label, turns)
    image, label = (image[..., ::-1], label[:, ::-1]) if across else (image, label)
    return (image[:, ::-1], label[::-1]) if down else (image, label)


def padded(samples: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W) and labels (N, H, W) int64, padded to the largest."""
    height, width = (max(label.shape[axis] for _, label in samples) for axis in (0, 1))
    images = np.zeros((len(samples), samples[0][0].shape[0], height, width), np.float32)
    labels = np.full((len(samples), height, width), IGNORE, np.int64)
    for index, (image, label) in enumerate(samples):
        images[index, :, : label.shape[0], : label.shape[1]] = image
        labels[index, : label.shape[0], : label.shape[1]] = label
    return torch.from_numpy(images), torch.from_numpy(labels)


def tell(name: str, seconds: float, model: Path, config: Config, split: str) -> None:
    """Print one side's scores."""
    scores = evaluate(model, config, split, boundary=False, sizes=False, progress=False).scores
    rows = ", ".join(f"{row['class']} {row['iou']:.3f}" for row in scores.per_class() if row["iou"] is not None)
    print(f"{name}: {seconds:.0f} s, {split} mIoU {scores.summary()['miou']:.3f} ({rows})", flush=True)


def main() -> None:
    """Train both and print their scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", help="a folder or a recipe, then KEY=VALUE")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="val", help="that both are scored on")
    parser.add_argument("--weights", default=None, help="of the plain loop's encoder: imagenet, or a file")
    parser.add_argument("--only", choices=("recipe", "plain"), help="train one of them")
    parser.add_argument("--out", type=Path, default=Path("beside_plain_loop"))
    given = parser.parse_args()
    words, _ = with_recipe(given.words)
    place = given.out / f"seed{given.seed}"
    same = (f"train.steps={given.steps}", f"train.batch={given.batch}", f"seed={given.seed}", f"run.root={place}")
    config = Config.load(words[0], *same, *words[1:])
    if given.only != "plain":
        began = time.perf_counter()
        run = train(config, quiet=True)
        seconds = time.perf_counter() - began
        for line in (run.dir / "log.txt").read_text(encoding="utf-8").splitlines():
            if any(mark in line for mark in CHOSEN):
                print(line)
        tell(f"recipe {words[0]}", seconds, run.best, config, given.split)
    if given.only != "recipe":
        began = time.perf_counter()
        data = create_dataset(config.data, "train", given.seed)
        net = plain_loop(data, steps=given.steps, batch=given.batch, seed=given.seed, weights=given.weights)
        seconds = time.perf_counter() - began
        model = save_pretrained(net, place / "plain", classes=data.classes, palette=data.palette)
        tell("plain loop", seconds, model, config, given.split)


if __name__ == "__main__":
    main()
