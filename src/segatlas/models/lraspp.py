"""LR-ASPP: the smallest decoder that still looks at the whole image, for MobileNetV3.

Paper: Howard et al. 2019, "Searching for MobileNetV3", section 6.4, https://arxiv.org/abs/1905.02244.

Idea: of the ASPP only the 1x1 branch is left, its channels weighted by the pooled image; detail comes from one finer
map, classified on its own, and the two scores are added.

Letters: N batch, C image channels, K classes, H W image, h w encoder's map at stride 8, D decoder width.

How ours differs: nothing in the numbers. torchvision upsamples D channels and classifies then; here the deep map is
classified at its own size and K channels are upsampled: a 1x1 convolution and a bilinear upsampling commute.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture
from segatlas.structures import Inputs, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class LRASPPConfig:
    """Settings of an LR-ASPP.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options.
    low_level: which of the encoder's maps gives the detail, counted from the last: 3 is two before the last.
    channels: decoder width, D.
    dropout: fraction of channels dropped before the classifier of the deep map while training.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="mobilenet_v3_large", output_stride=16)
    low_level: int = 3
    channels: int = 128
    dropout: float = 0.0


class TwoClassifiers(nn.Module):
    """A 1x1 classifier for the fine map and one for the deep map; their scores are added at the fine map's size."""

    def __init__(self, low_channels: int, channels: int, num_classes: int):
        super().__init__()
        self.low = nn.Conv2d(low_channels, num_classes, kernel_size=1)
        self.high = nn.Conv2d(channels, num_classes, kernel_size=1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Map low (N, E, h, w) and high (N, D, h', w') to logits (N, K, h, w)."""
        fine: Tensor = self.low(low)
        return fine + F.interpolate(self.high(high), size=fine.shape[-2:], mode="bilinear", align_corners=False)


class LRASPP(nn.Module):
    """Encoder, a 1x1 convolution weighted by the pooled image, two classifiers: logits at the fine map's stride."""

    def __init__(self, config: LRASPPConfig):
        super().__init__()
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        self.low_level = config.low_level
        self.conv = ConvBNReLU(self.encoder.channels[-1], config.channels, 1)
        self.gate = nn.Conv2d(self.encoder.channels[-1], config.channels, kernel_size=1, bias=False)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = TwoClassifiers(self.encoder.channels[-config.low_level], config.channels, config.num_classes)
        for part in (self.conv, self.gate, self.classifier):
            init_weights(part)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the deep map before its classifier: (N, D, h', w')."""
        x = features[-1]
        weights = self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        out: Tensor = self.conv(x) * weights
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(features[-self.low_level], self.dropout(self.decode(features)))
        return SemanticLogits(logits, canvas=(x.shape[-2], x.shape[-1]))


ARCHITECTURE = Architecture(
    name="lraspp",
    title="LR-ASPP",
    paper="https://arxiv.org/abs/1905.02244",
    tasks=("semantic",),
    output=SemanticLogits,
    config=LRASPPConfig,
    build=LRASPP,
    variants={"lraspp_mobilenet_v3_large": {"encoder": "mobilenet_v3_large"}},
    tiny={"encoder": "resnet18_w8", "channels": 8},
)
