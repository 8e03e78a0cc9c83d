"""A plain vision transformer as an encoder of feature maps: those of a few of its blocks, all at one stride.

So any decoder can stand on it. What turns maps of one stride into a pyramid is the decoder's own, such as `neck` of a
UPerNet. Parameters are those of `segatlas.encoders.vit` below `vit.`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor, nn

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.encoders.vit import FORMS, VisionTransformer, VisionTransformerOptions, make

LEVELS = 4


class VisionTransformerMaps(PyramidEncoder):
    """The maps of chosen blocks of a plain transformer, in the order in which they are named.

    Args:
        vit: the transformer.
        at: indices of the blocks; None = the last of each quarter of them.
    """

    def __init__(self, vit: VisionTransformer, at: tuple[int, ...] | None):
        super().__init__()
        self.vit = vit
        depth = len(vit.blocks)
        quarters = [max(depth * quarter // LEVELS - 1, 0) for quarter in range(1, LEVELS + 1)]
        self.at = vit.block_indices(quarters if at is None else at)
        self.channels, self.strides = (vit.width,) * len(self.at), (vit.patch_size,) * len(self.at)
        self.size_divisibility = vit.size_divisibility

    @property
    def pretrained(self) -> nn.Module:
        """The part that published weights are for: the transformer."""
        return self.vit

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to a map (N, D, h, w) of each block."""
        self.vit.gradient_checkpointing = self.gradient_checkpointing
        return self.vit(x, at=self.at).maps()

    def stages(self) -> list[list[nn.Module]]:
        """Return those of the transformer."""
        return self.vit.stages()


@dataclass(frozen=True, kw_only=True)
class VisionTransformerMapsOptions(VisionTransformerOptions):
    """Options of a plain vision transformer for decoders on feature maps, besides those that it has anywhere.

    at: indices of the blocks whose maps are given; None = the last of each quarter of them.
    """

    at: tuple[int, ...] | None = None


def build(spec: EncoderSettings, in_channels: int) -> VisionTransformerMaps:
    """Make a plain vision transformer by name.

    Raises:
        UsageError: options that contradict each other, or no such block.
    """
    own = {field.name: getattr(spec.options, field.name) for field in fields(VisionTransformerOptions)}
    vit = make(FORMS[spec.name], VisionTransformerOptions(**own), in_channels)
    return VisionTransformerMaps(vit, spec.options.at)


FAMILY = EncoderFamily(options=VisionTransformerMapsOptions, build=build)
