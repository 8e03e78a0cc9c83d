"""Fast-SCNN: a few shared layers learn to downsample; one branch stays there for detail, one goes on for context.

Paper: Poudel et al. 2019, "Fast-SCNN: Fast Semantic Segmentation Network", https://arxiv.org/abs/1902.04502.

Idea: networks of two branches compute their first layers twice. Here both branches share them, so that a deep branch
at low resolution and a detailed one cost little more than the deep one alone; convolutions are depthwise separable.

Letters: N batch, C image channels, K classes, H W image, E widths, D width of the fused map and of the head.

How ours differs: nothing in the numbers of MMSegmentation's form. The authors' drops values before a last 1x1
convolution alone and uses one auxiliary loss less.

Any image size: nothing is padded; maps round up.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.layers.conv import ConvBNReLU, OpenConv
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

DEPTH = 3
"""Inverted bottlenecks of each of the three groups."""
STRIDES = (2, 2, 1)
"""Of the first bottleneck of each group."""


@dataclass(frozen=True, kw_only=True)
class FastSCNNConfig:
    """Settings of a Fast-SCNN.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    shared_channels: width of the shared layers at strides 2, 4, 8.
    group_channels: width of the three groups of bottlenecks of the deep branch.
    expansion: how many times as wide a bottleneck is inside.
    channels: width of the deep branch's end, of the fused map and of the head, D.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how maps and logits are upsampled.
    aux: also train FCN heads on the shared layers' map, named "stride8", and on the deep branch's, "stride32".
    aux_channels: width of these heads.
    """

    num_classes: int
    in_channels: int = 3
    shared_channels: tuple[int, int, int] = (32, 48, 64)
    group_channels: tuple[int, int, int] = (64, 96, 128)
    expansion: int = 6
    channels: int = 128
    dropout: float = 0.1
    align_corners: bool = False
    aux: bool = False
    aux_channels: int = 32

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        require_at_least(self, expansion=1, channels=1, aux_channels=1)


def separable(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """Return a depthwise 3x3 convolution with batch norm and no ReLU, then a 1x1 convolution with both."""
    return nn.Sequential(
        OpenConv(in_channels, in_channels, stride=stride, groups=in_channels), ConvBNReLU(in_channels, out_channels, 1)
    )


class WideningBottleneck(nn.Module):
    """Widen (1x1), filter each channel (3x3), narrow (1x1) without ReLU; add the input where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, *, stride: int):
        super().__init__()
        wide = in_channels * expansion
        self.conv = nn.Sequential(
            ConvBNReLU(in_channels, wide, 1),
            ConvBNReLU(wide, wide, stride=stride, groups=wide),
            OpenConv(wide, out_channels, 1),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        out: Tensor = x + self.conv(x) if self.residual else self.conv(x)
        return out


class BranchFusion(nn.Module):
    """The deep map upsampled and filtered channel by channel, each map through a 1x1 convolution, their sum."""

    def __init__(self, fine_channels: int, deep_channels: int, channels: int, *, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.filter = ConvBNReLU(deep_channels, channels, groups=channels)
        self.deep = OpenConv(channels, channels, 1)
        self.fine = OpenConv(fine_channels, channels, 1)

    def forward(self, fine: Tensor, deep: Tensor) -> Tensor:
        """Map fine (N, fine_channels, h, w) and deep (N, deep_channels, h/4, w/4) to (N, channels, h, w)."""
        deep = F.interpolate(deep, size=fine.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return F.relu(self.fine(fine) + self.deep(self.filter(deep)))


class FastEncoder(PyramidEncoder):
    """Shared layers, deep branch with pyramid pooling, fusion: the shared map, the fused one, and the deep one."""

    def __init__(self, config: FastSCNNConfig):
        super().__init__()
        first, second, third = config.shared_channels
        self.shared = nn.Sequential(
            ConvBNReLU(config.in_channels, first, stride=2),
            separable(first, second, stride=2),
            separable(second, third, stride=2),
        )
        self.groups = nn.ModuleList()
        given = third
        for width, stride in zip(config.group_channels, STRIDES, strict=True):
            blocks = [WideningBottleneck(given, width, config.expansion, stride=stride)]
            blocks += [WideningBottleneck(width, width, config.expansion, stride=1) for _ in range(DEPTH - 1)]
            self.groups.append(nn.Sequential(*blocks))
            given = width
        self.ppm = PPM(given, config.channels, pool_channels=given // 4, align_corners=config.align_corners)
        self.fusion = BranchFusion(third, config.channels, config.channels, align_corners=config.align_corners)
        self.channels, self.strides = (third, config.channels, config.channels), (8, 8, 32)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to the shared map and the fused one at stride 8, and the deep one at stride 32."""
        fine = deep = self.run_stage(self.shared, x)
        for group in self.groups:
            deep = self.run_stage(group, deep)
        deep = self.ppm(deep)
        return [fine, self.fusion(fine, deep), deep]

    def stages(self) -> list[list[nn.Module]]:
        """Return the shared layers, the groups, and pooling with fusion."""
        return [[self.shared], *([group] for group in self.groups), [self.ppm, self.fusion]]


class FastSCNN(nn.Module):
    """Encoder, two separable convolutions, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: FastSCNNConfig):
        super().__init__()
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = FastEncoder(config)
        width, classes = config.channels, config.num_classes
        self.convs = nn.Sequential(separable(width, width), separable(width, width))
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(width, classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            fine, _, deep = self.encoder.channels
            self.aux_heads["stride8"] = FCNHead(fine, classes, channels=config.aux_channels)
            self.aux_heads["stride32"] = FCNHead(deep, classes, channels=config.aux_channels)
        init_weights(self)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        return tuple(self.aux_heads)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H/8, W/8)."""
        out: Tensor = self.convs(features[1])
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = image_of(inputs)
        features = self.encoder(x)
        logits = self.classifier(self.dropout(self.decode(features)))
        aux = {}
        if self.training:
            aux = {name: head(features[0 if name == "stride8" else 2]) for name, head in self.aux_heads.items()}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample, aux)


ARCHITECTURE = Architecture(
    name="fast_scnn",
    title="Fast-SCNN",
    paper="https://arxiv.org/abs/1902.04502",
    tasks=("semantic",),
    output=SemanticLogits,
    config=FastSCNNConfig,
    build=FastSCNN,
    tiny={
        "shared_channels": (4, 4, 8),
        "group_channels": (8, 8, 8),
        "expansion": 2,
        "channels": 8,
        "aux": True,
        "aux_channels": 4,
    },
)
