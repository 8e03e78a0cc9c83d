"""IRNet's loss of pairs and its random walk beside the authors' code, on the same random maps in float64:

    python tools/beside_irnet.py --irn DIR

DIR is a checkout of jiwoon-ahn/irn (Ahn et al. 2019), whose `misc/indexing.py` and the methods of `net/resnet50_irn.py`
run as they are. Theirs takes no pair whose first pixel is near the left, right or lower border of the map, ours all; so
labels lie where theirs looks. Printed is the largest relative difference of each; the exit status is 1 above 1e-9.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from segatlas.losses.pixel_relations import PixelRelations
from segatlas.ops.spreading import random_walk

SIDE, RADIUS = 40, 10
MOST = 1e-9


def their_loss(network: Any, indexing: Any, relations: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of relations (1, 3, h, h) and labels (h, h) by the authors' methods."""
    index = indexing.PathIndex(RADIUS, (SIDE, SIDE))
    target = torch.from_numpy(index.search_dst).T[None, :, :, None].double()
    own = SimpleNamespace(path_index=index, n_path_lengths=len(index.path_indices), disp_target=target, _buffers={})
    for place, part in enumerate(index.path_indices):
        own._buffers[f"path_indices{place}"] = torch.from_numpy(part)
    network.path_indices_prefix = "path_indices"
    vars(sys.modules[network.__module__])["AffinityDisplacementLoss"] = network
    affinity = network.to_affinity(own, relations[:, :1].sigmoid())
    moved = network.to_pair_displacement(own, relations[:, 1:])
    off, none = network.to_displacement_loss(own, moved), moved.abs()
    flat = labels.reshape(-1)
    here, there = flat[torch.from_numpy(index.src_indices)][None], flat[torch.from_numpy(index.dst_indices)]
    known = (here < 255) & (there < 255)
    alike, empty = known & (here == there), here == 0

    def mean(cost: Tensor, where: Tensor) -> Tensor:
        return (cost * where).sum() / where.sum()

    positive, negative = -(affinity[0] + 1e-5).log(), -(1 + 1e-5 - affinity[0]).log()
    of_pairs = (mean(positive, alike & empty) + mean(positive, alike & ~empty)) / 2 + mean(negative, known & ~alike)
    of_moves = mean(off[0].sum(0), alike & ~empty) / 2 + mean(none[0].sum(0), alike & empty) / 2
    return (of_pairs + of_moves) / 2


def main() -> int:
    """Compare and print; return 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--irn", type=Path, required=True, metavar="DIR")
    sys.path.insert(0, str(parser.parse_args().irn))
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    indexing = importlib.import_module("misc.indexing")
    network = importlib.import_module("net.resnet50_irn").AffinityDisplacementLoss

    torch.manual_seed(0)
    relations = torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64)
    labels = torch.full((SIDE, SIDE), 255)
    inside = (slice(0, SIDE - RADIUS), slice(RADIUS, SIDE - RADIUS))
    labels[inside] = torch.randint(0, 3, labels[inside].shape)
    labels[3:7, 12:20] = 255
    found: list[Tensor] = []
    values: list[Tensor] = []
    for loss in (
        lambda x: PixelRelations(radius=RADIUS)(x, labels[None]),
        lambda x: their_loss(network, indexing, x, labels),
    ):
        given = relations.clone().requires_grad_()
        value = loss(given)
        found += torch.autograd.grad(value, given)
        values.append(value.detach())
    edges, maps = torch.rand(12, 17, dtype=torch.float64), torch.rand(3, 12, 17, dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    theirs = indexing.propagate_to_edge(maps, edges[None], radius=5, beta=10, exp_times=8)[:, 0]
    differences = {
        "loss": (values[0] - values[1]).abs() / values[1],
        "its gradient": (found[0] - found[1]).abs().max() / found[1].abs().max(),
        "random walk": (random_walk(maps, edges) - theirs).abs().max() / theirs.abs().max(),
    }
    for name, difference in differences.items():
        print(f"{name:14} {float(difference):.1e}")
    return int(max(differences.values()) > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
