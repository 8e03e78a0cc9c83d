"""Say whether tensors fit a network, and if not, exactly where."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from segatlas.errors import WeightsError

_SHOWN = 4
"""Names listed of each kind of fault."""


def require_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, where: str, network: str) -> None:
    """Raise WeightsError unless both hold the same names with the same shapes.

    Args:
        expected: the network's state dict.
        found: the file's tensors.
        where: the file, named in the error.
        network: what the network is, named in the error.
    """
    missing = [f"{name} {_shape(tensor)}" for name, tensor in expected.items() if name not in found]
    unexpected = [f"{name} {_shape(tensor)}" for name, tensor in found.items() if name not in expected]
    other_shape = [
        f"{name}: file {_shape(found[name])}, network {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    kinds = {"missing in the file": missing, "not in the network": unexpected, "of another shape": other_shape}
    lines = [f"  {len(names)} {kind}: {_first(names)}" for kind, names in kinds.items() if names]
    if lines:
        raise WeightsError(f"{where}: does not fit {network} ({len(expected)} tensors)\n" + "\n".join(lines))


def _first(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
