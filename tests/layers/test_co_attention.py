"""segatlas.layers.co_attention: golden numbers, the affinity written out, memory, refusals."""

from __future__ import annotations

import pytest
import torch
from fakes.kfvton import off_golden, wave, with_their_weights
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.co_attention import CoAttention


def test_both_outputs_are_the_authors():
    net = with_their_weights(CoAttention(256), {"first": "conv1", "second": "conv2", "linear": "linear_e"})
    with torch.no_grad():
        first, second = net(wave(1, 256, 4, 6), wave(1, 256, 4, 6, phase=1))
    assert off_golden("first", first) <= 1e-6
    assert off_golden("second", second) <= 1e-6


def written_out(net, a, b, pool, scale):
    """Both contexts by the matrix of all pairs of pixels."""
    projected = net.linear(a)
    rows, queries = projected.flatten(2).transpose(1, 2), b.flatten(2)
    values_b, values_a, keys_a = (F.avg_pool2d(x, pool).flatten(2) for x in (b, a, projected))
    to_first = (rows @ values_b * scale).softmax(dim=2)  # (N, S, S')
    to_second = (keys_a.transpose(1, 2) @ queries * scale).softmax(dim=1)  # (N, S', S)
    return (values_b @ to_first.transpose(1, 2)).view_as(a), (values_a @ to_second).view_as(b)


@pytest.mark.parametrize(("pool", "scale"), [(1, 1.0), (1, None), (2, 0.5)])
def test_it_is_the_affinity_of_all_pairs_read_along_rows_and_columns(pool, scale):
    torch.manual_seed(0)
    net = CoAttention(4, pool=pool, scale=scale).double()
    a, b = (torch.randn(2, 4, 4, 6, dtype=torch.float64) for _ in range(2))
    expected = written_out(net, a, b, pool, 0.5 if scale is None else scale)
    for found, slow in zip(net.contexts(a, b), expected, strict=True):
        torch.testing.assert_close(found, slow)
    first, second = net(a, b)
    gated = [torch.sigmoid(net.gate(x)) * x for x in expected]
    torch.testing.assert_close(first, net.first(torch.cat([gated[0], a], 1)))
    torch.testing.assert_close(second, net.second(torch.cat([gated[1], b], 1)))


def test_weights_of_a_pixel_say_where_it_looks():
    torch.manual_seed(0)
    net = CoAttention(4, pool=2).double()
    a, b = (torch.randn(1, 4, 4, 6, dtype=torch.float64) for _ in range(2))
    weights = net.weights(a, b, 3, 2)
    assert weights.shape == (1, 2, 3)
    assert weights.sum().item() == pytest.approx(1)
    seen = (F.avg_pool2d(b, 2) * weights.unsqueeze(1)).sum((2, 3))
    torch.testing.assert_close(seen, net.contexts(a, b)[0][:, :, 3, 2])


def test_no_matrix_of_all_pairs_is_kept_for_the_backward_pass():
    net, kept = CoAttention(4), []
    a, b = (torch.randn(1, 4, 24, 24, requires_grad=True) for _ in range(2))

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        first, second = net(a, b)
    (first.sum() + second.sum()).backward()
    assert max(kept) < 24**4 / 16
    assert a.grad.any()
    assert b.grad.any()


def test_maps_that_do_not_fit_are_refused():
    a = torch.zeros(1, 4, 4, 6)
    with pytest.raises(UsageError, match=r"maps of \(1, 4, 4, 6\) and \(1, 4, 4, 5\), expected two of one shape"):
        CoAttention(4)(a, a[..., :5])
    with pytest.raises(UsageError, match=r"expected two of one shape \(N, 5, h, w\)"):
        CoAttention(5)(a, a)
    with pytest.raises(UsageError, match="pool=4"):
        CoAttention(4, pool=4)(a, a)
