"""The rule of golden digests: weights by name and shape, one input, a digest of the output. Needs torch only.

A state dict filled by this rule is a function of its names and shapes, so that another library's network, filled by its
own names, can be compared with ours without that library: see `tools/make_goldens.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from zlib import crc32

import torch
from torch import Tensor

DIGEST_PLACES = 8


def filled_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of float64 values by the rule; integer tensors become zeros of their type."""
    return {
        name: filled(name, tuple(tensor.shape))
        if tensor.is_floating_point()
        else torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in state.items()
    }


def hollow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of the same names, shapes and types of which all elements are one: they take no memory.

    Unlike tensors on the meta device they can be put side by side without torch importing its compiler.
    """
    return {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in state.items()}


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the float64 values of a tensor of this name and shape."""
    count = math.prod(shape)
    u = torch.arange(count, dtype=torch.float64).mul_(12.9898).add_(crc32(name.encode()) % 997).sin_().mul_(1000)
    v = u.sub_(u.floor()).mul_(2).sub_(1)
    if name.endswith("running_var"):
        v = v.mul_(0.5).add_(1)
    elif name.endswith("running_mean"):
        v = v.mul_(0.1)
    elif len(shape) >= 2:
        v = v.mul_(math.sqrt(3 * shape[0] / count))
    elif name.endswith("weight"):
        v = v.mul_(0.1).add_(1)
    else:
        v = v.mul_(0.1)
    return v.reshape(shape)


def golden_input(shape: tuple[int, ...]) -> Tensor:
    """Return the float64 input of a shape."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(0.013 * i) + 0.5 * torch.sin(0.37 * i)).reshape(shape)


def digest(x: Tensor) -> dict[str, object]:
    """Return shape, mean, deviation, largest magnitude and eight values of a tensor."""
    flat = x.flatten()
    places = [7919 * k % len(flat) for k in range(1, DIGEST_PLACES + 1)]
    return {
        "shape": list(x.shape),
        "mean": float(flat.mean()),
        "std": float(flat.std()),
        "absmax": float(flat.abs().max()),
        "at": {str(place): float(flat[place]) for place in places},
    }


def names_crc(state: Mapping[str, Tensor]) -> int:
    """Return a number that stands for the names and shapes of a state dict."""
    lines = sorted(f"{name} {'x'.join(map(str, tensor.shape))}" for name, tensor in state.items())
    return crc32("\n".join(lines).encode())
