"""UPerNet: unified perceptual parsing.

Paper: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", https://arxiv.org/abs/1807.10221.

Idea: a feature pyramid whose coarsest level has pyramid pooling before it, so that meaning of the whole image flows
down to the finest map. All levels, concatenated, are fused by one 3x3 convolution.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, D decoder width.

How ours differs: nothing in the numbers, which are MMSegmentation's: the scene-parsing part of the paper, with the
ResNet's own stride of 32. In segmentation-models-pytorch the encoder's maps are normalised first, and logits are
upsampled with corners held (variant `upernet_r34_smp`). The fusing convolution is computed before the upsampling of the
coarser levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.norm import ChannelNorm
from segatlas.layers.pooled_fuse import PooledFuse
from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseNetwork, HeadConfig, PresenceConfig
from segatlas.structures import Resample, SemanticLogits


@dataclass(frozen=True, kw_only=True)
class UPerNetConfig(HeadConfig, PresenceConfig):
    """Settings of a UPerNet, besides those of `HeadConfig` and `PresenceConfig`.

    levels: how many of the encoder's last maps the pyramid takes.
    pool_scales: cells along each side of each pooled map.
    norm_maps: layer norm over the channels of each of the encoder's maps.
    logits_align_corners: how logits are upsampled; None = as maps are, `align_corners`.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet50c")
    levels: int = 4
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    norm_maps: bool = False
    logits_align_corners: bool | None = None
    aux_channels: int | None = 256


class UPerNet(DenseNetwork):
    """Encoder, pyramid pooling, feature pyramid, fusion, 1x1 classifier: logits at the stride of the finest map."""

    def __init__(self, config: UPerNetConfig):
        super().__init__(config)
        require_at_least(config, levels=1)
        self.levels = config.levels
        if len(self.encoder.channels) < config.levels:
            found = len(self.encoder.channels)
            raise UsageError(f"levels = {config.levels}, but {config.encoder} has {found} maps; set levels to {found}")
        if config.logits_align_corners is not None:
            self.resample = Resample(align_corners=config.logits_align_corners)
        channels = self.encoder.channels[-config.levels :]
        width, (*finer, last) = config.channels, channels
        self.norms = nn.ModuleList(ChannelNorm(count) if config.norm_maps else nn.Identity() for count in channels)
        self.ppm = PPM(last, width, scales=config.pool_scales, align_corners=config.align_corners)
        self.lateral = nn.ModuleList(ConvBNReLU(channels, width, 1) for channels in finer)
        self.output = nn.ModuleList(ConvBNReLU(width, width) for _ in finer)
        self.fuse = PooledFuse(width, [width] * len(finer), width, align_corners=config.align_corners)
        self.add_classifier(config, width, self.ppm, self.lateral, self.output, self.fuse)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        *finer, last = (norm(x) for norm, x in zip(self.norms, features[-self.levels :], strict=True))
        maps = [layer(x) for layer, x in zip(self.lateral, finer, strict=True)]
        maps.append(self.ppm(last))  # (N, D, h_i, w_i) each
        for i in range(len(maps) - 1, 0, -1):
            size = maps[i - 1].shape[-2:]
            upsampled = F.interpolate(maps[i], size=size, mode="bilinear", align_corners=self.align_corners)
            maps[i - 1] = maps[i - 1] + upsampled
        *finer, last = maps
        finest, *others = [*(layer(x) for layer, x in zip(self.output, finer, strict=True)), last]
        out: Tensor = self.fuse(finest, others)
        return out


SMP: dict[str, Any] = {
    "channels": 256,
    "norm_maps": True,
    "logits_align_corners": True,
    "dropout": 0.0,
}
"""What differs in segmentation-models-pytorch."""

ARCHITECTURE = Architecture(
    name="upernet",
    title="UPerNet",
    paper="https://arxiv.org/abs/1807.10221",
    tasks=("semantic",),
    output=SemanticLogits,
    config=UPerNetConfig,
    build=UPerNet,
    variants={
        "upernet_r18": {"encoder": "resnet18c"},
        "upernet_r50": {"encoder": "resnet50c"},
        "upernet_r101": {"encoder": "resnet101c"},
        "upernet_r34_smp": {"encoder": "resnet34", **SMP},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True, "aux_channels": 8},
)
