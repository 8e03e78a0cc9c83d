"""Arrays of NumPy inside a pickle, read as data: Detectron2's model zoo keeps its weights so (`.pkl`).

NumPy's own functions are not called. What a pickle says of an array (its type, its shape, its bytes) is written down
and becomes a tensor only where it agrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segatlas.errors import WeightsError

MOST_DIMENSIONS = 32

_TYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}


class NumberType:
    """A type of numbers that a pickle names, such as "f4"; its byte order is set afterwards."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any = "", *_: Any):
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = state[1]

    def torch(self) -> torch.dtype:
        """Return torch's type. WeightsError where there is none, or the bytes stand the other way round."""
        name = self.name.lstrip("<=|") if isinstance(self.name, str) else ""
        if name not in _TYPES or self.order not in ("<", "=", "|"):
            raise WeightsError(f"holds an array of numbers of a type that is not supported ({str(self.name)[:20]!r})")
        return _TYPES[name]


class ArrayNote:
    """An array to be: what a pickle says of it."""

    __slots__ = ("state",)

    def __init__(self, state: Any = None):
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def tensor(self) -> Tensor:
        """Return the array as a tensor. WeightsError where type, shape and bytes do not agree."""
        state = self.state
        if not isinstance(state, tuple) or len(state) != 5:
            raise WeightsError("damaged (an array without its numbers)")
        _, shape, kind, columns_first, content = state
        if isinstance(content, str):  # bytes of Python 2
            content = content.encode("utf-8", "surrogateescape")
        if not isinstance(kind, NumberType) or not isinstance(content, bytes | bytearray):
            raise WeightsError("damaged (an array of objects, or without its bytes)")
        sizes = shape if isinstance(shape, tuple) else (-1,)
        if len(sizes) > MOST_DIMENSIONS or not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in sizes):
            raise WeightsError("damaged (an array without a shape)")
        dtype = kind.torch()
        if math.prod(sizes) * dtype.itemsize != len(content):
            raise WeightsError(f"damaged (an array of {sizes} with {len(content):,} bytes)")
        if not content:
            return torch.empty(sizes, dtype=dtype)
        numbers = torch.frombuffer(bytearray(content), dtype=dtype)
        if columns_first is True:
            return numbers.view(sizes[::-1]).permute(*range(len(sizes) - 1, -1, -1)).contiguous()
        return numbers.view(sizes)


def _empty_array(*_: Any) -> ArrayNote:
    return ArrayNote()


def _array_of_buffer(content: Any = b"", kind: Any = None, shape: Any = None, order: Any = "C", *_: Any) -> ArrayNote:
    return ArrayNote((1, shape, kind, order == "F", content))


def _encoded(text: Any = "", encoding: Any = "", *_: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise WeightsError("damaged (bytes in an unknown writing)")
    return text.encode("latin1")


def _no_bytes(*given: Any) -> bytes:
    if given:
        raise WeightsError("damaged (bytes in an unknown writing)")
    return b""


def _type(*values: Any) -> NumberType:
    return NumberType(*values)


def _array_class(*_: Any) -> ArrayNote:
    return ArrayNote()


FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty_array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_of_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _array_class,
    ("numpy", "dtype"): _type,
    ("_codecs", "encode"): _encoded,
    **{(module, "bytes"): _no_bytes for module in ("__builtin__", "builtins")},
}
"""Names that pickled arrays need -> what stands for them."""
