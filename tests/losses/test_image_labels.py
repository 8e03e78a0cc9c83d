from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.losses import LOSSES
from segatlas.structures import Surroundings, WithSurroundings


def given(logits: torch.Tensor, present=None, valid=None) -> WithSurroundings:
    size = (len(logits), 8, 8)
    valid = torch.ones(size, dtype=torch.bool) if valid is None else valid
    around = Surroundings(
        image=torch.zeros(len(logits), 3, 8, 8), valid=valid, mean=(0.5,), std=(0.2,), present=present
    )
    return WithSurroundings(logits, around)


NOTHING = torch.full((2, 8, 8), 255)


def test_it_is_the_binary_cross_entropy_of_mean_logits_without_the_background():
    logits = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([[True, False, True, False], [True, True, False, False]])
    means = logits.mean(dim=(2, 3))
    for background, kinds in ((0, slice(1, None)), (None, slice(None)), (2, [0, 1, 3])):
        expected = F.binary_cross_entropy_with_logits(means[:, kinds], present[:, kinds].float())
        value = LOSSES["image_labels"](background=background)(given(logits, present), NOTHING)
        torch.testing.assert_close(value, expected)


def test_the_background_is_found_by_its_name_in_the_data():
    loss = LOSSES["image_labels"]()
    assert [loss.for_classes("abc", found).background for found in (2, 0, None)] == [2, 0, None]
    stated = LOSSES["image_labels"](background=1)
    assert stated.for_classes("abc", 2).background == 1
    assert LOSSES["image_labels"](background=None).for_classes("abc", 2).background is None
    with pytest.raises(UsageError, match=r"background is class 1 of 1"):
        stated.for_classes("a", 0)
    for name in ("box_regions", "pixel_relations"):
        assert LOSSES[name]().for_classes("abc", 2).background == 2
    with pytest.raises(UsageError, match="say which class lies outside all boxes"):
        LOSSES["box_regions"]().for_classes("abc", None)


def test_padding_is_no_part_of_the_mean():
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, :, 2:] = 50.0
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, 4:] = False
    value = LOSSES["image_labels"]()(given(logits, torch.tensor([[True, False]]), valid), NOTHING[:1])
    assert value.item() == pytest.approx(0.6931, abs=1e-4)


def test_labels_say_what_is_present_where_images_do_not_and_an_ignored_image_says_nothing():
    logits = torch.zeros(2, 3, 4, 4)
    logits[0, 2], logits[1] = 30.0, 1e3
    labels = NOTHING.clone()
    labels[0, 0, 0] = 2
    value = LOSSES["image_labels"]()(given(logits), labels)
    assert value.item() == pytest.approx(0.6931 / 2, abs=1e-4)
    assert LOSSES["image_labels"]()(given(logits), NOTHING) == 0


def test_a_smooth_maximum_lies_between_mean_and_largest_logit_and_padding_is_no_part_of_it():
    logits = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    logits[:, :, 2:] = 50.0
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, 4:] = False
    present = torch.tensor([[True, False]])
    seen = logits[:, :, :2].flatten(2)

    def value(sharpness: float) -> torch.Tensor:
        loss = LOSSES["image_labels"](background=None, pooling="smooth_max", sharpness=sharpness)
        return loss(given(logits, present, valid), NOTHING[:1])

    def expected(scores: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(scores, present.float())

    torch.testing.assert_close(value(1e-3), expected(seen.mean(dim=2)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(value(100.0), expected(seen.amax(dim=2)), atol=0.03, rtol=0.03)
    torch.testing.assert_close(value(2.0), expected((2 * seen).exp().mean(dim=2).log() / 2))


def test_the_gradient_of_a_smooth_maximum_is_finite_where_logits_are_huge_and_an_image_is_all_padding():
    logits = (1e4 * torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0] = False
    loss = LOSSES["image_labels"](background=None, pooling="smooth_max")
    loss(given(logits, torch.ones(2, 2, dtype=torch.bool), valid), NOTHING).backward()
    assert logits.grad.isfinite().all()
