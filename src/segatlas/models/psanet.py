"""PSANet: point-wise spatial attention.

Paper: Zhao et al. 2018, "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018,
https://hszhao.github.io/papers/eccv18_psanet.pdf.

Idea: each pixel predicts, from its own features, a mask of weights around itself, one for each place of a window of
M x M' centred on it. In one branch a pixel *collects* from the others with its own mask; in the other it is given
what others *distribute* to it with theirs.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, E channels of the encoder's
last map, D decoder width, a b the map inside the branches (h w shrunk), M M' the window.

How ours differs: nothing in the numbers. In the published form every pixel predicts all M M' weights, which are then
laid out as a matrix of all pairs of pixels: two tensors of (a b) M M' and (a b)^2 numbers, by nature. Here it goes by
rows of pixels: only weights that fall on the map are computed, and the largest tensor has 2 a b^2 numbers for a
image; backward computes a row again. Pairs further apart than the window have the logit 0, as published (they do
take part in the softmax). An exported program, which has no loop of a length not yet known, computes them in the
published form. MMSegmentation's `compact` form, which takes images of one size only, is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.ops.capture import is_captured, larger, smaller
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class PSANetConfig(HeadConfig):
    """Settings of a PSANet, besides those of `HeadConfig`.

    mask_size: the window, (M, M'), in pixels of the shrunk map. Twice that map less one lets all pixels see each other.
    collect: have the branch in which pixels collect.
    distribute: have the branch in which pixels distribute.
    shrink_factor: how many times smaller the map inside the branches is.
    softmax: weights go through a softmax over the map.
    normalization_factor: divisor of a branch's result; None = M M'.
    """

    mask_size: tuple[int, int] = (97, 97)
    collect: bool = True
    distribute: bool = True
    shrink_factor: int = 2
    softmax: bool = True
    normalization_factor: float | None = 1.0


RowWeights = Callable[[Tensor, Tensor, int], Tensor]
"""(guide (N, a, b, D), kernels (2a-1, at most M', D), row) -> (N, a, b, b): for the pixels of a row (last dimension)
the logits of their pairs with all pixels of the map."""


def collected(guide: Tensor, kernels: Tensor, row: int) -> Tensor:
    """Return what the pixels of `row` predict for all others. See `RowWeights`."""
    height, width = guide.shape[1:3]
    kernels = kernels[height - 1 - row : 2 * height - 1 - row]  # of the rows 0 to a-1, seen from `row`
    predicted = torch.einsum("nxd,amd->naxm", guide[:, row], kernels)
    return by_place(predicted, width).transpose(2, 3)


def distributed(guide: Tensor, kernels: Tensor, row: int) -> Tensor:
    """Return what all pixels predict for those of `row`. See `RowWeights`."""
    height, width = guide.shape[1:3]
    kernels = kernels[row : row + height].flip(0)  # of `row`, seen from the rows 0 to a-1
    predicted = torch.einsum("naxd,amd->naxm", guide, kernels)
    return by_place(predicted, width)


def by_place(predicted: Tensor, width: int) -> Tensor:
    """Turn weights for places relative to a pixel into weights for columns of the map.

    Args:
        predicted: (N, a, b, M'): weight m of the pixel in column j is for column j + m - (M' - 1) // 2.
        width: b.

    Returns:
        (N, a, b, b): for the pixel in column j and each column of the map; 0 where the window does not reach.
    """
    half = (predicted.shape[-1] - 1) // 2
    # Window of the places -(b-1) to b, 2b in all: cut or filled up with zeros.
    left = width - 1 - half
    window = F.pad(predicted, (left, 2 * width - left - predicted.shape[-1]))
    # Row j, read from its place b-1-j on, begins at column 0. In memory that start moves by 2b - 1 a row.
    flat = window.flatten(2)[..., width - 1 : width - 1 + width * (2 * width - 1)]
    return flat.unflatten(2, (width, 2 * width - 1))[..., :width]


class PointwiseAttention(nn.Module):
    """One branch: predicts masks and takes the means that they describe.

    Args:
        in_channels: E.
        channels: D.
        mask_size: (M, M').
        row_weights: who predicts for whom: `collected` or `distributed`.
        softmax: of the logits over the map.
        divisor: of the result.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        mask_size: tuple[int, int],
        row_weights: RowWeights,
        softmax: bool,
        divisor: float,
    ):
        super().__init__()
        self.mask_size, self.row_weights, self.softmax, self.divisor = mask_size, row_weights, softmax, divisor
        self.reduce = ConvBNReLU(in_channels, channels, 1)
        self.guide = ConvBNReLU(channels, channels, 1)
        self.mask = nn.Conv2d(channels, mask_size[0] * mask_size[1], kernel_size=1, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int], *, align_corners: bool | int) -> Tensor:
        """Map (N, E, h, w) to (N, D, a, b), where `size` = (a, b)."""
        x = resize(self.reduce(x), size, align_corners=align_corners)
        values = x.flatten(2) / self.divisor
        if is_captured():
            return (values @ self.all_weights(self.guide(x)).to(values.dtype)).unflatten(2, size)
        guide = self.guide(x).permute(0, 2, 3, 1)  # (N, a, b, D)
        kernels = self.kernels(size)
        recompute = self.training and torch.is_grad_enabled()
        rows = [
            checkpoint(self.row, values, guide, kernels, y, use_reentrant=False)
            if recompute
            else self.row(values, guide, kernels, y)
            for y in range(size[0])
        ]
        return torch.stack(rows, dim=2)

    def kernels(self, size: tuple[int, int]) -> Tensor:
        """Return the kernels of the places that a map of (a, b) can use: (2a-1, at most M', D).

        Down they are those of -(a-1) to a-1, with zeros where the window does not reach; across the window is only cut.
        """
        kernels = self.mask.weight.flatten(1).unflatten(0, self.mask_size)
        above, left = (side - 1 - (mask - 1) // 2 for side, mask in zip(size, self.mask_size, strict=True))
        kernels = kernels[:, max(-left, 0) :][:, : 2 * size[1] - 1]
        return F.pad(kernels, (0, 0, 0, 0, above, 2 * size[0] - 1 - above - self.mask_size[0]))

    def row(self, values: Tensor, guide: Tensor, kernels: Tensor, row: int) -> Tensor:
        """Return the result for one row of pixels, (N, D, b), of values (N, D, a b)."""
        weights = self.row_weights(guide, kernels, row).flatten(1, 2)  # (N, a b, b)
        if self.softmax:
            weights = weights.softmax(dim=1)
        return values @ weights.to(values.dtype)

    def all_weights(self, guide: Tensor) -> Tensor:
        """Return the weights of all pairs at once, (N, a b, a b), from (N, D, a, b): the published form."""
        predicted = self.mask(guide).flatten(2).transpose(1, 2)  # (N, a b, M M')
        places, reached = [], []
        for side, mask in zip(guide.shape[2:], self.mask_size, strict=True):
            line = torch.arange(side, device=guide.device)
            place = line - line.unsqueeze(1) + (mask - 1) // 2  # (who predicts, for whom)
            places.append(place.clamp(0, mask - 1))
            reached.append(places[-1] == place)
        index = places[0][:, None, :, None] * self.mask_size[1] + places[1][:, None]  # (a, b, a, b)
        within = reached[0][:, None, :, None] & reached[1][:, None]
        index, within = (x.flatten(2).flatten(0, 1) for x in (index, within))  # (a b, a b)
        weights = predicted.gather(2, index.expand(predicted.shape[0], -1, -1)) * within
        weights = weights.mT if self.row_weights is collected else weights
        return weights.softmax(dim=1) if self.softmax else weights


class PSANet(DenseNetwork):
    """Encoder, the branches on a smaller map, joined with the encoder's map: logits at its stride."""

    keeps_order = True  # attention between pixels magnifies rounding, see `segatlas.inference.fast_form`

    def __init__(self, config: PSANetConfig):
        super().__init__(config)
        require_at_least(config, shrink_factor=1)
        if not (config.collect or config.distribute):
            raise UsageError("collect and distribute are both off: a PSANet has at least one of its branches")
        self.shrink_factor = config.shrink_factor
        in_channels, width = self.encoder.channels[-1], config.channels

        def branch(row_weights: RowWeights) -> PointwiseAttention:
            return PointwiseAttention(
                in_channels,
                width,
                mask_size=config.mask_size,
                row_weights=row_weights,
                softmax=config.softmax,
                divisor=config.normalization_factor or config.mask_size[0] * config.mask_size[1],
            )

        self.collect = branch(collected) if config.collect else None
        self.distribute = branch(distributed) if config.distribute else None
        self.project = ConvBNReLU(width * (config.collect + config.distribute), in_channels, 1)
        self.fuse = ConvBNReLU(2 * in_channels, width)
        self.add_classifier(config, width, self.collect, self.distribute, self.project, self.fuse)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        last = features[-1]  # (N, E, h, w)
        height, width = last.shape[-2:]
        size, align_corners = self.shrunk((height, width))
        branches = [part for part in (self.collect, self.distribute) if part is not None]
        x = torch.cat([part(last, size, align_corners=align_corners) for part in branches], dim=1)
        # The published 1x1 convolution has a padding of 1: the map gets a rim, and is upsampled with it.
        x = self.project(F.pad(x, (1, 1, 1, 1)))  # (N, E, a + 2, b + 2)
        x = resize(x, (height, width), align_corners=align_corners)
        out: Tensor = self.fuse(torch.cat([last, x], dim=1))
        return out

    def shrunk(self, size: tuple[int, int]) -> tuple[tuple[int, int], bool | int]:
        """Return the size (a, b) inside the branches for a map of (h, w), and how maps are upsampled and downsampled.

        As published, sides that both leave a remainder are rounded up with corners aligned, else rounded down without.
        """
        factor = self.shrink_factor
        if factor == 1:
            return size, self.align_corners
        if is_captured():
            rest = smaller(size[0] % factor, 1) * smaller(size[1] % factor, 1)
            return (larger(size[0] // factor + rest, 1), larger(size[1] // factor + rest, 1)), rest
        if all(side % factor for side in size):
            return ((size[0] - 1) // factor + 1, (size[1] - 1) // factor + 1), True
        return (max(size[0] // factor, 1), max(size[1] // factor, 1)), False


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool | int) -> Tensor:
    """Resize (N, C, h, w) bilinearly; `align_corners` may be a number that only a run of a captured graph knows."""
    if isinstance(align_corners, bool):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
    down, across = (line_weights(x.shape[2 + i], size[i], align_corners, device=x.device).to(x.dtype) for i in (0, 1))
    return down @ x @ across.mT


def line_weights(samples: int, size: int, aligned: int, *, device: torch.device) -> Tensor:
    """Return the matrix (size, samples) of a bilinear resize of a line; aligned: 1 = with corners, 0 = without."""
    pixel = torch.arange(size, device=device, dtype=torch.float32)
    with_corners = pixel * ((samples - 1) / larger(size - 1, 1))
    without = ((pixel + 0.5) * (samples / size) - 0.5).clamp(min=0, max=samples - 1)
    source = torch.where(torch.full((), aligned, device=device) > 0, with_corners, without)
    return (1 - (source.unsqueeze(1) - torch.arange(samples, device=device)).abs()).clamp(min=0)


ARCHITECTURE = Architecture(
    name="psanet",
    title="PSANet",
    paper="https://hszhao.github.io/papers/eccv18_psanet.pdf",
    tasks=("semantic",),
    output=SemanticLogits,
    config=PSANetConfig,
    build=PSANet,
    variants={"psanet_r50": {"encoder": "resnet50c"}, "psanet_r101": {"encoder": "resnet101c"}},
    tiny={"encoder": "resnet18_w8", "channels": 8, "mask_size": (9, 7), "aux": True},
)
