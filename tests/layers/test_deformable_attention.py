"""segatlas.layers.deformable_attention."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from segatlas.layers import deformable_attention
from segatlas.layers.deformable_attention import DeformableAttention, centers, sample

GRIDS = [(5, 7), (3, 4), (1, 2)]
CELLS = sum(h * w for h, w in GRIDS)


def bilinear(map_, x, y):
    """Return the value (d) of a map (h, w, d) at x, y in cells, zero outside; the cells' centres are whole numbers."""
    h, w, _ = map_.shape
    total = torch.zeros_like(map_[0, 0])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < h and 0 <= column < w:
                total = total + map_[row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def written_out(layer, query, references, cells, grids):
    """Equation 3 of the paper, one number at a time: query by query, head by head, place by place."""
    n, queries, _width = query.shape
    out = torch.zeros_like(query)
    starts = [sum(h * w for h, w in grids[:i]) for i in range(len(grids))]
    for image in range(n):
        values = layer.value_proj(cells[image]).unflatten(1, (layer.heads, -1))
        for q in range(queries):
            places = layer.sampling_offsets(query[image, q]).reshape(layer.heads, len(grids), layer.points, 2)
            weights = layer.attention_weights(query[image, q]).reshape(layer.heads, -1).softmax(-1)
            weights = weights.reshape(layer.heads, len(grids), layer.points)
            heads = []
            for m in range(layer.heads):
                total = 0
                for i, (h, w) in enumerate(grids):
                    map_ = values[starts[i] : starts[i] + h * w, m].reshape(h, w, -1)
                    for k in range(layer.points):
                        x, y = (
                            float(references[q, a]) * s - 0.5 + float(places[m, i, k, a]) for a, s in ((0, w), (1, h))
                        )
                        total = total + weights[m, i, k] * bilinear(map_, x, y)
                heads.append(total)
            out[image, q] = layer.output_proj(torch.cat(heads))
    return out


def by_grid_sample(values, grids, references, offsets, weights):
    """The usual form: all values at places by `grid_sample`, then their weighted sum."""
    n, _, heads, depth = values.shape
    found = []
    for i, (part, (h, w)) in enumerate(zip(values.split([h * w for h, w in grids], dim=1), grids, strict=True)):
        maps = part.permute(0, 2, 3, 1).reshape(n * heads, depth, h, w)
        places = references + offsets[:, :, :, i] / offsets.new_tensor([w, h])
        grid = 2 * places.transpose(1, 2).flatten(0, 1) - 1  # (N M, Q, P, 2)
        found.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    by = weights.permute(0, 2, 1, 3, 4).flatten(3).flatten(0, 1)[:, None]  # (N M, 1, Q, L P)
    summed = (torch.cat(found, dim=3) * by).sum(3)  # (N M, d, Q)
    return summed.unflatten(0, (n, heads)).permute(0, 3, 1, 2).flatten(2)


def material(n=2, queries=9, heads=2, depth=3, points=4, dtype=torch.float64, spread=3.0):
    torch.manual_seed(0)
    values = torch.randn(n, CELLS, heads, depth, dtype=dtype)
    references = torch.rand(n, queries, 1, 1, 2, dtype=dtype)
    offsets = spread * torch.randn(n, queries, heads, len(GRIDS), points, 2, dtype=dtype)
    weights = torch.rand(n, queries, heads, len(GRIDS), points, dtype=dtype)
    return values, references, offsets, weights


def layer_of(width=8, heads=2, levels=3, **fields):
    torch.manual_seed(0)
    layer = DeformableAttention(width, heads=heads, levels=levels, **fields).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.eval()


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_it_is_the_papers_equation_written_out(ratio):
    layer = layer_of(value_ratio=ratio, points=2)
    query, cells = torch.randn(2, 5, 8).double(), torch.randn(2, CELLS, 8).double()
    references = torch.rand(5, 2).double()
    with torch.no_grad():
        got = layer(query, references, cells, GRIDS)
        expected = written_out(layer, query, references, cells, GRIDS)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_values_and_all_gradients_are_those_of_grid_sample_inside_and_outside_of_the_maps(spread):
    values, references, offsets, weights = material(spread=spread)
    given = [x.requires_grad_() for x in (values, references, offsets, weights)]
    got = sample(values, GRIDS, references, offsets, weights)
    expected = by_grid_sample(values, GRIDS, references, offsets, weights)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    upstream = torch.randn_like(got)
    slow = torch.autograd.grad(expected, given, upstream)
    for ours, theirs in zip(torch.autograd.grad(got, given, upstream), slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_places_far_outside_and_infinite_ones_count_nothing():
    values, references, offsets, weights = material(dtype=torch.float32)
    for far in (1e9, -1e30, math.inf, -math.inf):
        assert torch.equal(
            sample(values, GRIDS, references, torch.full_like(offsets, far), weights), torch.zeros(2, 9, 6)
        )


def test_pieces_of_queries_change_no_number(monkeypatch):
    values, references, offsets, weights = material()
    whole = sample(values, GRIDS, references, offsets, weights)
    monkeypatch.setattr(deformable_attention, "ENTRIES", 4 * 2 * 2 * 3 * 4 * 2)  # two queries a piece
    assert torch.equal(sample(values, GRIDS, references, offsets, weights), whole)


def test_images_of_a_batch_do_not_touch_each_other():
    layer = layer_of()
    query, cells, references = torch.randn(3, 5, 8).double(), torch.randn(3, CELLS, 8).double(), torch.rand(3, 5, 2)
    with torch.no_grad():
        together = layer(query, references, cells, GRIDS)
        alone = [layer(query[i : i + 1], references[i : i + 1], cells[i : i + 1], GRIDS) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_at_first_heads_look_around_and_the_places_of_each_are_one_cell_apart():
    layer = DeformableAttention(16, heads=8, levels=2)
    places = layer.sampling_offsets(torch.randn(1, 1, 16)).reshape(8, 2, 4, 2)
    assert torch.equal(places[:, 0], places[:, 1])
    assert torch.allclose(places[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]), atol=1e-6)
    assert torch.allclose(places[1, 0], torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]]), atol=1e-6)
    assert torch.allclose(places.abs().amax(-1), torch.arange(1.0, 5).expand(8, 2, 4))
    assert (layer.attention_weights(torch.randn(1, 1, 16)) == 0).all()


