"""How a source is laid over an image and where a pixel looks in it, as arrays and figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.explained import CLASSES, SIZE, image, predictor

from segatlas import explain
from segatlas.drawing import warped_lattice
from segatlas.errors import UsageError
from segatlas.palette import default_palette

PRIOR = np.kron(np.arange(4).reshape(2, 2), np.ones((30, 42), int))[: SIZE[0], : SIZE[1]].astype(np.uint8)
AT = (30, 40)


@pytest.fixture(scope="module")
def laid():
    one = predictor("multisource")
    for head in one.model.aligner.heads:
        torch.nn.init.zeros_(head.bias)
    one.model.aligner.start_at_identity()
    return explain.laid_source(one, image(), {"prior": PRIOR})


def test_without_a_flow_each_pixel_shows_its_own_place_and_the_mask_lies_as_given(laid):
    x, y = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    assert np.abs(laid.points - np.stack([x, y], axis=-1)).max() < 1e-2
    assert laid.fractions.shape == (3, *SIZE)
    assert laid.image.shape == (*SIZE, 3)
    assert np.array_equal(laid.prior, laid.warped_prior)
    assert (laid.prior == PRIOR).mean() > 0.85


def test_lines_of_the_lattice_lie_where_the_source_has_them():
    ground = np.zeros((40, 60, 3), np.uint8)
    x, y = np.meshgrid(np.arange(60.0), np.arange(40.0))
    straight = warped_lattice(ground, np.stack([x, y], axis=-1), lines=6)  # a line every ten pixels
    bright = straight[..., 0] > 200
    assert bright[:, 9].all()
    assert bright[19].all()
    assert not bright[4, 4]
    moved = warped_lattice(ground, np.stack([x + 3, y], axis=-1), lines=6)[..., 0] > 200
    assert moved[:, 6].all()


def test_figures_are_of_the_size_of_the_input(laid):
    palette = default_palette(len(CLASSES))
    assert explain.lattice_figure(laid).shape == (*SIZE, 3)
    assert explain.prior_figure(laid, palette).shape == (SIZE[0], 2 * SIZE[1], 3)
    heat = explain.attention_map(predictor("multisource"), image(), AT, {"prior": PRIOR})
    assert heat.shape == SIZE
    assert 0 <= heat.min() <= heat.max() == 1
    assert explain.attention_figure(laid.image, heat, AT).shape == (*SIZE, 3)


def test_what_a_network_has_not_is_refused():
    with pytest.raises(UsageError, match="pspnet lays no second source over its image"):
        explain.laid_source(predictor("pspnet"), image())
    one = predictor("multisource", align=False, coattention=(32,), label_sources=(), image_sources=("before",))
    with pytest.raises(UsageError, match="align = false"):
        explain.laid_source(one, image())
    with pytest.raises(UsageError, match="no co-attention at stride 16; the network has: 32"):
        explain.attention_map(one, image(), AT)
    with pytest.raises(UsageError, match=r"pixel \(99, 1\) lies outside the image of 60 x 83"):
        explain.attention_map(one, image(), (99, 1), stride=32)
