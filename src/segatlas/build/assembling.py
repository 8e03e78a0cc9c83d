"""Build the network that a card or an importer names around the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from segatlas.build.network import build_empty, build_network
from segatlas.build.surgery import Sizes, resize
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.fitting import require_finite, require_fit
from segatlas.checkpoint.hostile import told_as_weights_error
from segatlas.checkpoint.validation import FieldsError
from segatlas.errors import WeightsError
from segatlas.models import find_entry
from segatlas.models.architecture import Architecture
from segatlas.models.reading import load_architecture, read_config

_COMPUTED_BYTES = 1 << 28
"""Bytes that a network's computed buffers may have beside small weights."""


def assemble(card: Card, tensors: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """Build the card's network around `tensors`, without drawing random weights first. Returned in eval mode.

    Raises:
        WeightsError: unknown architecture, invalid config, or tensors that do not fit.
    """
    with told_as_weights_error(f"{where}: the card's network cannot be built"):
        architecture = load_architecture(find_entry(card.architecture)[0].name)
        config, problems = read_config(architecture, card.config)
        if problems:
            raise FieldsError(problems)
    network = f"the {card.architecture} of its card"
    return filled(architecture, config, tensors, where=where, network=network, surgery=card.surgery)


def filled(
    architecture: Architecture,
    config: Any,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    network: str,
    surgery: Mapping[str, Sizes] = MappingProxyType({}),
) -> nn.Module:
    """Build a network around `tensors`, without drawing random weights first. Returned in eval mode.

    Args:
        architecture: the record.
        config: its config dataclass.
        tensors: the state dict; the network keeps those that have its precision, and copies of others.
        where: the file, named in errors.
        network: what the network is, named in errors.
        surgery: of a pruned network, the sizes of its narrower layers.

    Raises:
        WeightsError: tensors or a surgery that do not fit, or tensors that hold NaN or infinite values.
    """
    with told_as_weights_error(f"{where}: {network} cannot be built"):
        net = build_empty(architecture, config, tensors=len(tensors))
    resize(net, surgery, where=where)
    expected = net.state_dict()
    require_fit(expected, tensors, where=where, network=network)
    require_finite(tensors, where=where)
    computed = [buffer for name, buffer in net.named_buffers() if name not in expected]
    if computed:  # they need a real network
        _require_computable(computed, tensors, where=where, network=network)
        with told_as_weights_error(f"{where}: {network} cannot be built"):
            net = build_network(architecture, config)
        resize(net, surgery, where=where)
    net.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}, assign=True)
    return net.eval()


def _require_computable(buffers: Sequence[Tensor], tensors: Mapping[str, Tensor], *, where: str, network: str) -> None:
    """Raise WeightsError where buffers that are computed, not stored, would be out of proportion to the weights."""
    needed, stored = (sum(t.numel() * t.itemsize for t in group) for group in (buffers, tensors.values()))
    if needed > max(_COMPUTED_BYTES, 8 * stored):
        raise WeightsError(f"{where}: {network} needs tables of {needed:,} bytes beside {stored:,} bytes of weights")
