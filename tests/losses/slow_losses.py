"""Loop versions of the losses on full-size probabilities, in plain Python floats. Read them against the papers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor
from torch.nn.functional import interpolate

IGNORE = 255


def pixels(logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None) -> Iterator[tuple[list[float], int]]:
    """Yield (probabilities, label) of every labelled pixel."""
    size = tuple(canvas or labels.shape[1:])
    full = interpolate(logits.double(), size, mode="bilinear").softmax(1)
    for n in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                label = int(labels[n, y, x])
                if label != IGNORE:
                    yield full[n, :, y, x].tolist(), label


def focal(logits, labels, gamma=2.0, weights=None, canvas=None) -> float:
    total = divisor = 0.0
    for probability, label in pixels(logits, labels, canvas):
        share = 1.0 if weights is None else float(weights[label])
        total += share * (1 - probability[label]) ** gamma * -math.log(probability[label])
        divisor += share
    return total / divisor


def cross_entropy(logits, labels, smoothing=0.0, weights=None, canvas=None) -> float:
    total = divisor = 0.0
    for probability, label in pixels(logits, labels, canvas):
        classes = len(probability)
        share = [1.0] * classes if weights is None else [float(w) for w in weights]
        total += (1 - smoothing) * share[label] * -math.log(probability[label])
        total += smoothing / classes * sum(w * -math.log(p) for w, p in zip(share, probability, strict=True))
        divisor += share[label]
    return total / divisor


def ohem(logits, labels, threshold, min_kept, weights=None, canvas=None) -> float:
    hard = sorted((p[label], label) for p, label in pixels(logits, labels, canvas))
    kept = [item for rank, item in enumerate(hard) if rank < min_kept or item[0] < threshold]
    share = [1.0 if weights is None else float(weights[label]) for _, label in kept]
    return sum(w * -math.log(p) for w, (p, _) in zip(share, kept, strict=True)) / sum(share)


def tversky(logits, labels, alpha, beta, gamma, smooth, weights=None, canvas=None) -> float:
    everything = list(pixels(logits, labels, canvas))
    total = divisor = 0.0
    for k in range(logits.shape[1]):
        if all(label != k for _, label in everything):
            continue
        hit = sum(p[k] for p, label in everything if label == k)
        false_positive = sum(p[k] for p, label in everything if label != k)
        false_negative = sum(1 - p[k] for p, label in everything if label == k)
        index = (hit + smooth) / (hit + alpha * false_positive + beta * false_negative + smooth)
        share = 1.0 if weights is None else float(weights[k])
        total += share * (1 - index) ** gamma
        divisor += share
    return total / divisor


def dice(logits, labels, smooth=1.0, weights=None, canvas=None) -> float:
    everything = list(pixels(logits, labels, canvas))
    total = divisor = 0.0
    for k in range(logits.shape[1]):
        labelled = sum(label == k for _, label in everything)
        if labelled:
            hit = sum(p[k] for p, label in everything if label == k)
            predicted = sum(p[k] for p, _ in everything)
            share = 1.0 if weights is None else float(weights[k])
            total += share * (1 - (2 * hit + smooth) / (predicted + labelled + smooth))
            divisor += share
    return total / divisor


def lovasz(logits, labels, per_image=False, weights=None, canvas=None) -> float:
    """Sum over ranks of error times the growth of the Jaccard loss, its sets counted anew at every rank."""
    if per_image:
        pictures = [(logits[n : n + 1], labels[n : n + 1]) for n in range(len(labels))]
        each = [lovasz(*pair, weights=weights, canvas=canvas) for pair in pictures if (pair[1] != IGNORE).any()]
        return sum(each) / len(each)
    everything = list(pixels(logits, labels, canvas))
    total = divisor = 0.0
    for k in range(logits.shape[1]):
        truth = {i for i, (_, label) in enumerate(everything) if label == k}
        if not truth:
            continue
        errors = [1 - p[k] if i in truth else p[k] for i, (p, _) in enumerate(everything)]
        wrong: set[int] = set()
        loss = before = 0.0
        for i in sorted(range(len(errors)), key=lambda i: -errors[i]):
            wrong.add(i)
            predicted = (truth - wrong) | (wrong - truth)
            jaccard_loss = 1 - len(truth & predicted) / len(truth | predicted)
            loss += errors[i] * (jaccard_loss - before)
            before = jaccard_loss
        share = 1.0 if weights is None else float(weights[k])
        total += share * loss
        divisor += share
    return total / divisor


def boundary(logits, labels, width, factor, weights=None, canvas=None) -> float:
    full = interpolate(logits.double(), tuple(canvas or labels.shape[1:]), mode="bilinear").softmax(1)
    total = divisor = 0.0
    for n in range(len(labels)):
        near = near_boundary(labels[n].tolist(), width)
        for y, row in enumerate(labels[n].tolist()):
            for x, label in enumerate(row):
                if label != IGNORE:
                    share = (factor if near[y][x] else 1.0) * (1.0 if weights is None else float(weights[label]))
                    total += share * -math.log(float(full[n, label, y, x]))
                    divisor += share
    return total / divisor


def near_boundary(label: list[list[int]], width: int) -> list[list[bool]]:
    """Say for each pixel whether one that touches a change of label lies within a square of width - 1 around it."""
    height, length = len(label), len(label[0])

    def at_change(y: int, x: int) -> bool:
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [label[v][u] for v, u in around if 0 <= v < height and 0 <= u < length]
        return label[y][x] != IGNORE and any(other not in (label[y][x], IGNORE) for other in inside)

    reach = range(-(width - 1), width)
    return [
        [
            any(
                at_change(y + dy, x + dx)
                for dy in reach
                for dx in reach
                if 0 <= y + dy < height and 0 <= x + dx < length
            )
            for x in range(length)
        ]
        for y in range(height)
    ]
