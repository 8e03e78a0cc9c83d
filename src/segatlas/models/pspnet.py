"""PSPNet: the pyramid scene parsing network.

Paper: Zhao et al. 2017, "Pyramid Scene Parsing Network", https://arxiv.org/abs/1612.01105.

Idea: what a pixel shows depends on the scene around it. So averages of the encoder's last map over grids of 1x1, 2x2,
3x3 and 6x6 cells are put beside that map before it is classified.

Letters: N batch, C image channels, K classes, H W image, h w encoder's last map, E its channels, D decoder width.

How ours differs: nothing in the numbers. The form is MMSegmentation's (each pooled map has D channels, whatever their
number; encoder at stride 8). The pooled maps are never upsampled: their half of the fusing convolution is computed on
the cells, which saves a fifth of all the network's multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class PSPNetConfig(HeadConfig):
    """Settings of a PSPNet, besides those of `HeadConfig`.

    pool_scales: cells per side of each grid that is averaged over.
    """

    pool_scales: tuple[int, ...] = (1, 2, 3, 6)


class PSPNet(DenseNetwork):
    """Encoder, pyramid pooling, 1x1 classifier: logits at the stride of the encoder's last map."""

    def __init__(self, config: PSPNetConfig):
        super().__init__(config)
        self.ppm = PPM(
            self.encoder.channels[-1], config.channels, scales=config.pool_scales, align_corners=config.align_corners
        )
        self.add_classifier(config, config.channels, self.ppm)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        pooled_and_fused: Tensor = self.ppm(features[-1])
        return pooled_and_fused


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
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
