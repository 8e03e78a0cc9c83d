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
from segatlas.layers.presence_head import Pooling, PresenceHead
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


@dataclass(frozen=True, kw_only=True)
class PresenceConfig:
    """Settings of a head that tells which classes an image shows, for networks that may have one.

    presence_classes: also train such a head, named "presence", of so many classes on the encoder's last map, by the
        loss `class_presence`; 0 = none.
    presence_pooling: what it sees of that map, the average or the largest values.
    presence_dropout: fraction of these dropped while training.
    """

    presence_classes: int = 0
    presence_pooling: Pooling = "avg"
    presence_dropout: float = 0.2


class DenseNetwork(nn.Module, ABC):
    """Encoder, decoder, classifier; an FCN head and a presence head while training.

    A subclass's `__init__` calls this one, makes the parts of the decoder, and ends with `add_classifier`. It may set
    `size_divisibility`, what the image is padded to a multiple of, and `resample`, how logits are upsampled.
    """

    aux_level = 2
    """Which of the encoder's maps the auxiliary head sees, counted from the last."""
    aux_dilation = 1
    """Dilation of its convolution."""

    def __init__(self, config: DenseConfig):
        super().__init__()
        self.align_corners = isinstance(config, HeadConfig) and config.align_corners
        self.resample = Resample(align_corners=self.align_corners)
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        self.size_divisibility = self.encoder.size_divisibility

    def add_classifier(
        self, config: DenseConfig, channels: int, *decoder: nn.Module | None, kernel_size: int = 1
    ) -> None:
        """Make dropout, classifier and further heads, and set the starting weights of all that is not the encoder's.

        Args:
            config: the network's.
            channels: of the map before the classifier, D.
            decoder: those parts of the decoder that take the usual starting weights, in order.
            kernel_size: of the classifier.
        """
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier: nn.Module = nn.Conv2d(channels, config.num_classes, kernel_size, padding=kernel_size // 2)
        self.aux_head = self._auxiliary_head(config) if config.aux else None
        self.presence_head = presence_head(config, self.encoder.channels[-1])
        for part in (*decoder, self.classifier, self.aux_head, self.presence_head):
            if part is not None:
                init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary logits that training gets."""
        heads = {"fcn": self.aux_head, "presence": self.presence_head}
        return tuple(name for name, head in heads.items() if head is not None)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map the padded image (N, C, H, W) to what `decode` and `aux` take: the encoder's maps, finest first."""
        features: list[Tensor] = self.encoder(x)
        return features

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps, finest first, to the map before the classifier: (N, D, h, w)."""

    def classify(self, x: Tensor) -> Tensor:
        """Map the decoder's map (N, D, h, w) to logits (N, K, h, w)."""
        logits: Tensor = self.classifier(self.dropout(x))
        return logits

    def aux(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Map the encoder's maps to auxiliary logits by name, for training."""
        logits: dict[str, Tensor] = {}
        if self.aux_head is not None:
            logits["fcn"] = self.aux_head(features[-self.aux_level])
        if self.presence_head is not None:
            logits["presence"] = self.presence_head(features[-1])
        return logits

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w), and to auxiliary logits while training."""
        return self.forward_with_maps(inputs)[0]

    def forward_with_maps(self, inputs: Tensor | Inputs) -> tuple[SemanticLogits, list[Tensor], Tensor]:
        """Do as `forward`, for networks around this one: return beside its output what it was made of.

        Returns:
            The output; the encoder's maps, finest first; the map (N, D, h, w) that was classified.
        """
        x = pad_to_multiple(image_of(inputs), self.size_divisibility)
        features = self.encode(x)
        decoded = self.decode(features)
        logits = self.classify(decoded)
        aux = self.aux(features) if self.training else {}
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, self.resample, aux), self.maps_of_encoder(features), decoded

    def maps_of_encoder(self, features: list[Tensor]) -> list[Tensor]:
        """Return the encoder's own maps, finest first, out of what `encode` gives."""
        return features[: len(self.encoder.channels)]

    def _auxiliary_head(self, config: DenseConfig) -> FCNHead:
        in_channels = self.encoder.channels[-self.aux_level]
        width = config.aux_channels if isinstance(config, HeadConfig) else None
        return FCNHead(in_channels, config.num_classes, channels=width, dilation=self.aux_dilation)


def presence_head(config: object, in_channels: int) -> PresenceHead | None:
    """Make the presence head on a map of so many channels where the config asks for one."""
    if not isinstance(config, PresenceConfig) or config.presence_classes == 0:
        return None
    return PresenceHead(
        in_channels, config.presence_classes, pooling=config.presence_pooling, dropout=config.presence_dropout
    )
