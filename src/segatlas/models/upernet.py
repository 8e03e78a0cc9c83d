"""UPerNet: unified perceptual parsing.

Paper: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", https://arxiv.org/abs/1807.10221.

Idea: a feature pyramid whose coarsest level has pyramid pooling before it, so that meaning of the whole image flows
down to the finest map. All levels, concatenated, are fused by one 3x3 convolution.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, D decoder width.

How ours differs: nothing in the numbers, which are MMSegmentation's: the scene-parsing part of the paper, with the
ResNet's own stride of 32. The fusing convolution is computed before the upsampling of the coarser levels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import Encoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.pooled_fuse import PooledFuse
from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class UPerNetConfig:
    """Settings of a UPerNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options.
    levels: how many of the encoder's last maps the pyramid takes.
    channels: decoder width, D.
    pool_scales: cells along each side of each pooled map.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how maps and logits are upsampled.
    aux: also train an FCN head, named "fcn", on the encoder's last map but one.
    aux_channels: its width; None = a quarter of its input's channels.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50c")
    levels: int = 4
    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    dropout: float = 0.1
    align_corners: bool = False
    aux: bool = False
    aux_channels: int | None = 256


class UPerNet(nn.Module):
    """Encoder, pyramid pooling, feature pyramid, fusion, 1x1 classifier: logits at the stride of the finest map."""

    def __init__(self, config: UPerNetConfig, encoder: Encoder):
        super().__init__()
        require_at_least(config, levels=1)
        self.levels, self.align_corners = config.levels, config.align_corners
        self.encoder = encoder
        width, (*finer, last) = config.channels, encoder.channels[-config.levels :]
        self.ppm = PPM(last, width, scales=config.pool_scales, align_corners=config.align_corners)
        self.lateral = nn.ModuleList(ConvBNReLU(channels, width, 1) for channels in finer)
        self.output = nn.ModuleList(ConvBNReLU(width, width) for _ in finer)
        self.fuse = PooledFuse(width, [width] * len(finer), width, align_corners=config.align_corners)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(width, config.num_classes, kernel_size=1)
        aux = FCNHead(encoder.channels[-2], config.num_classes, channels=config.aux_channels) if config.aux else None
        self.aux_head = aux
        for part in (self.ppm, self.lateral, self.output, self.fuse, self.classifier, self.aux_head):
            if part is not None:
                init_weights(part)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        *finer, last = features[-self.levels :]
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

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(self.dropout(self.decode(features)))
        aux = {"fcn": self.aux_head(features[-2])} if self.aux_head is not None and self.training else {}
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, Resample(align_corners=self.align_corners), aux)


def build(config: UPerNetConfig) -> UPerNet:
    """Make the network."""
    return UPerNet(
        config,
        create_encoder(config.encoder, in_channels=config.in_channels),
    )


ARCHITECTURE = Architecture(
    name="upernet",
    title="UPerNet",
    paper="https://arxiv.org/abs/1807.10221",
    tasks=("semantic",),
    output=SemanticLogits,
    config=UPerNetConfig,
    build=build,
    variants={
        "upernet_r18": {"encoder": "resnet18c"},
        "upernet_r50": {"encoder": "resnet50c"},
        "upernet_r101": {"encoder": "resnet101c"},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True, "aux_channels": 8},
)
