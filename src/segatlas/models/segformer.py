"""SegFormer: a Mix Transformer and a decoder of fully connected layers only.

Paper: Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
https://arxiv.org/abs/2105.15203.

Idea: a transformer encoder already sees far at every scale, so the decoder may be trivial: project the four maps to the
same width, upsample them to stride 4, concatenate them, fuse with a 1x1 convolution, classify.

Letters: N batch, C image channels, K classes, H W image, h w map at stride 4, D decoder width, E_i channels of
map i.

How ours differs: nothing in the numbers, much in the order. A 1x1 convolution of an upsampled map equals the upsampled
1x1 convolution, since the weights of a pixel in bilinear interpolation sum to one. So projection P_i and the slice W_i
of the fuse convolution that meets it become one matrix W_i P_i, applied at the map's own size; the results are
upsampled and summed. The map of 4D channels at stride 4 is never built. Parameters keep their published shapes.
`projection_norm=True` is MMSegmentation's decoder, whose projections have batch norm and ReLU: there only the fuse
convolution can be applied before the upsampling.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.layers.before_upsampling import fuse_before_upsampling
from segatlas.layers.conv import ConvBNReLU
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseConfig, DenseNetwork, PresenceConfig
from segatlas.structures import Resample, SemanticLogits

LEVELS = 4


@dataclass(frozen=True, kw_only=True)
class SegFormerConfig(DenseConfig, PresenceConfig):
    """Settings of a SegFormer, besides those of `DenseConfig` and `PresenceConfig`.

    encoder: an encoder, its output stride and options, of which the four coarsest maps are used, or all of fewer.
    decoder_channels: decoder width, D: 256 in B0 and B1, 768 from B2 on.
    projection_norm: projections have batch norm and ReLU in place of a bias (MMSegmentation's form).
    logits_align_corners: how logits are upsampled; True is the form of segmentation-models-pytorch.
    """

    encoder: EncoderSpec = EncoderSpec(name="mit_b0")
    decoder_channels: int = 256
    projection_norm: bool = False
    logits_align_corners: bool = False


class Fuse(nn.Module):
    """The fuse convolution with its norm. `conv` sees the projected maps concatenated, coarsest first."""

    def __init__(self, width: int, levels: int):
        super().__init__()
        self.conv = nn.Conv2d(levels * width, width, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(width)


class MLPDecoder(nn.Module):
    """Project each map, upsample to the finest, fuse; computed before the upsampling (see the top of this file).

    Parameters: `projections.{i}` (D, E_i) with bias for map i, finest first; `fuse.conv` (D, 4D, 1, 1); `fuse.bn`.
    """

    def __init__(self, in_channels: tuple[int, ...], width: int):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(channels, width) for channels in in_channels)
        self.fuse = Fuse(width, len(in_channels))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map feature maps (N, E_i, h_i, w_i), finest first, to (N, D, h, w)."""
        slices = self.fuse.conv.weight.flatten(1).chunk(len(features), dim=1)[::-1]  # (D, D) each, finest first
        finest, *coarser = map(project_and_fuse, features, self.projections, slices)  # (N, D, h_i, w_i) each
        for x in coarser:
            finest += F.interpolate(x, size=finest.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.fuse.bn(finest), inplace=True)

    def inference_form(self) -> FoldedDecoder:
        """Return the decoder with its products made, for prediction with these weights."""
        return FoldedDecoder(self)


class FoldedDecoder(nn.Module):
    """The decoder in eval mode: one 1x1 convolution a map, with projection, fuse convolution and norm in it."""

    def __init__(self, decoder: MLPDecoder):
        super().__init__()
        norm = decoder.fuse.bn
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        slices = (scale[:, None] * decoder.fuse.conv.weight.flatten(1)).chunk(len(decoder.projections), dim=1)
        self.levels = nn.ModuleList()
        for projection, fuse in zip(decoder.projections, slices[::-1], strict=True):
            weight, bias = projection.get_parameter("weight"), projection.get_parameter("bias")
            level = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1).to(weight)
            level.load_state_dict({"weight": (fuse @ weight)[:, :, None, None], "bias": fuse @ bias})
            self.levels.append(level)
        # Upsampling leaves constants as they are, so that each part may be added at any level.
        self.levels[0].get_parameter("bias").data += norm.bias - norm.running_mean * scale

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map feature maps (N, E_i, h_i, w_i), finest first, to (N, D, h, w)."""
        finest, *coarser = (level(x) for level, x in zip(self.levels, features, strict=True))
        for x in coarser:
            finest += F.interpolate(x, size=finest.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(finest, inplace=True)


def project_and_fuse(x: Tensor, projection: nn.Module, fuse: Tensor) -> Tensor:
    """Map x (N, E, h, w) to (N, D, h, w) by the product of the slice `fuse` (D, D) and the projection (D, E)."""
    kernel, bias = fuse @ projection.get_parameter("weight"), fuse @ projection.get_parameter("bias")
    return F.conv2d(x, kernel[:, :, None, None], bias)


class NormedDecoder(nn.Module):
    """The decoder of MMSegmentation: projections are 1x1 convolutions with batch norm and ReLU.

    Parameters: `projections.{i}.conv` (D, E_i, 1, 1) and `projections.{i}.bn` for map i, finest first; `fuse` as in
    `MLPDecoder`.
    """

    def __init__(self, in_channels: tuple[int, ...], width: int):
        super().__init__()
        self.projections = nn.ModuleList(ConvBNReLU(channels, width, kernel_size=1) for channels in in_channels)
        self.fuse = Fuse(width, len(in_channels))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map feature maps (N, E_i, h_i, w_i), finest first, to (N, D, h, w)."""
        projected = [project(x) for project, x in zip(self.projections, features, strict=True)]
        slices = self.fuse.conv.weight.flatten(1).chunk(len(features), dim=1)[::-1]  # (D, D) each, finest first
        fused = fuse_before_upsampling(projected, slices, align_corners=False)
        return F.relu(self.fuse.bn(fused), inplace=True)


class SegFormer(DenseNetwork):
    """Encoder, decoder of fully connected layers, 1x1 classifier: logits at stride 4."""

    def __init__(self, config: SegFormerConfig):
        super().__init__(config)
        self.resample = Resample(align_corners=config.logits_align_corners)
        decoder = NormedDecoder if config.projection_norm else MLPDecoder
        self.decoder = decoder(self.encoder.channels[-LEVELS:], config.decoder_channels)
        self.add_classifier(config, config.decoder_channels, self.decoder)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        out: Tensor = self.decoder(features[-LEVELS:])
        return out


ARCHITECTURE = Architecture(
    name="segformer",
    title="SegFormer",
    paper="https://arxiv.org/abs/2105.15203",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SegFormerConfig,
    build=SegFormer,
    variants={
        "segformer_b0": {"encoder": "mit_b0", "decoder_channels": 256},
        "segformer_b1": {"encoder": "mit_b1", "decoder_channels": 256},
        "segformer_b2": {"encoder": "mit_b2", "decoder_channels": 768},
        "segformer_b3": {"encoder": "mit_b3", "decoder_channels": 768},
        "segformer_b4": {"encoder": "mit_b4", "decoder_channels": 768},
        "segformer_b5": {"encoder": "mit_b5", "decoder_channels": 768},
    },
    tiny={"encoder": "mit_b0", "decoder_channels": 16},
)
