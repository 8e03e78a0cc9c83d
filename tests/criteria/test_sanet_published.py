"""The losses of `sanet_cityscapes` together, beside a plain version of what its authors compute."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segatlas import criteria
from segatlas.recipe import Config
from segatlas.structures import IGNORE, Resample, SemanticLogits

SIZE, KEPT, CLASSES = (64, 96), 1500, 19


@pytest.fixture(scope="module")
def recipe():
    return Config.load("sanet_cityscapes")


def given(seed):
    """Return what the network gives at strides 8 and 16, and labels of blobs and ignored pixels."""
    draw = torch.Generator().manual_seed(seed)

    def maps(channels, stride):
        return 3 * torch.randn(2, channels, SIZE[0] // stride, SIZE[1] // stride, generator=draw, dtype=torch.float64)

    labels = torch.randint(0, CLASSES, (2, SIZE[0] // 8, SIZE[1] // 8), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.1] = IGNORE
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    aux = {"stride16": maps(CLASSES, 16), "boundary": maps(1, 8)}
    return SemanticLogits(maps(CLASSES, 8), SIZE, Resample(align_corners=True), aux), labels


def published(output, labels, weights):
    """0.4 CE of the head at stride 16, hard pixels, 20 weighted BCE of edges, hard pixels where an edge is sure."""

    def full(maps):
        return F.interpolate(maps, SIZE, mode="bilinear", align_corners=True)

    def hard(logits, labels):
        each = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE, reduction="none")
        valid = labels != IGNORE
        own = logits.softmax(1).gather(1, labels.where(valid, torch.zeros_like(labels)).unsqueeze(1)).squeeze(1)[valid]
        if not len(own):
            return logits.new_zeros(())
        threshold = max(0.9, float(own.sort().values[min(KEPT, len(own) - 1)]))
        return each[valid][own < threshold].mean()

    main, edges = full(output.logits), full(output.aux["boundary"]).squeeze(1)
    side = F.cross_entropy(full(output.aux["stride16"]), labels, weight=weights, ignore_index=IGNORE)
    target = []
    for label in labels.numpy().astype(np.uint8):
        edge = np.pad(cv2.Canny(label, 0.1, 0.2)[6:-6, 6:-6], 6)
        target.append(cv2.dilate(edge, np.ones((4, 4), np.uint8), iterations=1) > 50)
    truth = torch.from_numpy(np.stack(target)).double()
    found, none = truth.sum(), (1 - truth).sum()
    weight = torch.where(truth > 0, none, found) / (found + none)
    border = F.binary_cross_entropy_with_logits(edges, truth, weight=weight)
    near = torch.where(edges.sigmoid() > 0.8, labels, torch.full_like(labels, IGNORE))
    return 0.4 * side + hard(main, labels) + 20 * border + hard(main, near)


def ours(recipe, output, labels):
    terms = [term.model_copy(update={"min_kept": KEPT} if hasattr(term, "min_kept") else {}) for term in recipe.losses]
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        criterion = criteria.build("SemanticLogits", terms)
    finally:
        torch.set_default_dtype(kind)
    return criterion(output, labels)[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_sum_is_the_published_one(seed, recipe):
    output, labels = given(seed)
    weights = torch.tensor(recipe.losses[0].class_weights, dtype=torch.float64)
    assert float(ours(recipe, output, labels)) == pytest.approx(float(published(output, labels, weights)), rel=1e-9)


def test_without_a_labelled_pixel_it_is_finite_where_the_published_one_fails(recipe):
    output, labels = given(0)
    assert float(ours(recipe, output, torch.full_like(labels, IGNORE))) == pytest.approx(0, abs=1e-12)
