"""DDRNet: one branch that stays at stride 8 and one that goes down to stride 64, which tell each other what they see.

Paper: Hong et al. 2021, "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road
Scenes", https://arxiv.org/abs/2101.06085.

Idea: from stride 8 on the network has two branches, a detailed one and one for context. They exchange their maps twice;
the context ends in pooling over windows of several sizes (DAPPM), on a map so small that it costs next to nothing.

Letters: N batch, C image channels, K classes, H W image, W width of the stem, D width of the head.

How ours differs: nothing in the numbers.

Any image size: the image is padded to a multiple of 8, and `canvas` says so; the coarser maps round up.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.layers.conv import ConvBNReLU, OpenConv
from segatlas.layers.init import init_weights
from segatlas.layers.open_residual import OpenHead, open_blocks, open_bottlenecks
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.pooled_scales import DAPPM
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

STRIDE = 8
"""Of the detailed branch, and of the logits."""


@dataclass(frozen=True, kw_only=True)
class DDRNetConfig:
    """Settings of a DDRNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    width: channels of the stem, W; the branches have 2 W, and 4, 8, 16 W.
    pool_channels: width of each pooled map of the context.
    channels: width of the head, D.
    align_corners: how maps and logits are upsampled.
    aux: also train a head on the detailed branch after the first exchange, named "detail".
    """

    num_classes: int
    in_channels: int = 3
    width: int = 32
    pool_channels: int = 128
    channels: int = 64
    align_corners: bool = False
    aux: bool = False

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        require_at_least(self, width=1, pool_channels=1, channels=1)


class DualResolutionEncoder(PyramidEncoder):
    """Stem, two branches with two exchanges, DAPPM: the detailed branch as it was half way, and the sum at the end."""

    size_divisibility = STRIDE

    def __init__(self, config: DDRNetConfig):
        super().__init__()
        width, self.align_corners = config.width, config.align_corners
        self.stem = nn.Sequential(
            ConvBNReLU(config.in_channels, width, stride=2),
            ConvBNReLU(width, width, stride=2),
            open_blocks(width, width, 2),
            nn.ReLU(inplace=True),
            open_blocks(width, 2 * width, 2, stride=2),
            nn.ReLU(inplace=True),
        )
        self.detail = nn.ModuleList(
            [
                open_blocks(2 * width, 2 * width, 2),
                open_blocks(2 * width, 2 * width, 2),
                open_bottlenecks(2 * width, 2 * width, 1),
            ]
        )
        self.context = nn.ModuleList(
            [
                open_blocks(2 * width, 4 * width, 2, stride=2),
                open_blocks(4 * width, 8 * width, 2, stride=2),
                open_bottlenecks(8 * width, 8 * width, 1, stride=2),
            ]
        )
        self.to_detail = nn.ModuleList([OpenConv(4 * width, 2 * width, 1), OpenConv(8 * width, 2 * width, 1)])
        self.to_context = nn.ModuleList(
            [
                OpenConv(2 * width, 4 * width, stride=2),
                nn.Sequential(
                    ConvBNReLU(2 * width, 4 * width, stride=2),
                    OpenConv(4 * width, 8 * width, stride=2),
                ),
            ]
        )
        self.pool = DAPPM(16 * width, config.pool_channels, 4 * width)
        self.channels, self.strides = (2 * width, 4 * width), (STRIDE, STRIDE)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to the detail half way (N, 2 W, H/8, W/8) and the sum (N, 4 W, H/8, W/8)."""
        detail = context = self.run_stage(self.stem, x)
        half_way: list[Tensor] = []
        for index in range(2):
            detail, context = self.exchange(
                self.run_stage(self.detail[index], F.relu(detail)),
                self.run_stage(self.context[index], F.relu(context)),
                index,
            )
            half_way.append(detail)
        detail = self.run_stage(self.detail[2], F.relu(detail))  # (N, 4 W, H/8, W/8)
        context = self.pool(self.run_stage(self.context[2], F.relu(context)))  # (N, 4 W, H/64, W/64)
        return [half_way[0], detail + self.upsampled(context, detail)]

    def exchange(self, detail: Tensor, context: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Add to the map of each branch that of the other one, at its width and size."""
        from_context = self.to_detail[index](F.relu(context))
        from_detail = self.to_context[index](F.relu(detail))
        return detail + self.upsampled(from_context, detail), context + from_detail

    def upsampled(self, x: Tensor, like: Tensor) -> Tensor:
        """Return x at the size of another map."""
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=self.align_corners)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem, what leads to each exchange with it, and the end."""
        steps = (self.detail, self.context, self.to_detail, self.to_context)
        exchanges = [[part[index] for part in steps] for index in range(2)]
        return [[self.stem], *exchanges, [self.detail[2], self.context[2], self.pool]]


class DDRNet(nn.Module):
    """Dual-resolution encoder, head, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: DDRNetConfig):
        super().__init__()
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = DualResolutionEncoder(config)
        half_way, end = self.encoder.channels
        self.head = OpenHead(end, config.channels)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            self.aux_heads["detail"] = nn.Sequential(
                OpenHead(half_way, config.channels), nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
            )
        init_weights(self)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        return tuple(self.aux_heads)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H/8, W/8)."""
        out: Tensor = self.head(features[-1])
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(self.decode(features))
        aux = {}
        if self.training:
            aux = {name: head(features[0]) for name, head in self.aux_heads.items()}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample, aux)


ARCHITECTURE = Architecture(
    name="ddrnet",
    title="DDRNet",
    paper="https://arxiv.org/abs/2101.06085",
    tasks=("semantic",),
    output=SemanticLogits,
    config=DDRNetConfig,
    build=DDRNet,
    variants={
        "ddrnet_23_slim": {},
        "ddrnet_23": {"width": 64, "channels": 128},
    },
    exports_dynamic=False,
    not_dynamic_because="capture asks whether the map at stride 64 and its averages have a second cell, and keeps the "
    "answers",
    tiny={"width": 4, "pool_channels": 8, "channels": 8, "aux": True},
)
