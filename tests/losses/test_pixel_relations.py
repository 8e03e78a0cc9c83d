"""Pairs of labelled pixels: the loss beside its slow form, what costs nothing, and which label a cell has."""

from __future__ import annotations

import itertools

import pytest
import torch

from segatlas.losses.pixel_relations import PixelRelations, labels_of_cells


def slow(relations: torch.Tensor, labels: torch.Tensor, radius: int) -> float:
    """The loss of (1, 3, h, w) and labels (h, w), pair by pair, the way by the distance of pixels from the line."""
    edges, moves = relations[0, 0].sigmoid(), relations[0, 1:]
    pixels = list(itertools.product(*map(range, labels.shape)))
    costs: dict[str, list[float]] = {key: [] for key in ("fg", "bg", "other", "fg move", "bg move")}
    for first, second in itertools.combinations(pixels, 2):
        step = (second[0] - first[0], second[1] - first[1])
        square = step[0] ** 2 + step[1] ** 2
        if square >= radius**2 or 255 in (labels[first], labels[second]):
            continue
        way = [
            p
            for p in itertools.product(*(range(min(a, b), max(a, b) + 1) for a, b in zip(first, second, strict=True)))
            if (step[0] * (p[1] - first[1]) - step[1] * (p[0] - first[0])) ** 2 < square
        ]
        affinity = 1 - max(edges[p] for p in way)
        moved = moves[:, first[0], first[1]] - moves[:, second[0], second[1]]
        if labels[first] != labels[second]:
            costs["other"].append(-(1 + 1e-5 - affinity).log())
            continue
        kind = "bg" if labels[first] == 0 else "fg"
        costs[kind].append(-(affinity + 1e-5).log())
        target = torch.zeros(2) if kind == "bg" else torch.tensor(step)
        costs[f"{kind} move"].append((moved - target).abs().mean())
    mean = {key: float(torch.stack(values).mean()) for key, values in costs.items()}
    return ((mean["fg"] + mean["bg"]) / 2 + mean["other"] + mean["fg move"] + mean["bg move"]) / 2


def test_the_loss_is_that_of_its_pairs_one_by_one():
    draw = torch.Generator().manual_seed(0)
    relations = torch.randn(1, 3, 6, 7, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 3, (6, 7), generator=draw)
    labels[2, 2:5] = 255
    found = PixelRelations(radius=4)(relations, labels[None])
    assert float(found) == pytest.approx(slow(relations, labels, 4), rel=1e-6)


def test_a_border_between_two_objects_and_the_way_to_their_middles_cost_nothing():
    relations = torch.zeros(1, 3, 5, 9, dtype=torch.float64)
    relations[:, 0] = -40
    relations[:, 0, :, 4] = 40
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(9.0), indexing="ij")
    relations[0, 1], relations[0, 2] = 2 - rows, torch.where(columns < 4, 2, 6) - columns
    labels = torch.ones(1, 5, 9, dtype=torch.long)
    labels[..., 4], labels[..., 5:] = 255, 2
    assert abs(float(PixelRelations(radius=5)(relations, labels))) < 1e-4
    relations[0, 0, :, 4] = -40  # no border
    assert float(PixelRelations(radius=5)(relations, labels)) > 5


def test_nothing_labelled_or_a_single_cell_costs_nothing():
    relations = torch.randn(2, 3, 4, 4, requires_grad=True)
    PixelRelations(radius=3)(relations, torch.full((2, 16, 16), 255)).backward()
    assert relations.grad is not None
    assert not relations.grad.any()
    assert float(PixelRelations()(torch.randn(1, 3, 1, 1), torch.zeros(1, 4, 4, dtype=torch.long))) == 0


def test_a_cell_has_the_label_of_its_middle_and_none_beyond_the_labels():
    labels = torch.arange(6 * 8).view(1, 6, 8)
    found = labels_of_cells(labels, (8, 8), (2, 2))
    assert found.tolist() == [[[18, 22], [255, 255]]]
    assert labels_of_cells(labels, None, (6, 8)).tolist() == labels.tolist()
