"""The frame of wrappers: networks around another one, their host. What their configs say of it is in `host`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from torch import Tensor, nn

from segatlas.encoders.contract import PyramidEncoder
from segatlas.errors import UsageError
from segatlas.models.host import HostSpec, aux_names_of

if TYPE_CHECKING:
    from segatlas.structures import Inputs, SemanticLogits

NO_MAPS = (
    "host: {} does not give its encoder's maps; unet, unetplusplus, manet, linknet, fpn, pan, pspnet and deeplabv3 do, "
    "for example"
)


class HostedNetwork(nn.Module):
    """A network around another: encoder and classifier, for learning rates, freezing and fine-tuning, are its host's.

    A subclass calls `self.host` in its own `forward`. host: a finished network, which may have a host itself.
    """

    def __init__(self, host: nn.Module):
        super().__init__()
        self.host = host

    @property
    def encoder(self) -> nn.Module:
        """Return the host's encoder."""
        return self.host.get_submodule("encoder")

    @property
    def classifier(self) -> nn.Module:
        """Return the host's classifier."""
        return self.host.get_submodule("classifier")

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of the auxiliary logits that training gives: the host's."""
        return aux_names_of(self.host)


class HostWithMaps(Protocol):
    """A network that gives its encoder's maps beside its output."""

    encoder: PyramidEncoder

    def forward_with_maps(self, inputs: Tensor | Inputs) -> tuple[SemanticLogits, list[Tensor], Tensor]:
        """Return the output, the encoder's maps, finest first, and the map that was classified."""


def require_maps(host: nn.Module, spec: HostSpec | None) -> HostWithMaps:
    """Return a host that gives its encoder's maps. Raises UsageError, with the name in its spec, for another one."""
    if not hasattr(host, "forward_with_maps"):
        raise UsageError(NO_MAPS.format(spec))
    return cast(HostWithMaps, host)
