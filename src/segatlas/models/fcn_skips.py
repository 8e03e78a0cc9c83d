"""FCN-32s, FCN-16s, FCN-8s: the fully convolutional networks of the paper, on a VGG, with skips.

Paper: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", https://arxiv.org/abs/1411.4038.

Idea: the fully connected layers of a classification network are convolutions of its last map, so it gives a map of
scores at stride 32. Scores of finer maps are added on the way up: each time the sum is doubled by a transposed
convolution that starts as bilinear interpolation and may learn better.

Letters: N batch, C image channels, K classes, H W image, h w any map, F width of the layers that were fully connected.

How ours differs: the paper pads the image by 100 pixels and cuts the scores afterwards, ours pads the convolutions
themselves. The last upsampling, by 32, 16 or 8, is fixed bilinear interpolation in both; here it is left to whoever
takes the logits, so that losses and class maps can skip it. The two wide layers start from random weights, where the
paper's are those of VGG's classifier. `fcn` is the form that later papers compare with.

Any image size: padded right and bottom with zeros to a multiple of 32, and `canvas` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.layers.init import start_bilinear
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseConfig, DenseNetwork
from segatlas.structures import Inputs, SemanticLogits, image_of

STRIDES = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class FCNSkipsConfig(DenseConfig):
    """Settings of an FCN with skips, besides those of `DenseConfig`.

    dropout: fraction of values dropped while training after each of the two wide layers.
    stride: of the scores: 32 = no skip, 16 = one, 8 = two.
    channels: width of the two layers that were fully connected, F.
    """

    encoder: EncoderSpec = EncoderSpec(name="vgg16")
    dropout: float = 0.5
    stride: Literal[8, 16, 32] = 8
    channels: int = 4096


class SkipScores(nn.Module):
    """Scores of the deepest map, doubled and added to those of each finer one. Skips begin with nothing to say."""

    def __init__(self, in_channels: int, skip_channels: list[int], num_classes: int):
        super().__init__()
        widths = (in_channels, *skip_channels)
        self.scores = nn.ModuleList(nn.Conv2d(width, num_classes, kernel_size=1) for width in widths)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2, padding=1, bias=False) for _ in skip_channels
        )
        nn.init.normal_(self.scores[0].get_parameter("weight"), std=0.01)  # as classifiers elsewhere
        nn.init.zeros_(self.scores[0].get_parameter("bias"))
        for score in list(self.scores)[1:]:
            nn.init.zeros_(score.get_parameter("weight"))
            nn.init.zeros_(score.get_parameter("bias"))
        for up in self.ups:
            start_bilinear(up.get_parameter("weight"))

    def forward(self, deepest: Tensor, *finer: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) and maps (N, _, 2h, 2w), (N, _, 4h, 4w), ... to scores as large as the last."""
        first, *further = self.scores
        scores: Tensor = first(deepest)
        for up, score, x in zip(self.ups, further, finer, strict=True):
            scores = up(scores) + score(x)
        return scores


class FCNSkips(DenseNetwork):
    """Encoder, two wide convolutions, scores of one to three maps added up: logits at stride 8, 16 or 32."""

    def __init__(self, config: FCNSkipsConfig):
        super().__init__(config)
        require_at_least(config, channels=1)
        if self.encoder.strides[-1] != STRIDES[-1]:
            raise UsageError(f"encoder: an FCN with skips takes maps down to stride 32, not {self.encoder.strides}")
        self.size_divisibility = max(self.size_divisibility, STRIDES[-1])
        self.fc6 = nn.Conv2d(self.encoder.channels[-1], config.channels, kernel_size=7, padding=3)
        self.fc7 = nn.Conv2d(config.channels, config.channels, kernel_size=1)
        self.wide_dropout = nn.Dropout(config.dropout)
        finer = STRIDES[STRIDES.index(config.stride) : -1][::-1]
        self.skips = [self.encoder.strides.index(stride // 2) for stride in finer]
        self.add_classifier(config, config.channels, self.fc6, self.fc7)
        skip_channels = [self.encoder.channels[index] for index in self.skips]
        self.classifier = SkipScores(config.channels, skip_channels, config.num_classes)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the deepest scores: (N, F, H/32, W/32)."""
        x = self.wide_dropout(F.relu(self.fc6(features[-1])))
        out: Tensor = self.wide_dropout(F.relu(self.fc7(x)))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w), and to auxiliary logits while training.

        The finer maps of the paper are those after a pooling; the encoder gives them before it.
        """
        x = pad_to_multiple(image_of(inputs), self.size_divisibility)
        features = self.encode(x)
        finer = [F.max_pool2d(features[index], kernel_size=2, stride=2) for index in self.skips]
        logits = self.classifier(self.decode(features), *finer)
        aux = self.aux(features) if self.training else {}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample, aux)


ARCHITECTURE = Architecture(
    name="fcn_skips",
    title="FCN-8s",
    paper="https://arxiv.org/abs/1411.4038",
    tasks=("semantic",),
    output=SemanticLogits,
    config=FCNSkipsConfig,
    build=FCNSkips,
    variants={f"fcn_{stride}s": {"stride": stride} for stride in (32, 16, 8)},
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
