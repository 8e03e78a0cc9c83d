"""AFMA: attention across feature maps, which lets large objects help to find small ones of their class.

Paper: Sang et al. 2023, "Small-Object Sensitive Segmentation Using Across Feature Map Attention",
https://pmc.ncbi.nlm.nih.gov/articles/PMC10823909.

Idea: a small object is lost in deep maps, a large one of its class is not. So for each class patches of the image are
related to patches of one of the encoder's maps, by a product of what the same small transform makes of both. Training
compares that with the relation that the label gives (loss `patch_attention`). What the host predicts, averaged to the
cells of that map, is carried back along the relation to the image's patches, and raises or lowers the host's logits.

    image -> 7x7 -> 3x3 -> (N, K, H, W) -> patches -> T --.
                                                          A = product / P^2 -> R -> logits + R * logits
    map   -> 1x1 -> / s^2 -> (N, K, h, w) -> patches -> T --'                 |
    the host's logits -> labels -> averages over s x s -> patches ------------'

Letters: N batch, C image channels, K classes, H W canvas, h w the encoder's map, s its stride, P side of a patch, I F
patches of the image and of the map, T the transform, A the attention (N, K, I, F), R what is carried back.

How ours differs: the two convolutions of the image, with nothing between them, are run as the one 9x9 that they are
inside the image, and their zeros around the first one's result are taken off at its border: a quarter of the work, and
no map of 64 channels. T, two matrices and a ReLU, is one matrix and a ReLU. A is not made, see `ops.patches`. Where the
authors' code fails or forgets something ours does the sensible: K is the number of classes; a map is divided by the
square of its own stride (`divide_by`); no part of the image is left out (`border`). Ignored pixels teach nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.linear import token_linear
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.host import HostSpec, aux_names_of
from segatlas.models.hosted import HostedNetwork, HostWithMaps, require_maps
from segatlas.models.needs import Needs
from segatlas.ops import upsample_logits
from segatlas.ops.capture import may_differ
from segatlas.ops.full_precision import in_full_precision
from segatlas.ops.patches import carried_back, class_fractions, fitted, from_patches, to_patches
from segatlas.structures import Inputs, PatchAttention, SemanticLogits, image_of

FIRST_KERNEL, SECOND_KERNEL = 7, 3
"""Of the two convolutions of the image."""
REACH = FIRST_KERNEL // 2 + SECOND_KERNEL // 2
"""Pixels that the two see to each side."""
SMALL = 1e-5
"""Added to the number of patches that are attended to."""


@dataclass(frozen=True, kw_only=True)
class AFMAConfig:
    """Settings of AFMA.

    num_classes: classes, K, the host's too.
    in_channels: channels of the image, C, the host's too.
    host: the network whose logits are changed: its name and its own fields.
    level: which of its encoder's maps the image is related to, 1 = the finest; on a ResNet that of stride 2.
    patch: side of a patch, P, in pixels of the image and in cells of the map alike.
    image_channels: between the two convolutions of the image.
    transform_channels: between the two matrices of the transform.
    combine: what is carried back, R, changes logits x to x + R x ("scale", the paper's, which lowers negative ones) or
        to x + R ("add").
    border: patches at the right and bottom border that are not full go on with zeros ("pad"), or they are left out and
        logits there stay as they are ("drop", the authors' code).
    divide_by: the encoder's map is divided by the square of its stride ("area"), or by 4 to the power of its level, as
        the authors' code has it for dilated encoders, too ("level").
    """

    num_classes: int
    in_channels: int = 3
    host: HostSpec | None = None
    level: int = 3
    patch: int = 10
    image_channels: int = 64
    transform_channels: int = 200
    combine: Literal["scale", "add"] = "scale"
    border: Literal["pad", "drop"] = "pad"
    divide_by: Literal["area", "level"] = "area"


class ImageMaps(nn.Module):
    """A 7x7 convolution and a 3x3 one of the image, each with a border of zeros, run as one."""

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__()
        self.first = nn.Conv2d(in_channels, channels, FIRST_KERNEL, padding=FIRST_KERNEL // 2)
        self.second = nn.Conv2d(channels, out_channels, SECOND_KERNEL, padding=SECOND_KERNEL // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map the image (N, C, H, W) to (N, K, H, W)."""
        return self.without_outside(x, F.conv2d(x, *self.merged(), padding=REACH))

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return kernel (K, C, 9, 9) and bias (K) of the two convolutions in a row."""
        first, second = self.first, self.second
        with in_full_precision(first.weight):
            kernel = F.conv2d(first.weight.transpose(0, 1), second.weight.flip(2, 3), padding=SECOND_KERNEL - 1)
            bias = torch.einsum("kmyx,m->k", second.weight, first.get_parameter("bias"))
        return kernel.transpose(0, 1), bias + second.get_parameter("bias")

    def without_outside(self, x: Tensor, merged: Tensor) -> Tensor:
        """Take off what the merged convolution saw of the first one's result outside of the image, where that is 0.

        It is one pixel on each side, and reaches the outermost rows and columns (N, K, H, W) alone.
        """
        first, kernel = self.first, self.second.weight
        x = F.pad(x, (REACH, REACH, REACH, REACH))

        def outside(part: Tensor) -> Tensor:
            return F.conv2d(part, first.weight, first.bias)

        above, below = outside(x[:, :, :FIRST_KERNEL]), outside(x[:, :, -FIRST_KERNEL:])  # (N, 64, 1, W + 2)
        x = x[:, :, 1:-1]
        left, right = outside(x[..., :FIRST_KERNEL]), outside(x[..., -FIRST_KERNEL:])  # (N, 64, H, 1)
        merged[:, :, :1] -= F.conv2d(above, kernel[:, :, :1])
        merged[:, :, -1:] -= F.conv2d(below, kernel[:, :, -1:])
        merged[..., :1] -= F.conv2d(left, kernel[..., :1], padding=(1, 0))
        merged[..., -1:] -= F.conv2d(right, kernel[..., -1:], padding=(1, 0))
        return merged

    def inference_form(self) -> MergedImageMaps:
        """Return the same with its kernels merged once, for the fast form."""
        return MergedImageMaps(self)


class MergedImageMaps(nn.Module):
    """The two convolutions of the image with kernels that are merged already."""

    def __init__(self, maps: ImageMaps):
        super().__init__()
        kernel, bias = maps.merged()
        self.maps = maps
        self.conv = nn.Conv2d(kernel.shape[1], len(kernel), kernel.shape[2], padding=REACH)
        self.conv.weight, self.conv.bias = (nn.Parameter(tensor.detach(), False) for tensor in (kernel, bias))

    def forward(self, x: Tensor) -> Tensor:
        """Map the image (N, C, H, W) to (N, K, H, W)."""
        return self.maps.without_outside(x, self.conv(x))


class PatchTransform(nn.Module):
    """Two matrices, then ReLU: the same for patches of the image and of the map, and for all classes."""

    def __init__(self, values: int, channels: int):
        super().__init__()
        self.first = nn.Linear(values, channels, bias=False)
        self.second = nn.Linear(channels, values, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (N, K, I, P^2) to the same shape, none below 0."""
        return token_linear(patches, self.second.weight @ self.first.weight, None).relu_()


class AFMA(HostedNetwork):
    """A host whose logits change by what patches of the image attend to: logits at stride 1."""

    def __init__(self, config: AFMAConfig, host: nn.Module):
        super().__init__(host)
        require_at_least(config, level=1, patch=1, image_channels=1, transform_channels=1)
        encoder = require_maps(host, config.host).encoder
        if config.level > len(encoder.strides):
            raise UsageError(
                f"level: got {config.level}, expected 1 to {len(encoder.strides)}, the host's encoder's maps"
            )
        self.level, self.side, self.border = config.level, config.patch, config.border
        self.stride, self.adds = encoder.strides[config.level - 1], config.combine == "add"
        self.divisor = self.stride**2 if config.divide_by == "area" else 4**config.level
        self.image_maps = ImageMaps(config.in_channels, config.image_channels, config.num_classes)
        self.cell_maps = nn.Conv2d(encoder.channels[config.level - 1], config.num_classes, 1)
        self.transform = PatchTransform(config.patch**2, config.transform_channels)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of what training gives besides logits: "attention", then the host's."""
        return ("attention", *aux_names_of(self.host))

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H, W), in training with the attention."""
        out, attention = self.forward_with_attention(inputs)
        aux = {"attention": attention, **out.aux} if self.training else {}
        return out._replace(logits=self.changed(logits_of(out), attention), aux=aux)

    def forward_with_attention(self, inputs: Tensor | Inputs) -> tuple[SemanticLogits, PatchAttention]:
        """Return the host's output, at its own stride, and the attention, for what explains it."""
        out, maps, _ = cast(HostWithMaps, self.host).forward_with_maps(inputs)
        image = fitted(image_of(inputs), out.canvas)
        return out, self.attention(image, maps[self.level - 1])

    def attention(self, image: Tensor, features: Tensor) -> PatchAttention:
        """Relate the image (N, C, H, W) to the encoder's map (N, C', h, w), in float32 or better."""
        of_image, of_cells = self.image_maps(image), self.cell_maps(features) / self.divisor
        with in_full_precision(of_image):
            dtype = torch.promote_types(of_image.dtype, torch.float32)
            image_patches, map_patches = (
                self.transform(to_patches(x.to(dtype), self.side, self.border)) for x in (of_image, of_cells)
            )
        cells = (of_cells.shape[-2], of_cells.shape[-1])
        return PatchAttention(
            image_patches, map_patches, side=self.side, stride=self.stride, cells=cells, border=self.border
        )

    def changed(self, logits: Tensor, attention: PatchAttention) -> Tensor:
        """Return the host's logits (N, K, H, W), changed by what is carried back to each pixel.

        A patch of the image takes the mean, over the patches that it attends to at all, of A times what the host
        predicts there.
        """
        size, dtype = (logits.shape[-2], logits.shape[-1]), attention.image.dtype
        labels = logits.argmax(dim=1)
        fractions = class_fractions(labels, logits.shape[1], self.stride, attention.cells, dtype)
        with in_full_precision(logits):
            predicted = to_patches(fractions, self.side, self.border)  # (N, K, F, P^2)
            carried = carried_back(attention, predicted, SMALL)
        carried = from_patches(carried, self.side, size, self.border)
        return logits + carried if self.adds else torch.addcmul(logits.to(dtype), carried, logits.to(dtype))


def logits_of(out: SemanticLogits) -> Tensor:
    """Return a host's logits on its whole canvas, (N, K, H, W)."""
    if not may_differ(out.logits.shape[-2:], out.canvas):
        return out.logits
    mode, align_corners = out.resample
    return upsample_logits(out.logits, out.canvas, align_corners=align_corners, mode=mode)


PSP: dict[str, Any] = {
    "name": "pspnet",
    "encoder": {"name": "resnet50", "output_stride": 8},
    "split_channels": True,
    "norm_single": False,
    "fuse_kernel_size": 1,
    "classifier_kernel_size": 3,
    "dropout": 0.2,
    "align_corners": True,
}
DEEPLABV3: dict[str, Any] = {
    "name": "deeplabv3",
    "encoder": {"name": "resnet50", "output_stride": 8, "contract_dilation": False},
    "channels": 256,
    "fuse_kernel_size": 1,
    "convs": 1,
    "aspp_dropout": 0.5,
    "dropout": 0.0,
    "align_corners": True,
}
"""The authors' PSPNet and DeepLabV3: those of segmentation-models-pytorch, at stride 8."""

HOSTS: dict[str, dict[str, Any]] = {
    **{name: {"name": name, "encoder": "resnet50"} for name in ("unet", "manet", "linknet", "fpn", "pan")},
    "unetplusplus": {"name": "unetplusplus", "encoder": "resnet50", "classifier_kernel_size": 1},
    "pspnet": PSP,
    "deeplabv3": DEEPLABV3,
}
"""The authors' eight hosts."""

ARCHITECTURE = Architecture(
    name="afma",
    title="AFMA",
    paper="https://pmc.ncbi.nlm.nih.gov/articles/PMC10823909",
    tasks=("semantic",),
    output=SemanticLogits,
    config=AFMAConfig,
    build=AFMA,
    variants={f"afma_{name}_r50": {"host": host} for name, host in HOSTS.items()},
    tiny={
        "host": {"name": "unet", "encoder": "resnet18_w8", "decoder_channels": (8, 8, 8, 4, 4), "aux": True},
        "patch": 4,
        "image_channels": 8,
        "transform_channels": 8,
    },
    needs=Needs(host=("SemanticLogits",), example_host="unet"),
)