def test_centers_are_those_of_the_cells_map_after_map():
    expected = [((x + 0.5) / w, (y + 0.5) / h) for h, w in GRIDS for y in range(h) for x in range(w)]
    assert torch.allclose(centers(GRIDS), torch.tensor(expected))


def test_half_precision_looks_at_the_same_places():
    layer = layer_of(width=16).float()
    query, cells, references = torch.randn(1, 50, 16), torch.randn(1, CELLS, 16), torch.rand(50, 2)
    with torch.no_grad():
        exact = layer(query, references, cells, GRIDS)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = layer(query, references, cells, GRIDS)
        whole = layer.bfloat16()(query.bfloat16(), references, cells.bfloat16(), GRIDS)
    for found in (low, whole):
        assert found.dtype == torch.bfloat16
        assert (found.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.slow
def test_a_program_exported_for_one_size_runs_at_others_and_gives_the_same():
    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer_of(levels=1).float()

        def forward(self, x):
            grid = (x.shape[2], x.shape[3])
            cells = x.flatten(2).transpose(1, 2)
            return self.layer(cells, centers([grid]), cells, [grid])

    net = Around().eval()
    n, h, w = torch.export.Dim("n"), torch.export.Dim("h", min=2), torch.export.Dim("w", min=2)
    program = torch.export.export(net, (torch.randn(2, 8, 4, 6),), dynamic_shapes=({0: n, 2: h, 3: w},)).module()
    for size in ((1, 8, 4, 6), (3, 8, 9, 5)):
        x = torch.randn(size)
        with torch.no_grad():
            torch.testing.assert_close(program(x), net(x))
