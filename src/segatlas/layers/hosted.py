"""The frame of a network around another network, its host."""

from __future__ import annotations

from torch import nn


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


def aux_names_of(net: nn.Module) -> tuple[str, ...]:
    """Return the names of a network's auxiliary logits: those that it lists, or "fcn" of an `aux_head`."""
    plain = ("fcn",) if getattr(net, "aux_head", None) is not None else ()
    names: tuple[str, ...] = getattr(net, "aux_names", plain)
    return names
