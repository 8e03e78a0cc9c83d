"""Patches and what they attend to, against loops over patches and pixels."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from segatlas.ops import patches
from segatlas.structures import PatchAttention

CASES = [(border, size) for border in ("pad", "drop") for size in ((7, 9), (6, 3), (2, 4))]


def attention(border: str = "pad", seed: int = 0) -> PatchAttention:
    draw = torch.Generator().manual_seed(seed)
    image, features = (torch.randn(2, 3, count, 4, generator=draw).double().relu() for count in (6, 5))
    return PatchAttention(image, features, side=2, stride=3, cells=(4, 2), border=border)


@pytest.mark.parametrize(("border", "size"), CASES)
def test_patches_are_those_of_unfold_and_come_back(border, size):
    x = torch.randn(2, 3, *size)
    rows, columns = patches.patch_grid(size, 3, border)
    whole = F.pad(x, (0, max(3 * columns - size[1], 0), 0, max(3 * rows - size[0], 0)))[..., : 3 * rows, : 3 * columns]
    found = patches.to_patches(x, 3, border)
    assert found.shape == (2, 3, rows * columns, 9)
    if rows * columns:
        expected = F.unfold(whole, 3, stride=3).unflatten(1, (3, 9)).transpose(2, 3)
        assert torch.equal(found, expected)
    back = patches.from_patches(found, 3, size, border)
    covered = F.pad(whole, (0, max(size[1] - 3 * columns, 0), 0, max(size[0] - 3 * rows, 0)))
    assert torch.equal(back, covered[..., : size[0], : size[1]])


@pytest.mark.parametrize("cells", [(3, 4), (2, 3), (4, 6)])
def test_fractions_are_those_of_counted_pixels(cells):
    labels = torch.randint(0, 4, (2, 8, 11), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    labels[labels == 3] = 255
    found = patches.class_fractions(labels, 3, 3, cells)
    assert found.shape == (2, 3, *cells)
    for n, k, y, x in itertools.product(range(2), range(3), range(cells[0]), range(cells[1])):
        inside = labels[n, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3]
        assert found[n, k, y, x] == pytest.approx(int((inside == k).sum()) / 9)


@pytest.fixture(params=["made at once", "in two factors"])
def form(request, monkeypatch):
    if request.param == "in two factors":
        monkeypatch.setattr(patches, "is_whole", lambda attention: False)
        monkeypatch.setattr(patches, "CHUNK_VALUES", 40)  # two patches of the image at a time


def test_what_is_carried_back_is_a_mean_over_the_patches_that_are_attended_to(form):
    one = attention()
    one.image[0, 0, 1] = 0
    one.image[0, 1, 2], one.features[0, 1, 3] = torch.tensor([1.0, 0, 0, 2]), torch.tensor([0.0, 3, 1, 0])
    values = torch.randn(2, 3, 5, 4).double()
    found = patches.carried_back(one, values, 1e-5)
    for n, k, i in itertools.product(range(2), range(3), range(6)):
        weights = one.features[n, k] @ one.image[n, k, i] / 4
        expected = (weights[:, None] * values[n, k]).sum(0) / (float((weights != 0).sum()) + 1e-5)
        torch.testing.assert_close(found[n, k, i], expected)
    assert (found[0, 0, 1] == 0).all()


def test_squared_differences_are_those_of_the_whole_attention(form):
    one, other = attention(), attention(seed=1)
    expected = (one.image @ one.features.mT / 4 - other.image @ other.features.mT / 4).square().sum()
    torch.testing.assert_close(patches.squared_differences(one, other.image, other.features), expected)


def test_both_forms_give_one_gradient(monkeypatch):
    found = []
    for is_whole in (True, False):
        monkeypatch.setattr(patches, "is_whole", lambda attention, is_whole=is_whole: is_whole)
        one, other = attention(), attention(seed=1)
        factors = [one.image.requires_grad_(), one.features.requires_grad_()]
        carried = patches.carried_back(one, other.features, 1e-5)
        total = carried.square().sum() + patches.squared_differences(one, other.image, other.features)
        found.append(torch.autograd.grad(total, factors))
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)


def test_attention_is_made_at_once_where_it_is_no_larger_than_its_factor():
    one = attention()
    assert not patches.is_whole(one)
    assert patches.is_whole(one._replace(features=one.features[:, :, :4]))
