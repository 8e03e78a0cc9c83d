from __future__ import annotations

import pytest
import torch
from fakes.largest import Largest

from segatlas.criteria import build
from segatlas.errors import UsageError
from segatlas.losses import LOSSES
from segatlas.ops.gated_crf import gated_crf_energy, slow_gated_crf_energy
from segatlas.structures import SemanticLogits, Surroundings, WithSurroundings

KERNEL = {"radius": 3, "xy_sigma": 2.0, "color_sigma": 0.4}


def maps(n: int = 2, k: int = 4, size: tuple[int, int] = (9, 11)):
    draw = torch.Generator().manual_seed(0)
    y = torch.randn(n, k, *size, generator=draw, dtype=torch.float64).softmax(1)
    color = 0.3 * torch.randn(n, 3, *size, generator=draw, dtype=torch.float64)
    valid = torch.ones(n, *size, dtype=torch.bool)
    valid[1:, :, 8:] = False
    return y, color, valid


def around(image: torch.Tensor, **fields) -> Surroundings:
    whole = {
        "valid": torch.ones(len(image), *image.shape[2:], dtype=torch.bool),
        "mean": (0.5,) * 3,
        "std": (0.25,) * 3,
    }
    return Surroundings(image=image, **{**whole, **fields})


def test_value_and_gradient_are_those_of_the_formula():
    y, color, valid = maps()
    y.requires_grad_()
    ours, slow = (form(y, color, valid, **KERNEL) for form in (gated_crf_energy, slow_gated_crf_energy))
    torch.testing.assert_close(ours, slow)
    torch.testing.assert_close(torch.autograd.grad(ours, y)[0], torch.autograd.grad(slow, y)[0])


def test_it_is_zero_where_one_class_is_certain_and_largest_where_neighbours_differ():
    _, color, valid = maps(1)
    constant = torch.zeros(1, 4, 9, 11, dtype=torch.float64)
    constant[:, 2] = 1
    assert abs(gated_crf_energy(constant, color, valid, **KERNEL)) < 1e-9
    checkers = torch.zeros_like(constant)
    odd = (torch.arange(9)[:, None] + torch.arange(11)) % 2
    checkers[:, 0], checkers[:, 1] = odd, 1 - odd
    assert gated_crf_energy(checkers, color, valid, **KERNEL) > 1


def test_a_border_costs_little_where_the_colour_changes_too():
    y = torch.zeros(1, 2, 8, 12)
    y[:, 0, :, :6], y[:, 1, :, 6:] = 1, 1
    color = torch.zeros(1, 3, 8, 12)
    color[..., 6:] = 2.0
    everywhere = torch.ones(1, 8, 12, dtype=torch.bool)
    same = gated_crf_energy(y, color, everywhere, **KERNEL)
    shifted = gated_crf_energy(y, color.roll(3, -1), everywhere, **KERNEL)
    assert same < 1e-3 < 0.1 < shifted


@pytest.mark.parametrize(("classes", "radius"), [(3, 1), (19, 5)])
def test_no_tensor_is_larger_than_the_probabilities_and_none_than_a_window_for_each_pixel(classes, radius):
    y = torch.rand(2, classes, 64, 64).softmax(1).requires_grad_()
    color, valid = torch.rand(2, 3, 64, 64), torch.ones(2, 64, 64, dtype=torch.bool)
    with Largest(y, color, valid) as watch:
        gated_crf_energy(y, color, valid, radius=radius, xy_sigma=6.0, color_sigma=0.1).backward()
    assert 0 < watch.bytes <= y.element_size() * y.numel() <= 2 * 4 * (2 * radius + 1) ** 2 * 64 * 64


def test_padding_takes_no_part_and_nothing_valid_costs_nothing():
    y, color, valid = maps(1)
    valid[..., 8:] = False
    inside = gated_crf_energy(y[..., :8], color[..., :8], valid[..., :8], **KERNEL)
    torch.testing.assert_close(gated_crf_energy(y, color, valid, **KERNEL), inside)
    assert gated_crf_energy(y, color, torch.zeros_like(valid), **KERNEL) == 0


def test_a_window_larger_than_the_map_is_the_map():
    y, color, valid = maps(1, size=(3, 4))
    wide = {**KERNEL, "radius": 6}
    torch.testing.assert_close(
        gated_crf_energy(y, color, valid, **wide), slow_gated_crf_energy(y, color, valid, **wide)
    )


def test_the_loss_reads_the_image_over_the_canvas_and_begins_when_it_should():
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 3, 4, 6, generator=draw, requires_grad=True)
    image = torch.randn(1, 3, 13, 22, generator=draw)
    labels = torch.full((1, 13, 22), 255)
    loss = LOSSES["gated_crf"](radius=2)
    value = loss(WithSurroundings(logits, around(image)), labels, (16, 24))
    assert value > 0
    padded = torch.nn.functional.pad(image, (0, 2, 0, 3))
    seen = torch.nn.functional.pad(torch.ones(1, 1, 13, 22), (0, 2, 0, 3))
    pooled, fraction = (torch.nn.functional.avg_pool2d(one, 4) for one in (padded, seen))
    expected = slow_gated_crf_energy(
        logits.softmax(1), pooled / fraction, fraction[:, 0] >= 0.5, radius=2, xy_sigma=6.0, color_sigma=0.1
    )
    torch.testing.assert_close(value, expected)
    early = loss(WithSurroundings(logits, around(image, progress=0.001)), labels, (16, 24))
    assert early == 0
    assert torch.autograd.grad(early, logits)[0].abs().max() == 0


def test_probabilities_of_a_fine_map_are_averaged_first():
    fine = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    image, labels = torch.randn(1, 3, 16, 16), torch.full((1, 16, 16), 255)
    value = LOSSES["gated_crf"](stride=4)(WithSurroundings(fine, around(image)), labels)
    pooled = torch.nn.functional.avg_pool2d(fine.softmax(1), 4)
    color = torch.nn.functional.avg_pool2d(image, 4)
    expected = slow_gated_crf_energy(
        pooled, color, torch.ones(1, 4, 4, dtype=torch.bool), radius=5, xy_sigma=6.0, color_sigma=0.1
    )
    torch.testing.assert_close(value, expected)


def test_a_criterion_gives_it_what_stands_around_or_says_that_it_is_missing():
    logits, image = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 16, 16)
    criterion = build("SemanticLogits", (LOSSES["cross_entropy"](), LOSSES["gated_crf"]()))
    assert criterion.reads_around
    output, labels = SemanticLogits(logits, canvas=(16, 16)), torch.zeros(1, 16, 16, dtype=torch.int64)
    total, parts = criterion(output, labels, around(image))
    assert total == pytest.approx(float(parts["cross_entropy"] + 0.1 * parts["gated_crf"]), rel=1e-5)
    with pytest.raises(UsageError, match="loss gated_crf reads the image and more"):
        criterion(output, labels)
    assert not build("SemanticLogits", (LOSSES["cross_entropy"](),)).reads_around
