"""The frame of ordinary dense networks, and the settings that they share. It is no architecture.

    image (N, C, H, W) -> pad -> encoder -> maps -> decode -> (N, D, h, w) -> classify -> logits (N, K, h, w)

An architecture makes its decoder and writes `decode`; it may have its own `classify` or `aux`. One whose image takes
another way (PointRend, OCRNet, STDC and so on) writes its own `forward` and has nothing to do with this file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Settings that all dense networks have.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options.
    dropout: fraction of channels dropped before the classifier while training.
    aux: also train an FCN head, named "fcn", on the encoder's last map but one.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50c", output_stride=8)
    dropout: float = 0.1
    aux: bool = False


@dataclass(frozen=True, kw_only=True)
class HeadConfig(DenseConfig):
    """Settings that most of them have, besides those of `DenseConfig`.

    channels: decoder width, D.
    align_corners: how maps and logits are upsampled.
    aux_channels: width of the auxiliary head; None = a quarter of its input's channels.
    """

    channels: int = 512
    align_corners: bool = False
    aux_channels: int | None = None


class DenseNetwork(nn.Module, ABC):
    """Encoder, decoder, 1x1 classifier, and an FCN head while training.

    A subclass's `__init__` calls this one, makes the parts of the decoder, and ends with `add_classifier`.
    """

    aux_level = 2
    """Which of the encoder's maps the auxiliary head sees, counted from the last."""
    aux_dilation = 1
    """Dilation of its convolution."""

    def __init__(self, config: DenseConfig):
        super().__init__()
        self.align_corners = isinstance(config, HeadConfig) and config.align_corners
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)

    def add_classifier(self, config: DenseConfig, channels: int, *decoder: nn.Module | None) -> None:
        """Make dropout, classifier and auxiliary head, and set the starting weights of all that is not the encoder's.

        Args:
            config: the network's.
            channels: of the map before the classifier, D.
            decoder: those parts of the decoder that take the usual starting weights, in order.
        """
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(channels, config.num_classes, kernel_size=1)
        self.aux_head = self._auxiliary_head(config) if config.aux else None
        for part in (*decoder, self.classifier, self.aux_head):
            if part is not None:
                init_weights(part)

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps, finest first, to the map before the classifier: (N, D, h, w)."""

    def classify(self, x: Tensor) -> Tensor:
        """Map the decoder's map (N, D, h, w) to logits (N, K, h, w)."""
        logits: Tensor = self.classifier(self.dropout(x))
        return logits

    def aux(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Map the encoder's maps to auxiliary logits by name, for training."""
        return {} if self.aux_head is None else {"fcn": self.aux_head(features[-self.aux_level])}

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w), and to auxiliary logits while training."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classify(self.decode(features))
        aux = self.aux(features) if self.training else {}
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, Resample(align_corners=self.align_corners), aux)

    def _auxiliary_head(self, config: DenseConfig) -> FCNHead:
        in_channels = self.encoder.channels[-self.aux_level]
        width = config.aux_channels if isinstance(config, HeadConfig) else None
        return FCNHead(in_channels, config.num_classes, channels=width, dilation=self.aux_dilation)
