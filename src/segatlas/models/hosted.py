"""The frame of wrappers: networks around another one, their host. What their configs say of it is in `host`."""

from __future__ import annotations

from torch import nn

from segatlas.models.host import aux_names_of


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
