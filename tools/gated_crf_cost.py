"""What the gated CRF adds to a training step: `python tools/gated_crf_cost.py [--threads 1] [--turns 8] [--batch 2]`.

Steps of `weak_scribbles`' network with 19 classes on images of 512x512 in fp32, cross-entropy alone and with the gated
CRF as the recipe has it, in turn in one process. Times are medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from segatlas.bench.timing import time_alternating
from segatlas.build.network import create_model
from segatlas.criteria import build
from segatlas.labels import IGNORE
from segatlas.recipe import Config
from segatlas.structures import Surroundings

CLASSES, SIDE = 19, 512


def step_of(config: Config, batch: int) -> Callable[[], None]:
    """Return a training step with the losses of a recipe."""
    torch.manual_seed(0)
    encoder, channels = config.model.encoder, config.model.decoder_channels
    net = create_model("unet", encoder=encoder, decoder_channels=channels, num_classes=CLASSES).train()
    criterion = build("SemanticLogits", config.losses)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    image, labels = torch.randn(batch, 3, SIDE, SIDE), torch.full((batch, SIDE, SIDE), IGNORE)
    labels[:, ::16, ::16] = torch.randint(0, CLASSES, (batch, SIDE // 16, SIDE // 16))
    around = Surroundings(
        image=image,
        valid=torch.ones(batch, SIDE, SIDE, dtype=torch.bool),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        progress=1.0,
    )

    def step() -> None:
        optimizer.zero_grad()
        criterion(net(image), labels, around)[0].backward()
        optimizer.step()

    return step


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipes = (Config.load("weak_scribbles", "losses=[cross_entropy]"), Config.load("weak_scribbles"))
    steps = [step_of(recipe, given.batch) for recipe in recipes]
    alone, both = (one.wall_ms.median for one in time_alternating(steps, repeats=given.turns, warmups=1))
    print(f"cross-entropy {alone:.0f} ms, with the gated CRF {both:.0f} ms: {100 * (both / alone - 1):.1f} % more")


if __name__ == "__main__":
    main()
