"""PointRend: segmentation as rendering.

Paper: Kirillov et al. 2020, "PointRend: Image Segmentation as Rendering", https://arxiv.org/abs/1912.08193.

Idea: most pixels are easy. A coarse map of logits is upsampled step by step, and at each step only the least certain
pixels are computed anew, each by a small network that reads fine features and coarse logits at that very point.

Letters: N batch, C image channels, K classes, H W image, h w coarse logits, P points, F pyramid width, D width of
the coarse decoder.

How ours differs: nothing in the numbers, which are MMSegmentation's (a Semantic FPN as coarse part). The logits of the
last step leave at the image's own size. Fine-tuning to another class count keeps encoder, pyramid and coarse decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.fpn import FPN, FPNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.point_head import PointHead, pixel_centres, sample
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseConfig
from segatlas.models.needs import Needs
from segatlas.ops.capture import may_differ, smaller
from segatlas.structures import Inputs, PointLogits, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class PointRendConfig(DenseConfig):
    """Settings of a PointRend, besides those of `DenseConfig`.

    levels: how many of the encoder's last maps the pyramid takes; the points read its finest one.
    neck_channels: pyramid width, F.
    channels: width of the coarse decoder, D.
    point_channels: width of the point head.
    point_layers: its layers before the classifier.
    dropout: fraction of channels dropped before both classifiers while training.
    align_corners: how maps and logits are upsampled, and where points lie in them.
    aux: while training, give the logits of points, named "points", for a loss of their own.
    train_points: points of an image while training, P.
    oversample: how many times as many are drawn, of which the least certain are kept.
    importance: fraction of the points that are kept for being uncertain; the others are drawn anywhere.
    subdivisions: steps of upsampling by two in prediction.
    subdivision_points: points computed anew at each step.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet50c")
    levels: int = 4
    neck_channels: int = 256
    channels: int = 128
    point_channels: int = 256
    point_layers: int = 3
    dropout: float = 0.0
    align_corners: bool = False
    aux: bool = True
    train_points: int = 2048
    oversample: int = 3
    importance: float = 0.75
    subdivisions: int = 2
    subdivision_points: int = 8196


class PointRend(nn.Module):
    """Encoder, pyramid, coarse logits; points while training, refined logits at the image's size in prediction."""

    def __init__(self, config: PointRendConfig):
        super().__init__()
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        require_at_least(config, levels=1, train_points=1, oversample=1, importance=0)
        if config.importance > 1:
            raise UsageError(f"importance: got {config.importance}, expected a fraction of at most 1")
        self.config = config
        self.neck = FPN(self.encoder.channels[-config.levels :], config.neck_channels)
        self.head = FPNHead(
            config.neck_channels,
            config.channels,
            strides=self.encoder.strides[-config.levels :],
            align_corners=config.align_corners,
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        self.point_head = PointHead(
            config.neck_channels,
            config.point_channels,
            config.num_classes,
            layers=config.point_layers,
            dropout=config.dropout,
        )
        for part in (self.neck, self.head, self.classifier):
            init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of the auxiliary logits that training gives."""
        return ("points",) if self.config.aux else ()

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the coarse classifier: (N, D, h, w)."""
        return self.head(self.pyramid(features))

    def pyramid(self, features: list[Tensor]) -> list[Tensor]:
        """Map the encoder's maps to the pyramid: (N, F, h_i, w_i), finest first."""
        maps: list[Tensor] = self.neck(features[-self.config.levels :])
        return maps

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to coarse logits (N, K, h, w); in eval mode to refined (N, K, H, W)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        canvas = (x.shape[-2], x.shape[-1])
        pyramid = self.pyramid(self.encoder(x))
        logits = self.classifier(self.dropout(self.head(pyramid)))
        aux: dict[str, Tensor | PointLogits] = {}
        if not self.training:
            logits = self.refine(pyramid[0], logits, canvas)
        elif self.config.aux:
            points = self.training_points(logits.detach())
            aux = {"points": PointLogits(self.logits_at(points, pyramid[0], logits), points)}
        return SemanticLogits(logits, canvas, Resample(align_corners=self.config.align_corners), aux)

    def logits_at(self, points: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute logits (N, K, P) at points (N, P, 2) from maps (N, F, h, w) and (N, K, h, w)."""
        align = self.config.align_corners
        logits: Tensor = self.point_head(
            sample(fine, points, align_corners=align), sample(coarse, points, align_corners=align)
        )
        return logits

    def training_points(self, coarse: Tensor) -> Tensor:
        """Draw points (N, P, 2) from torch's generator: mostly where coarse logits (N, K, h, w) are uncertain."""
        config, batch = self.config, len(coarse)
        uncertain = int(config.importance * config.train_points)
        drawn = torch.rand(batch, config.oversample * config.train_points, 2, device=coarse.device)
        index = uncertainty(sample(coarse, drawn, align_corners=False)).topk(uncertain, dim=1).indices
        kept = drawn.gather(1, index.unsqueeze(2).expand(-1, -1, 2))
        anywhere = torch.rand(batch, config.train_points - uncertain, 2, device=coarse.device)
        return torch.cat([kept, anywhere], dim=1)

    def refine(self, fine: Tensor, coarse: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Upsample coarse logits (N, K, h, w) to the canvas by steps of two, computing uncertain pixels anew.

        Uncertain pixels of a step are those of its upsampled logits; their own logits replace the upsampled ones.
        """
        align, logits = self.config.align_corners, coarse
        for _ in range(self.config.subdivisions):
            height, width = 2 * logits.shape[-2], 2 * logits.shape[-1]
            logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=align).flatten(2)
            count = smaller(self.config.subdivision_points, height * width)
            index = uncertainty(logits).topk(count, dim=1).indices  # (N, P)
            new = self.logits_at(pixel_centres(index, height, width), fine, coarse).to(logits.dtype)
            logits = logits.scatter(2, index.unsqueeze(1).expand_as(new), new).unflatten(2, (height, width))
        if not may_differ(logits.shape[-2:], canvas):
            return logits
        return F.interpolate(logits, size=canvas, mode="bilinear", align_corners=align)


def uncertainty(logits: Tensor) -> Tensor:
    """Map logits (N, K, P) to (N, P): the second best minus the best; 0 is the least certain."""
    best, second = logits.topk(2, dim=1).values.unbind(1)
    return second - best


ARCHITECTURE = Architecture(
    name="pointrend",
    title="PointRend",
    paper="https://arxiv.org/abs/1912.08193",
    tasks=("semantic",),
    output=SemanticLogits,
    config=PointRendConfig,
    build=PointRend,
    needs=Needs(taught_by=(("point_cross_entropy", "aux.points"),)),
    variants={"pointrend_r50": {"encoder": "resnet50c"}, "pointrend_r101": {"encoder": "resnet101c"}},
    tiny={
        "encoder": "resnet18_w8",
        "neck_channels": 8,
        "channels": 8,
        "point_channels": 8,
        "train_points": 32,
        "subdivision_points": 64,
        "aux": True,
    },
)
