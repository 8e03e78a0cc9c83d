"""segatlas.ops.small_maps; `test_upsampled_loss` has each fact about the losses for both ways."""

from __future__ import annotations

import pytest
import torch

from segatlas.ops import small_maps, upsampled_cross_entropy, upsampled_overlap
from segatlas.ops.small_maps import are_small


def test_maps_of_a_million_numbers_are_small_on_a_processor():
    logits = torch.zeros(4, 8, 16, 16)
    assert are_small(logits, (128, 256))
    assert not are_small(logits, (129, 256))
    assert not are_small(torch.zeros(4, 8, 16, 16, device="meta"), (8, 8))


def test_sums_over_many_pixels_lose_none_of_them():
    logits, labels = torch.zeros(1, 2, 512, 1024), torch.zeros(1, 512, 1024, dtype=torch.uint8)
    logits[:, 0] = 3.0
    assert are_small(logits, (512, 1024))
    intersection, predicted, labelled = upsampled_overlap(logits, labels)
    expected = 512 * 1024 * torch.tensor(3.0).sigmoid().item()
    assert intersection[0].item() == pytest.approx(expected, rel=1e-6)
    assert predicted[0].item() == pytest.approx(expected, rel=1e-6)
    assert labelled.tolist() == [512 * 1024, 0]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_give_one_loss_and_gradient(classes, dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 9, 7, generator=generator).to(dtype)
    labels = torch.randint(0, classes, (2, 33, 27), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    keys = {
        "weight": torch.rand(classes, generator=generator),
        "pixel_weight": torch.rand(labels.shape, generator=generator),
        "label_smoothing": 0.2,
        "canvas": (36, 28),
    }
    found = []
    for most in (small_maps.MOST, 0):
        monkeypatch.setattr(small_maps, "MOST", most)
        given = logits.clone().requires_grad_()
        loss = upsampled_cross_entropy(given, labels, **keys)
        loss.backward()
        found.append((loss.detach(), given.grad))
    (loss, gradient), (walked, of_walk) = found
    assert loss.dtype == walked.dtype == torch.float32
    assert gradient.dtype == of_walk.dtype == dtype
    assert torch.allclose(loss, walked, rtol=1e-6)
    assert torch.allclose(gradient, of_walk, rtol=1e-5 if dtype == torch.float32 else 2**-7, atol=1e-8)
