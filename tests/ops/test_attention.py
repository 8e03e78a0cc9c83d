from __future__ import annotations

import pytest
import torch
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segatlas.ops import attend

SIZES = {"one size": ((5, 7), (5, 7)), "another size": ((5, 7), (3, 2)), "one key": ((4, 4), (1, 1))}


def written_out(query, key, value, scale):
    weights = torch.einsum("ncq,nck->nqk", query.flatten(2), key.flatten(2)).mul(scale).softmax(dim=-1)
    return torch.einsum("nqk,ndk->ndq", weights, value.flatten(2)).unflatten(2, query.shape[-2:])


def inputs(sizes, channels, depth, **kwargs):
    generator = torch.Generator().manual_seed(0)
    one, other = SIZES[sizes]
    shapes = [(2, channels, *one), (2, channels, *other), (2, depth, *other)]
    return [torch.randn(shape, generator=generator, **kwargs) for shape in shapes]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("channels", "depth"), [(8, 8), (4, 16), (16, 3)])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_it_equals_the_matrix_written_out_with_its_gradients(sizes, channels, depth, scale):
    maps = inputs(sizes, channels, depth, dtype=torch.float64, requires_grad=True)
    expected = written_out(*maps, channels**-0.5 if scale is None else scale)
    got = attend(*maps, scale=scale)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    upstream = torch.randn_like(expected)
    ours, theirs = torch.autograd.grad(got, maps, upstream), torch.autograd.grad(expected, maps, upstream)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("channels", "depth"), [(8, 8), (16, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fused_kernel_runs_whatever_the_layout(channels, depth, layout):
    maps = [x.contiguous(memory_format=layout) for x in inputs("one size", channels, depth)]
    with profile() as seen:
        attend(*maps)
    names = {event.key for event in seen.key_averages()}
    assert any("flash_attention" in name for name in names)
    assert "aten::_scaled_dot_product_attention_math" not in names


@pytest.mark.parametrize("training", [False, True])
def test_values_deeper_than_keys_go_by_blocks_and_no_matrix_of_all_pairs_is_made(monkeypatch, training):
    monkeypatch.setattr("segatlas.ops.attention._BLOCK_ENTRIES", 2 * 35 * 6)  # 6 of the 35 query pixels at a time
    maps = inputs("one size", 4, 16, dtype=torch.float64, requires_grad=training)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))
            return out

    with Watch():
        got = attend(*maps)
        if training:
            got.square().sum().backward()
    assert max(sizes) < 2 * 35 * 35
    torch.testing.assert_close(got, written_out(*maps, 0.5), rtol=1e-9, atol=1e-12)
