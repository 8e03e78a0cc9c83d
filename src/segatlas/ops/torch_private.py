"""The one file that uses what torch does not promise: names with an underscore. Each has a public way beside it.

A name may vanish, take other arguments or give other numbers in the next torch. So every use is tried before it is
relied on, and the public way gives the same result, only slower or told by a rule in place of torch itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Options = tuple[Any, Any, Any, int]
"""Padding, stride, dilation and groups of a convolution."""


def private(name: str) -> Callable[..., Any] | None:
    """Return what torch has under a dotted name, None where this torch has no such thing."""
    found: Any = torch
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except (AttributeError, RuntimeError):
        return None
    return found


def takes_slow_path() -> bool:
    """Tell whether torch, at its present threads, sends plain 1x1 convolutions of one image to its slow path.

    The public way is the rule of torch 2.6 to 2.11: one thread, where there is oneDNN to be left.
    """
    layer, x = nn.Conv2d(16, 16, 1), torch.empty(1, 16, 64, 64)
    select = private("_C._select_conv_backend")
    try:
        if select is not None:
            found = select(x, layer.weight, layer.bias, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, None)
            return "Slow" in str(found)
    except (RuntimeError, TypeError):
        pass
    return torch.get_num_threads() == 1 and torch.backends.mkldnn.is_available()


@cache
def can_pack() -> bool:
    """Tell whether this torch packs weights of convolutions as oneDNN reads them, and then gives the same numbers.

    The public way is not to pack: `torch.nn.Conv2d` lays its weights out anew at each call.
    """
    options: Options = ((0, 0), (1, 1), (1, 1), 1)
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        x = torch.arange(2 * 3 * 16, dtype=torch.float32).reshape(1, 6, 4, 4) / 64
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        weight = (torch.arange(8 * 6, dtype=torch.float32).reshape(8, 6, 1, 1) / 32 - 0.5).bfloat16()
        try:
            packed = convolve_packed(x, pack(weight, options, x.shape), None, options)
            return torch.allclose(packed.float(), F.conv2d(x.float(), weight.float()), rtol=0.02, atol=0.02)
        except (RuntimeError, TypeError):
            return False


def pack(weight: Tensor, options: Options, shape: torch.Size) -> Tensor:
    """Return a convolution's weight as oneDNN reads it for a map of that shape. RuntimeError where torch cannot."""
    reorder = private("ops.mkldnn._reorder_convolution_weight")
    if reorder is None:
        raise RuntimeError("this torch packs no weights")
    packed: Tensor = reorder(weight, *options, shape)
    return packed


def convolve_packed(x: Tensor, packed: Tensor, bias: Tensor | None, options: Options) -> Tensor:
    """Return the convolution of a map by a packed weight. RuntimeError where torch cannot."""
    convolve = private("ops.mkldnn._convolution_pointwise")
    if convolve is None:
        raise RuntimeError("this torch convolves by no packed weights")
    to_the_result: tuple[Any, ...] = ("none", [], "")
    result: Tensor = convolve(x, packed, bias, *options, *to_the_result)
    return result


def empty_in_shared_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor to be filled that lies in shared memory; the public way makes it elsewhere and copies it."""
    new_shared = private("UntypedStorage._new_shared")
    try:
        if new_shared is not None:
            storage = new_shared(math.prod(shape) * dtype.itemsize)
            return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]
    except (RuntimeError, TypeError):
        pass
    return torch.empty(shape, dtype=dtype).share_memory_()


def hollow_tensor(kind: type[Tensor], like: Tensor) -> Any:
    """Return a tensor of a subclass, on the processor, that has shape, strides and type of another and no values.

    The public way takes the memory, which nobody writes or reads.
    """
    make = private("Tensor._make_wrapper_subclass")
    facts: dict[str, Any] = {"dtype": like.dtype, "device": torch.device("cpu")}
    try:
        if make is not None:
            return make(kind, like.size(), strides=like.stride(), requires_grad=False, **facts)
    except (RuntimeError, TypeError):
        pass
    return torch.empty_strided(like.size(), like.stride(), **facts).as_subclass(kind)


def results_as_they_are() -> Any:
    """Return the `__torch_function__` of a subclass that makes no result one of its kind; the public one makes all."""
    found = private("_C._disabled_torch_function_impl")
    return classmethod(vars(Tensor)["__torch_function__"].__func__) if found is None else found


def version(tensor: Tensor) -> int | float:
    """Return a number that changes when a tensor is changed in place; tensors of inference mode are not, and have 0.

    The public way is the sum of its values, which takes a look at all of them.
    """
    if tensor.is_inference():
        return 0
    counted = getattr(tensor, "_version", None)
    return int(counted) if counted is not None else float(tensor.detach().double().sum())
