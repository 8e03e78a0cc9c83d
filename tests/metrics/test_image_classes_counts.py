from __future__ import annotations

import math

import torch

from segatlas.metrics.image_classes import NUMBERS, ImageClassCounts


def slow(scores, classes):
    first = few = 0
    for row, true in zip(scores.tolist(), classes.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda index: (-row[index], index))
        first += order[0] == true
        few += true in order[:5]
    return {"top1": first / len(classes), "top5": few / len(classes)}


def test_counts_equal_a_slow_obvious_version_in_batches_and_merged():
    draw = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 9, (60, 12), generator=draw).float()  # many are equal
    classes = torch.randint(0, 12, (60,), generator=draw)
    parts = [ImageClassCounts(), ImageClassCounts()]
    for index, (one, true) in enumerate(zip(scores.split(7), classes.split(7), strict=True)):
        parts[index % 2].update(one, true)
    parts[0].merge(parts[1].state())
    assert parts[0].compute() == slow(scores, classes)


def test_of_fewer_than_five_classes_each_is_among_the_first_five():
    counts = ImageClassCounts()
    counts.update(torch.eye(3), torch.tensor([0, 2, 2]))
    assert counts.compute() == {"top1": 2 / 3, "top5": 1.0}


def test_without_an_image_both_are_undefined_and_each_has_its_definition():
    assert all(math.isnan(value) for value in ImageClassCounts().compute().values())
    assert all(number.definition and number.monitored for number in NUMBERS.values())
