"""The form of a network whose batch norms take the statistics of the images at hand, in place of running averages.

Some networks were tested so: their running averages were never updated. The network itself stays as it is, and so do
its averages: the form is a copy that shares every tensor, with its batch norms replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.inference.current_form import CurrentForm
from segatlas.inference.fast_form import copy_of
from segatlas.structures import InputSpec

BatchNorm = nn.modules.batchnorm._BatchNorm
"""What batch norms of every dimension are; instance norms are not."""


class OfTheBatch(nn.Module):
    """A batch norm by the statistics of what it is given; of a single value a channel, by its running averages."""

    def __init__(self, norm: BatchNorm):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, ...) to the same shape."""
        norm = self.norm
        if x.numel() == x.shape[1]:  # no variance
            out: Tensor = norm(x)
            return out
        return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


class BatchStatisticsForm(CurrentForm):
    """Keeps that form of a network, and makes it anew when the network's weights have changed."""

    def __init__(self, net: nn.Module, inputs: Sequence[InputSpec], precision: str):
        """Raise UsageError where the network has no batch norm."""
        if not any(isinstance(module, BatchNorm) for module in net.modules()):
            raise UsageError("batch_stats: the network has no batch norm, so there are no statistics to choose from")
        super().__init__(net, inputs, precision)

    def make(self) -> nn.Module:
        """Return a copy with the norms replaced."""
        form = copy_of(self.net)
        if isinstance(form, BatchNorm):
            return OfTheBatch(form)
        for module in list(form.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, BatchNorm):
                    setattr(module, name, OfTheBatch(child))
        return form
