"""What a decoder may expect of an encoder."""

from __future__ import annotations

from torch import Tensor, nn


class Encoder(nn.Module):
    """Turns a picture into feature maps, finest first.

    channels[i] and strides[i] describe the i-th map of `forward`; map i is (N, channels[i], ceil(H/s), ceil(W/s)) or the
    encoder's own rounding for an H x W picture. Encoders never read files: weights are loaded by `segatlas.weights`.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map a picture (N, C, H, W) to feature maps, finest first."""
        raise NotImplementedError(type(self).__name__)

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules in depth order (stem first), for layer-wise learning rates and freezing."""
        raise NotImplementedError(type(self).__name__)
