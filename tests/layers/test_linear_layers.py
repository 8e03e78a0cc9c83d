from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import profile

from segatlas.layers.linear import SMALL, PointwiseConv2d, TokenLinear
from segatlas.ops.torch_private import takes_slow_path


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed():
    before = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def twins(plain: nn.Module, quick: nn.Module) -> tuple[nn.Module, nn.Module]:
    quick.load_state_dict(plain.state_dict())
    return plain, quick


def functions_of(call) -> set[str]:
    with profile() as seen:
        call()
    return {event.key for event in seen.key_averages()}


# Many tokens, tokens in a map that is not contiguous, few tokens, few numbers, none, one vector.
SHAPES = [(2, 300, 40), (2, 30, 20, 40), (2, 20, 40), (70, 40), (0, 40), (40,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_token_linear_is_linear_with_its_gradients(shape, bias):
    plain, quick = twins(nn.Linear(40, 24, bias=bias), TokenLinear(40, 24, bias=bias))
    x = torch.randn(shape)
    if x.ndim == 4:
        x = x.transpose(1, 2)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, expected = quick(ours), plain(theirs)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    got.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    for one, other in zip(quick.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_token_linear_runs_as_a_convolution_only_where_that_is_quicker():
    layer = TokenLinear(40, 24)
    many, few = torch.randn(SMALL // 40 + 1, 40), torch.randn(SMALL // 40, 40)
    assert "aten::mkldnn_convolution" in functions_of(lambda: layer(many))
    assert "aten::addmm" in functions_of(lambda: layer(few))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "aten::conv2d" not in functions_of(lambda: layer(many))
    assert "aten::conv2d" not in functions_of(lambda: layer.double()(many.double()))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"stride": 2}, {"groups": 4}])
@pytest.mark.parametrize("size", [(3, 3), (40, 50)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pointwise_convolution_is_the_convolution_with_its_gradients(options, size, layout):
    plain, quick = twins(nn.Conv2d(16, 24, 1, **options), PointwiseConv2d(16, 24, 1, **options))
    x = torch.randn(1, 16, *size).contiguous(memory_format=layout)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, expected = quick(ours), plain(theirs)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    got.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quick.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-3)


def test_at_one_thread_a_pointwise_convolution_does_not_take_the_slow_path_that_torch_takes():
    plain, quick = twins(nn.Conv2d(16, 24, 1), PointwiseConv2d(16, 24, 1))
    x = torch.randn(1, 16, 40, 50).contiguous(memory_format=torch.channels_last)
    assert "aten::_slow_conv2d_forward" in functions_of(lambda: plain(x))
    names = functions_of(lambda: quick(x))
    assert "aten::mkldnn_convolution" in names
    assert not any("slow" in name for name in names)


@pytest.mark.parametrize(("threads", "slow"), [(1, True), (2, False)])
def test_the_check_tells_the_path_that_torch_takes(threads, slow):
    torch.set_num_threads(threads)
    assert takes_slow_path() is slow
    names = functions_of(lambda: nn.Conv2d(16, 16, 1)(torch.ones(1, 16, 64, 64)))
    assert ("aten::_slow_conv2d_forward" in names) is slow
