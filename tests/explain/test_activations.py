from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.errors import UsageError
from segatlas.explain.activations import placement_of, recorded
from segatlas.layers.norm import ChannelNorm
from segatlas.structures import QueryMasks, SemanticLogits

CANVAS = (60, 84)
OUTPUT = SemanticLogits(torch.zeros(1, 2, 15, 21), canvas=CANVAS)
CONV, LINEAR, RELU = nn.Conv2d(2, 2, 1), nn.Linear(2, 2), nn.ReLU()
MIXED = nn.Sequential(CONV, LINEAR)


def placed(shape, layer=RELU, output=OUTPUT):
    return placement_of(shape, nn.Sequential(layer), layer, "0", output)


@pytest.mark.parametrize(
    ("shape", "form", "grid"),
    [
        ((1, 6, 15, 21), "channels first", (15, 21)),
        ((1, 15, 21, 6), "channels last", (15, 21)),
        ((1, 5 * 7, 6), "tokens", None),
        ((1, 8 * 11, 6), "tokens", (8, 11)),
    ],
)
def test_the_form_of_an_output_follows_from_its_sides(shape, form, grid):
    if grid is None:
        with pytest.raises(UsageError, match=r"layer: 0 gives 35 tokens, which are no grid over 84 x 60 pixels"):
            placed(shape)
        return
    found = placed(shape)
    assert (found.form, found.grid) == (form, grid)
    values = torch.arange(torch.tensor(shape).prod().item()).reshape(shape)
    if form == "tokens":
        expected = values[0, 2 * grid[1] + 3]
    else:
        expected = values[0, :, 2, 3] if form == "channels first" else values[0, 2, 3]
    assert torch.equal(found.as_map(values)[:, 2, 3], expected)


def test_a_grid_of_one_row_may_cover_an_image_of_one_row():
    output = OUTPUT._replace(canvas=(1, 200))
    assert placed((1, 64, 1, 7), output=output).grid == (1, 7)
    with pytest.raises(UsageError, match="covers no grid over 200 x 1 pixels"):
        placed((1, 64, 3, 7), output=output)


@pytest.mark.parametrize(
    ("layer", "form"), [(CONV, "channels first"), (LINEAR, "channels last"), (ChannelNorm(8), "channels first")]
)
def test_where_sides_do_not_tell_the_layer_does(layer, form):
    output = OUTPUT._replace(canvas=(64, 64))
    assert placed((1, 8, 8, 8), layer, output).form == form


def test_where_nothing_tells_it_is_refused():
    with pytest.raises(UsageError, match="may be first or last"):
        placed((1, 8, 8, 8), MIXED, OUTPUT._replace(canvas=(64, 64)))


@pytest.mark.parametrize("shape", [(4, 49, 6), (340, 6), (2,), (1, 6, 15, 2)])
def test_what_has_no_place_in_the_image_is_refused(shape):
    with pytest.raises(UsageError, match="layer: 0 gives a tensor of shape"):
        placed(shape)


def test_queries_are_no_grid_though_their_number_would_be_one():
    output = QueryMasks(torch.zeros(1, 16, 3), torch.zeros(1, 16, 16, 16), canvas=(64, 64))
    with pytest.raises(UsageError, match="gives 16 queries"):
        placed((1, 16, 6), RELU, output)


def test_a_map_covers_what_its_stride_says_where_the_sides_are_odd():
    assert placed((1, 6, 4, 6), CONV, OUTPUT._replace(canvas=(61, 83))).covered == (64, 96)


def test_what_changes_an_output_in_place_does_not_change_what_is_kept():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    with recorded(net, net[0], "0") as found:
        out = net(torch.linspace(-3, 3, 16).reshape(1, 1, 4, 4))
        (gradient,) = torch.autograd.grad(out.sum(), found.outputs)
    assert (found.outputs[0] < 0).any()
    assert torch.equal(gradient, (found.outputs[0] > 0).float())


def test_one_tensor_in_a_tuple_is_taken_and_put_back():
    class Pair(nn.Module):
        def forward(self, x):
            return 2 * x, 7

    net = Pair()
    with recorded(net, net, "") as found:
        out, seven = net(torch.ones(1, 1, 2, 2))
        (gradient,) = torch.autograd.grad(out.sum(), found.outputs)
    assert seven == 7
    assert torch.equal(gradient, torch.ones(1, 1, 2, 2))
