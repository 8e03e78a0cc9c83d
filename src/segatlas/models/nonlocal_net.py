"""Non-local networks: every pixel sees every other pixel.

Paper: Wang et al. 2018, "Non-local Neural Networks", https://arxiv.org/abs/1711.07971.

Idea: between two convolutions, each pixel is added a mean of all pixels' values, weighted by likeness:
y_i = sum_j f(x_i, x_j) g(x_j) / C(x). The paper compares pairs of pixels in four ways f (section 3.2); all are here.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, E channels of the encoder's
last map, D decoder width, R width inside the block (D / reduction).

How ours differs: nothing in the numbers. The matrix of all pairs of pixels, (h w)^2 numbers, is never built: the two
Gaussians go through fused attention, the dot product is summed over pixels first, and the concatenation, a ReLU of
a sum of two numbers, is summed up in sorted order. The form around the block is MMSegmentation's (encoder at stride 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.ops import attend
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class NonLocalNetConfig(HeadConfig):
    """Settings of a non-local network, besides those of `HeadConfig`.

    reduction: how many times narrower the block is inside, D / R.
    mode: how two pixels are compared, the paper's f.
    use_scale: divide the products by sqrt(R) before the softmax; of "embedded_gaussian" only.
    """

    reduction: int = 2
    mode: Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"] = "embedded_gaussian"
    use_scale: bool = True


class SoftmaxMean(nn.Module):
    """f = exp(scale * query_i . key_j), divided by its sum over j: the (embedded) Gaussian."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map query and key (N, C', h, w) and value (N, R, h, w) to (N, R, h, w)."""
        return attend(query, key, value, scale=self.scale)


class DotProductMean(nn.Module):
    """f = query_i . key_j, divided by the number of pixels.

    Without a softmax, (query key) value = query (key value): one R x R matrix for the image.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map query, key and value (N, R, h, w) to (N, R, h, w)."""
        pixels = query.shape[2] * query.shape[3]
        summed = value.flatten(2) / pixels @ key.flatten(2).transpose(1, 2)  # (N, R, R)
        return (summed @ query.flatten(2)).unflatten(2, query.shape[-2:])


class ConcatenationMean(nn.Module):
    """f = ReLU(w . [query_i, key_j]), divided by the number of pixels.

    That is ReLU(a_i + b_j) with two numbers a pixel. With the b_j in falling order, the pixels j that count for a
    pixel i are the first few, and what they add up to, a_i sum_j g_j + sum_j b_j g_j, is read from two running sums.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.project = nn.Conv2d(2 * channels, 1, kernel_size=1, bias=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map query, key and value (N, R, h, w) to (N, R, h, w)."""
        for_query, for_key = self.project.weight.split(query.shape[1], dim=1)
        exact = torch.promote_types(value.dtype, torch.float32)  # running sums lose too much in half precision
        a = F.conv2d(query, for_query).flatten(1).to(exact)  # (N, h w)
        b, order = F.conv2d(key, for_key).flatten(1).to(exact).sort(dim=1, descending=True)
        g = value.flatten(2).transpose(1, 2).to(exact)  # (N, h w, R)
        g = rows(g, order) / g.shape[1]
        count = torch.searchsorted(-b.detach(), a.detach())  # of the b_j above -a_i
        sums = [rows(F.pad(x, (0, 0, 1, 0)).cumsum(dim=1), count) for x in (g, b[:, :, None] * g)]
        out = a[:, :, None] * sums[0] + sums[1]
        return out.to(value.dtype).transpose(1, 2).unflatten(2, query.shape[-2:])


def rows(table: Tensor, index: Tensor) -> Tensor:
    """Return rows (N, M, R) of tables (N, L, R) by their numbers (N, M).

    Not `take_along_dim`: it broadcasts, so that an exported program would take one size only.
    """
    return table.gather(1, index[:, :, None].expand(-1, -1, table.shape[2]))


class NonLocalBlock(nn.Module):
    """x + W_z y: adds to each pixel what it finds in all others (Figure 2 of the paper).

    Args:
        channels: of the map, D.
        inner: width of the values, R.
        theta: makes the queries.
        phi: makes the keys.
        mean: compares queries with keys and takes the mean of the values.
    """

    def __init__(self, channels: int, inner: int, *, theta: nn.Module, phi: nn.Module, mean: nn.Module):
        super().__init__()
        self.theta = theta
        self.phi = phi
        self.g = nn.Conv2d(channels, inner, kernel_size=1)
        self.mean = mean
        self.conv = nn.Conv2d(inner, channels, kernel_size=1, bias=False)
        self.bn = BatchNorm2d(channels)
        init_weights(self)
        for part in (self.theta, self.phi, self.g, self.mean):
            for weight in part.parameters():
                if weight.ndim == 4:
                    nn.init.normal_(weight, std=0.01)
        nn.init.zeros_(self.bn.weight)  # the block begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        y = self.mean(self.theta(x), self.phi(x), self.g(x))
        out: Tensor = x + self.bn(self.conv(y))
        return out


def non_local_block(config: NonLocalNetConfig) -> NonLocalBlock:
    """Return the block that compares pixels as the config says."""
    width, inner = config.channels, max(config.channels // config.reduction, 1)
    means = {
        "embedded_gaussian": SoftmaxMean(inner**-0.5 if config.use_scale else 1.0),
        "gaussian": SoftmaxMean(1.0),
        "dot_product": DotProductMean(),
        "concatenation": ConcatenationMean(inner),
    }
    plain = config.mode == "gaussian"
    theta, phi = (nn.Identity() if plain else nn.Conv2d(width, inner, kernel_size=1) for _ in range(2))
    return NonLocalBlock(width, inner, theta=theta, phi=phi, mean=means[config.mode])


class NonLocalNet(DenseNetwork):
    """Encoder, convolution, non-local block, convolution, joined with the encoder's map: logits at its stride."""

    keeps_order = True  # attention between pixels magnifies rounding, see `segatlas.inference.fast_form`

    def __init__(self, config: NonLocalNetConfig):
        super().__init__(config)
        in_channels, width = self.encoder.channels[-1], config.channels
        block = non_local_block(config)
        self.before = ConvBNReLU(in_channels, width)
        self.block = block
        self.after = ConvBNReLU(width, width)
        self.fuse = ConvBNReLU(in_channels + width, width)
        self.add_classifier(config, width, self.before, self.after, self.fuse)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        last = features[-1]  # (N, E, h, w)
        x = self.after(self.block(self.before(last)))  # (N, D, h, w)
        out: Tensor = self.fuse(torch.cat([last, x], dim=1))
        return out


ARCHITECTURE = Architecture(
    name="nonlocal_net",
    title="Non-local network",
    paper="https://arxiv.org/abs/1711.07971",
    tasks=("semantic",),
    output=SemanticLogits,
    config=NonLocalNetConfig,
    build=NonLocalNet,
    variants={"nonlocal_r50": {"encoder": "resnet50c"}, "nonlocal_r101": {"encoder": "resnet101c"}},
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
