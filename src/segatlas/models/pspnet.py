"""PSPNet: the pyramid scene parsing network.

Paper: Zhao et al. 2017, "Pyramid Scene Parsing Network", https://arxiv.org/abs/1612.01105.

Idea: what a pixel shows depends on the scene around it. So averages of the encoder's last map over grids of 1x1, 2x2,
3x3 and 6x6 cells are put beside that map before it is classified.

Letters: N batch, C image channels, K classes, H W image, h w encoder's last map, E its channels, D decoder width.

How ours differs: nothing in the numbers. The form is MMSegmentation's (each pooled map has D channels, whatever their
number; encoder at stride 8). That of segmentation-models-pytorch is a matter of settings (variant `pspnet_r34_smp`):
pooled maps of E / 4 channels, as the paper has them, a 1x1 fusion, a 3x3 classifier, and an encoder that ends at stride
8 instead of dilating. The pooled maps are never upsampled: their half of the fusing convolution is computed on
the cells, which saves a fifth of all the network's multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from segatlas.layers.inner_upsampling import upsample_inside
from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig, PresenceConfig
from segatlas.structures import Resample, SemanticLogits


@dataclass(frozen=True, kw_only=True)
class PSPNetConfig(HeadConfig, PresenceConfig):
    """Settings of a PSPNet, besides those of `HeadConfig` and `PresenceConfig`.

    pool_scales: cells per side of each grid that is averaged over.
    split_channels: the pooled maps together have as many channels as the encoder's map, E; else each has D.
    norm_single: batch norm after the convolution of a grid of one cell; else that has a bias.
    fuse_kernel_size: of the convolution over the encoder's map and the pooled ones.
    classifier_kernel_size: of the classifier.
    inner_upsampling: the network upsamples its logits by that factor itself, whatever the stride of the encoder; None =
        the last upsampling is to the image's size.
    """

    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    split_channels: bool = False
    norm_single: bool = True
    fuse_kernel_size: int = 3
    classifier_kernel_size: int = 1
    inner_upsampling: int | None = None


class PSPNet(DenseNetwork):
    """Encoder, pyramid pooling, classifier: logits at the stride of the encoder's last map."""

    def __init__(self, config: PSPNetConfig):
        super().__init__(config)
        in_channels, scales = self.encoder.channels[-1], config.pool_scales
        self.ppm = PPM(
            in_channels,
            config.channels,
            scales=scales,
            pool_channels=in_channels // len(scales) if config.split_channels else None,
            norm_single=config.norm_single,
            fuse_kernel_size=config.fuse_kernel_size,
            align_corners=config.align_corners,
        )
        self.stride, self.inner = self.encoder.strides[-1], config.inner_upsampling
        if self.inner is not None:
            self.size_divisibility = max(self.size_divisibility, self.stride)
            self.resample = Resample(align_corners=False)
        self.add_classifier(config, config.channels, self.ppm, kernel_size=config.classifier_kernel_size)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        pooled_and_fused: Tensor = self.ppm(features[-1])
        return pooled_and_fused

    def classify(self, x: Tensor) -> Tensor:
        """Map the decoder's map to logits (N, K, h, w), upsampled inside where the config asks for it."""
        logits = super().classify(x)
        return logits if self.inner is None else upsample_inside(logits, self.inner, self.stride)


SMP: dict[str, Any] = {
    "output_stride": None,
    "split_channels": True,
    "norm_single": False,
    "fuse_kernel_size": 1,
    "classifier_kernel_size": 3,
    "dropout": 0.2,
    "align_corners": True,
}
"""What differs in segmentation-models-pytorch, besides the encoder's three levels."""

ARCHITECTURE = Architecture(
    name="pspnet",
    title="PSPNet",
    paper="https://arxiv.org/abs/1612.01105",
    tasks=("semantic",),
    output=SemanticLogits,
    config=PSPNetConfig,
    build=PSPNet,
    variants={
        "pspnet_r50": {"encoder": "resnet50c"},
        "pspnet_r101": {"encoder": "resnet101c"},
        "pspnet_mobilenet_v2": {"encoder": "mobilenet_v2_320"},
        "pspnet_r34_smp": {"encoder": "resnet34", "encoder_options": {"levels": 3}, **SMP},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
