from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.losses import Edge, EdgeOhem, Ohem
from segatlas.losses.edge import canny_of_labels, edge_map
from segatlas.structures import SemanticLogits


def blobs(seed: int, *, size: tuple[int, int] = (40, 56), ignored: bool = True) -> torch.Tensor:
    """Return (3, H, W) uint8 labels of 0..18 in blobs of every shape, and ignored ones."""
    draw = np.random.default_rng(seed)
    maps = []
    for _ in range(3):
        noise = cv2.GaussianBlur(draw.random((*size, 1)).astype(np.float32), (0, 0), 2.5)
        steps = (noise - noise.min()) / (noise.max() - noise.min()) * 18.99
        label = draw.permutation(19)[steps.astype(int)]
        if ignored:
            label[cv2.GaussianBlur(draw.random(size).astype(np.float32), (0, 0), 3) > 0.53] = 255
        maps.append(label.astype(np.uint8))
    return torch.from_numpy(np.stack(maps))


@pytest.mark.parametrize("seed", range(4))
def test_the_edges_are_those_of_opencv(seed):
    labels = blobs(seed)
    if seed == 3:  # and of plain noise, where every direction occurs
        labels = torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = np.stack([cv2.Canny(label, 0.1, 0.2) > 0 for label in labels.numpy()])
    assert expected.any()
    assert np.array_equal(canny_of_labels(labels).numpy(), expected)


@pytest.mark.parametrize(("width", "margin"), [(4, 0), (4, 6), (3, 1), (1, 0)])
def test_they_are_dilated_by_a_box_as_opencv_does_it_and_cut_at_the_border_first(width, margin):
    labels = blobs(5)
    found = edge_map(labels, width=width, margin=margin, ignored_as_class=True).numpy()
    for label, ours in zip(labels.numpy(), found, strict=True):
        edge = cv2.Canny(label, 0.1, 0.2)
        if margin:
            edge = np.pad(edge[margin:-margin, margin:-margin], margin)
        assert np.array_equal(ours, cv2.dilate(edge, np.ones((width, width), np.uint8), iterations=1) > 50)


def test_a_border_to_ignored_pixels_is_no_edge_and_ignored_pixels_are_none():
    labels = torch.ones(1, 20, 20, dtype=torch.uint8)
    labels[:, 5:12, 5:12] = 255
    assert edge_map(labels, ignored_as_class=True).any()
    assert not edge_map(labels).any()
    labels[:, 15:] = 3
    labels[:, :, 17:] = 255
    edge = edge_map(labels)
    assert edge.any()
    assert not edge[labels == 255].any()


def slow_value(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The published weighted cross-entropy, pixel weights written out."""
    full = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=True)[:, 0]
    pos, neg = target.sum(), (1 - target).sum()
    weight = torch.where(target == 1, neg / (pos + neg), pos / (pos + neg))
    return F.binary_cross_entropy_with_logits(full, target, weight, reduction="mean")


def test_the_loss_is_the_mean_over_all_pixels_each_kind_weighted_by_the_number_of_the_other():
    labels = blobs(6)
    logits = torch.randn(3, 1, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits.requires_grad_()
    target = edge_map(labels, margin=6, ignored_as_class=True).double()
    expected = slow_value(logits, target)
    loss = Edge(margin=6, ignored_as_class=True)(logits, labels, align_corners=True)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits)[0] for one in (loss, expected)))


def test_ignored_pixels_change_nothing_unless_they_are_a_class():
    labels = blobs(7)
    labels[0] = 255
    logits = torch.randn(3, 1, 40, 56, generator=torch.Generator().manual_seed(1))
    other = logits + 9 * (labels == 255).unsqueeze(1)
    assert torch.equal(Edge()(other, labels), Edge()(logits, labels))
    assert not torch.equal(Edge(ignored_as_class=True)(other, labels), Edge(ignored_as_class=True)(logits, labels))


@pytest.mark.parametrize("fields", [{}, {"ignored_as_class": True}])
@pytest.mark.parametrize("label", [255, 3])
def test_a_batch_without_labels_or_without_edges_has_no_loss(label, fields):
    logits = torch.randn(1, 1, 5, 7, requires_grad=True)
    loss = Edge(**fields)(logits, torch.full((1, 40, 56), label, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_edge_ohem_is_ohem_over_the_pixels_where_the_head_is_sure():
    draw = torch.Generator().manual_seed(2)
    labels = blobs(8) % 4
    logits = torch.randn(3, 4, 5, 7, generator=draw, dtype=torch.float64)
    edges = 3 * torch.randn(3, 1, 5, 7, generator=draw, dtype=torch.float64)
    near = F.interpolate(edges, (40, 56), mode="bilinear", align_corners=True)[:, 0].sigmoid() > 0.8
    masked = labels.masked_fill(~near, 255)
    output = SemanticLogits(logits, (40, 56), aux={"boundary": edges})
    loss = EdgeOhem(threshold=0.9, min_kept=50, by_count=True)
    weights = torch.tensor([0.5, 2.0, 1.5, 3.0])
    found = loss(loss.given(output), labels, align_corners=True, class_weights=weights)
    plain = Ohem(threshold=0.9, min_kept=50, by_count=True)
    assert found == plain(logits, masked, align_corners=True, class_weights=weights)
    assert found != plain(logits, labels, align_corners=True, class_weights=weights)
    full = F.interpolate(logits, (40, 56), mode="bilinear", align_corners=True)
    each = F.cross_entropy(full, masked.long(), weights.double(), ignore_index=255, reduction="none")
    true = torch.exp(-F.cross_entropy(full, masked.long(), ignore_index=255, reduction="none"))
    limit = max(0.9, true[near].sort().values[50].item())
    assert found.item() == pytest.approx(each[near & (true < limit)].mean().item(), rel=1e-9)


def test_the_head_of_edges_learns_nothing_from_edge_ohem():
    given = torch.randn(1, 5, 8, 8, requires_grad=True)
    EdgeOhem(above=0.0)(given, torch.randint(0, 4, (1, 8, 8))).backward()
    assert given.grad[:, :4].any()
    assert not given.grad[:, 4:].any()


def test_a_head_of_several_channels_or_of_another_size_is_refused():
    logits, canvas = torch.zeros(1, 4, 5, 7), (40, 56)
    for head in (torch.zeros(1, 2, 5, 7), torch.zeros(1, 1, 10, 14)):
        with pytest.raises(UsageError, match="a head of one channel at the size of the logits"):
            EdgeOhem().given(SemanticLogits(logits, canvas, aux={"boundary": head}))
    with pytest.raises(UsageError, match=r"loss edge is on 'aux.boundary', which gives a tensor"):
        Edge()(torch.zeros(1, 2, 5, 7), torch.zeros(1, 40, 56, dtype=torch.uint8))
    with pytest.raises(UsageError, match="no such auxiliary head"):
        EdgeOhem().given(SemanticLogits(logits, canvas))
