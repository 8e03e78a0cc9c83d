"""Say whether tensors fit a network, and if not, exactly where; and whether their numbers are any."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from segatlas.errors import WeightsError
from segatlas.printable import printable, shortened

_SHOWN = 4
"""Names listed of each kind of fault."""


def fitting(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of which both hold tensors of one shape and kind of numbers."""
    return tuple(
        name
        for name, tensor in expected.items()
        if name in found and found[name].shape == tensor.shape and _kind(found[name]) == _kind(tensor)
    )


def require_fit(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, where: str, network: str, shown: int = _SHOWN
) -> None:
    """Raise WeightsError unless both hold the same names with the same shapes and kinds of numbers.

    Real numbers of another precision fit, and so do whole numbers of another size; complex ones do not.

    Args:
        expected: the network's state dict.
        found: the file's tensors.
        where: the file, named in the error.
        network: what the network is, named in the error.
        shown: names listed of each kind of fault.
    """
    missing = [f"{name} {_shape(tensor)}" for name, tensor in expected.items() if name not in found]
    unexpected = [f"{name} {_shape(tensor)}" for name, tensor in found.items() if name not in expected]
    other_shape = [
        f"{name}: file {_shape(found[name])}, network {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    other_kind = [
        f"{name}: file {_kind(found[name])}, network {_kind(tensor)}"
        for name, tensor in expected.items()
        if name in found and _kind(found[name]) != _kind(tensor)
    ]
    kinds = {
        "missing in the file": missing,
        "not in the network": unexpected,
        "of another shape": other_shape,
        "of another kind": other_kind,
    }
    lines = [f"  {len(names)} {kind}: {_first(names, shown)}" for kind, names in kinds.items() if names]
    if lines:
        raise WeightsError(f"{printable(where)}: does not fit {network} ({len(expected)} tensors)\n" + "\n".join(lines))


def require_finite(tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Raise WeightsError where a tensor holds NaN or infinite values; `where` is the file, named in the error."""
    faulty = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if faulty:
        raise WeightsError(f"{printable(where)}: NaN or infinite values in {len(faulty)} tensors: {_first(faulty)}")


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.itemsize == 1:  # float8: torch has few operations for it
        tensor = tensor.float()
    with torch.no_grad():
        # a sum takes no memory; it can overflow where all values are finite
        return bool(tensor.sum(dtype=torch.float64).isfinite()) or bool(tensor.isfinite().all())


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "real numbers"
    return "complex numbers" if tensor.is_complex() else "whole numbers" if tensor.dtype != torch.bool else "flags"


def _first(names: list[str], shown: int = _SHOWN) -> str:
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(shortened(name, 200) for name in names[:shown]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
