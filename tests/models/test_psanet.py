"""PSANet's rows against the masks laid out by a loop over all pairs of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.psanet import ARCHITECTURE, PointwiseAttention, collected, distributed, resize

BRANCHES = {"collect": collected, "distribute": distributed}


def branch_of(kind, mask_size, **fields):
    torch.manual_seed(0)
    fields = {"softmax": True, "divisor": 1.0, **fields}
    branch = PointwiseAttention(6, 4, mask_size=mask_size, row_weights=BRANCHES[kind], **fields).double().eval()
    for parameter in branch.parameters():
        nn.init.normal_(parameter, std=0.8)
    return branch


def all_pairs(masks, mask_size, kind):
    """Lay masks (M M', a, b) out: entry [seen, pixel] is the weight of the pixel `seen` for `pixel`; plain loops."""
    (rows, columns), (height, width) = mask_size, masks.shape[1:]
    masks = masks.unflatten(0, mask_size)
    pairs = torch.zeros(height, width, height, width, dtype=masks.dtype)
    for y in range(height):
        for x in range(width):
            for r in range(rows):
                for c in range(columns):
                    v, u = y + r - (rows - 1) // 2, x + c - (columns - 1) // 2
                    if 0 <= v < height and 0 <= u < width:
                        if kind == "collect":
                            pairs[v, u, y, x] = masks[r, c, y, x]
                        else:
                            pairs[y, x, v, u] = masks[r, c, y, x]
    return pairs.flatten(2).flatten(0, 1)


def written_out(branch, x, kind, size):
    x = F.interpolate(branch.reduce(x), size=size, mode="bilinear", align_corners=True)
    masks = branch.mask(branch.guide(x))
    pairs = torch.stack([all_pairs(one, branch.mask_size, kind) for one in masks])
    weights = pairs.softmax(dim=1) if branch.softmax else pairs
    return (x.flatten(2) @ weights / branch.divisor).unflatten(2, size)


@pytest.mark.parametrize("kind", BRANCHES)
@pytest.mark.parametrize(
    ("mask_size", "size"),
    [
        ((9, 9), (5, 5)),  # just enough for all pairs
        ((12, 20), (4, 5)),  # larger than needed, even
        ((3, 4), (5, 6)),  # smaller than the map
        ((11, 2), (3, 7)),  # larger one way, smaller the other
        ((8, 10), (4, 5)),  # even, one place more than needed
        ((5, 5), (1, 1)),
        ((1, 1), (3, 2)),
    ],
)
@pytest.mark.parametrize("softmax", [True, False])
def test_rows_equal_the_masks_laid_out_by_loops_with_their_gradients(kind, mask_size, size, softmax):
    branch = branch_of(kind, mask_size, softmax=softmax, divisor=3.0)
    x = torch.randn(2, 6, 2 * size[0], 2 * size[1], dtype=torch.float64, requires_grad=True)
    got, expected = branch(x, size, align_corners=True), written_out(branch, x, kind, size)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    inputs, upstream = [x, *branch.parameters()], torch.randn_like(got)
    ours, slow = (torch.autograd.grad(out, inputs, upstream) for out in (got, expected))
    for one, other in zip(ours, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", BRANCHES)
@pytest.mark.parametrize("mask_size", [(9, 9), (12, 20), (3, 4), (11, 2)])
@pytest.mark.parametrize("softmax", [True, False])
def test_the_captured_form_has_the_values_of_the_rows(kind, mask_size, softmax, monkeypatch):
    branch = branch_of(kind, mask_size, softmax=softmax, divisor=3.0)
    x = torch.randn(2, 6, 8, 10, dtype=torch.float64)
    rows = branch(x, (4, 5), align_corners=True)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(branch(x, (4, 5), align_corners=True), rows, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sizes", [((7, 9), (4, 5)), ((4, 5), (7, 9)), ((3, 4), (1, 1)), ((1, 1), (3, 2))])
def test_a_resize_by_matrices_is_the_one_of_torch(sizes):
    before, after = sizes
    x = torch.randn(2, 3, *before)
    for aligned in (True, False):
        expected = F.interpolate(x, size=after, mode="bilinear", align_corners=aligned)
        torch.testing.assert_close(resize(x, after, align_corners=int(aligned)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", BRANCHES)
def test_training_computes_rows_again_in_backward_with_the_same_gradients(kind):
    branch = branch_of(kind, (5, 5))
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    for norm in (branch.reduce.bn, branch.guide.bn):
        norm.eval()
    gradients = []
    for training in (False, True):
        branch.training = training
        out = branch(x, (4, 4), align_corners=False)
        gradients.append(torch.autograd.grad(out.square().sum(), list(branch.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", BRANCHES)
@pytest.mark.parametrize("training", [True, False])
def test_no_tensor_of_all_pairs_of_pixels_is_made(kind, training):
    height, width = 16, 16
    branch = branch_of(kind, (31, 31)).train(training)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))
            return out

    x = torch.randn(1, 6, height, width, dtype=torch.float64, requires_grad=True)
    with Watch():
        branch(x, (height, width), align_corners=False).sum().backward()
    assert max(sizes) == 2 * height * width**2  # the published form has 16 (all pairs) and 60 (masks) times as many


def test_sides_that_both_leave_a_remainder_are_rounded_up_else_down():
    net = create_model("psanet", num_classes=2, encoder="resnet18_w8", channels=8, mask_size=(3, 3))
    assert net.shrunk((97, 97)) == ((49, 49), True)
    assert net.shrunk((64, 128)) == ((32, 64), False)
    assert net.shrunk((17, 20)) == ((8, 10), False)
    assert net.shrunk((1, 2)) == ((1, 1), False)


def test_a_network_without_branches_is_refused():
    with pytest.raises(UsageError, match="collect and distribute are both off"):
        create_model("psanet", num_classes=2, encoder="resnet18_w8", collect=False, distribute=False)


def test_the_published_network_has_its_number_of_parameters():
    with shapes_only():
        net = create_model(
            "psanet", num_classes=150, aux=True, mask_size=(66, 66), **ARCHITECTURE.variants["psanet_r50"]
        )
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(54.07, abs=0.005)
