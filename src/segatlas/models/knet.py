"""K-Net: a classifier whose kernels change with what the image shows.

Paper: Zhang et al. 2021, "K-Net: Towards Unified Image Segmentation", https://arxiv.org/abs/2106.14855.

Idea: the rows of a 1x1 classifier are kernels, one a class. A finished network, the host, gives a map and a first class
map. Each stage gathers the features of the pixels that a kernel claims, lets them change the kernel through two gates,
lets kernels attend to each other, and applies them to the map again.

Letters: N batch, C image channels, K classes, H W image, h w the host's map before its classifier, D its channels,
P channels of a part of a kernel, M attention heads.

How ours differs: nothing in the numbers, which are MMSegmentation's: gathered features are sums over pixels, weighted
by probabilities over the classes. Stages magnify rounding, so the order of operations is the published one, too. Each
stage looks at the map through a 1x1 convolution of its own with nothing after it. The fast form, where it gives the
same numbers, applies that to gathered features and kernels instead, K vectors an image, and never to the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.linear import TokenLinear
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseConfig, DenseNetwork
from segatlas.models.host import HostSpec, aux_names_of
from segatlas.models.hosted import HostedNetwork
from segatlas.models.needs import Needs
from segatlas.ops.full_precision import in_full_precision
from segatlas.structures import Inputs, SemanticLogits


@dataclass(frozen=True, kw_only=True)
class KNetConfig:
    """Settings of a K-Net.

    num_classes: classes, K, the host's too.
    in_channels: channels of the image, C, the host's too.
    host: the network that gives map and first logits, with a decoder and a 1x1 classifier: its name and its own fields.
    stages: times that kernels are changed.
    part_channels: channels of the parts, P, in which a kernel is changed, by the same weights each.
    heads: attention heads, M.
    feed_forward_channels: width of the feed-forward part.
    kernel_layers: fully connected layers, with norms, between a kernel as it is kept and as it is applied; one more,
        without, follows them.
    """

    num_classes: int
    in_channels: int = 3
    host: HostSpec | None = None
    stages: int = 3
    part_channels: int = 256
    heads: int = 8
    feed_forward_channels: int = 2048
    kernel_layers: int = 1

    def __post_init__(self) -> None:
        if self.host is not None and not isinstance(self.host.config, DenseConfig):
            raise UsageError(NOT_DENSE.format(self.host.name))


NOT_DENSE = (
    "host: {} has no map before a 1x1 classifier that K-Net could go on from; fcn, pspnet, deeplabv3 and upernet have, "
    "for example"
)


class KernelUpdate(nn.Module):
    """Kernels changed by the features that they gathered: a gate for either (equations 4 and 5 of the paper)."""

    def __init__(self, channels: int):
        super().__init__()
        self.features = TokenLinear(channels, 2 * channels)
        self.kernels = TokenLinear(channels, 2 * channels)
        self.feature_gate = TokenLinear(channels, channels)
        self.kernel_gate = TokenLinear(channels, channels)
        self.feature_gate_norm = nn.LayerNorm(channels)
        self.kernel_gate_norm = nn.LayerNorm(channels)
        self.feature_norm = nn.LayerNorm(channels)
        self.kernel_norm = nn.LayerNorm(channels)
        self.out = TokenLinear(channels, channels)
        self.out_norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor, kernels: Tensor) -> Tensor:
        """Map gathered features and kernels (..., P) to kernels (..., P)."""
        feature_in, feature_out = self.features(features).chunk(2, dim=-1)
        kernel_in, kernel_out = self.kernels(kernels).chunk(2, dim=-1)
        both = feature_in * kernel_in
        feature_gate = self.feature_gate_norm(self.feature_gate(both)).sigmoid()
        kernel_gate = self.kernel_gate_norm(self.kernel_gate(both)).sigmoid()
        mixed = feature_gate * self.feature_norm(feature_out) + kernel_gate * self.kernel_norm(kernel_out)
        return F.relu(self.out_norm(self.out(mixed)))


class KernelAttention(nn.Module):
    """Self-attention between the kernels of an image."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = TokenLinear(channels, 3 * channels)
        self.proj = TokenLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map kernels (N, K, D) to the same shape."""
        qkv = self.qkv(x).unflatten(2, (3, self.heads, x.shape[2] // self.heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (N, M, K, D / M) each
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Classifier(NamedTuple):
    """A map (N, D, h, w) and what is to be applied to it, for each image its own: (N, K, D), and a bias (N, K, 1)."""

    x: Tensor
    matrix: Tensor
    bias: Tensor | None = None

    def logits(self) -> Tensor:
        """Return the logits (N, K, h, w)."""
        logits = self.matrix @ self.x.flatten(2)
        return (logits if self.bias is None else logits + self.bias).unflatten(2, self.x.shape[-2:])

    def exact_logits(self) -> Tensor:
        """Return them in float32 or better whatever the autocast around, as the last logits of all networks are."""
        dtype = torch.promote_types(self.x.dtype, torch.float32)
        with in_full_precision(self.x):
            bias = None if self.bias is None else self.bias.to(dtype)
            return Classifier(self.x.to(dtype), self.matrix.to(dtype), bias).logits()


class Stage(nn.Module):
    """One change of the kernels: gather, update, attend, feed forward; and what they are when applied."""

    def __init__(self, channels: int, config: KNetConfig):
        super().__init__()
        self.parts = channels // config.part_channels
        self.transform = nn.Conv2d(channels, channels, kernel_size=1)
        self.update = KernelUpdate(config.part_channels)
        self.attention = KernelAttention(channels, config.heads)
        self.attention_norm = nn.LayerNorm(channels)
        hidden = config.feed_forward_channels
        self.feed_forward = nn.Sequential(TokenLinear(channels, hidden), nn.ReLU(), TokenLinear(hidden, channels))
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.mask_layers = nn.Sequential()
        for _ in range(config.kernel_layers):
            self.mask_layers.extend([TokenLinear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()])
        self.mask = TokenLinear(channels, channels)

    def forward(self, x: Tensor, kernels: Tensor, logits: Tensor) -> tuple[Tensor, Classifier]:
        """Map the map (N, D, h, w), kernels (N, K, D) and the last logits (N, K, h, w) to kernels and a classifier."""
        x = self.transform(x)
        probabilities = logits.softmax(dim=1).flatten(2)
        features = probabilities.to(x.dtype) @ x.flatten(2).transpose(1, 2)
        kernels = self.changed(kernels, features)
        return kernels, Classifier(x, self.mask(self.mask_layers(kernels)))

    def changed(self, kernels: Tensor, features: Tensor) -> Tensor:
        """Map kernels and what they gathered, (N, K, D) each, to kernels (N, K, D)."""
        kernels = self.update(self.in_parts(features), self.in_parts(kernels)).flatten(2)
        kernels = self.attention_norm(kernels + self.attention(kernels))
        out: Tensor = self.feed_forward_norm(kernels + self.feed_forward(kernels))
        return out

    def inference_form(self) -> FoldedStage:
        """Return the same stage with less work, for the fast form."""
        return FoldedStage(self)

    def in_parts(self, x: Tensor) -> Tensor:
        """Cut (N, K, D) into (N, K, D / P, P)."""
        return x.unflatten(2, (self.parts, x.shape[2] // self.parts))


class FoldedStage(nn.Module):
    """A stage whose 1x1 convolution goes into the gathered features and into the kernels, K vectors an image each."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor, kernels: Tensor, logits: Tensor) -> tuple[Tensor, Classifier]:
        """Map what `Stage` takes to what it gives."""
        stage = self.stage
        matrix, bias = stage.transform.weight.flatten(1), stage.transform.get_parameter("bias")
        probabilities = logits.softmax(dim=1).flatten(2)
        gathered = probabilities.to(x.dtype) @ x.flatten(2).transpose(1, 2)
        features = F.linear(gathered, matrix) + probabilities.sum(dim=2, keepdim=True) * bias
        kernels = stage.changed(kernels, features)
        applied = stage.mask(stage.mask_layers(kernels))
        return kernels, Classifier(x, applied @ matrix, applied @ bias[:, None])


class KNet(HostedNetwork):
    """A host's map, and its classifier changed in stages: logits at the stride of that map."""

    host: DenseNetwork

    def __init__(self, config: KNetConfig, host: nn.Module):
        super().__init__(host)
        require_at_least(config, stages=1, part_channels=1, heads=1, feed_forward_channels=1, kernel_layers=0)
        if not isinstance(host, DenseNetwork) or upsamples_inside(host) or not is_pointwise(host.classifier):
            raise UsageError(NOT_DENSE.format(config.host))
        channels = host.classifier.get_parameter("weight").shape[1]
        for name in ("part_channels", "heads"):
            if channels % getattr(config, name):
                raise UsageError(f"{name}: got {getattr(config, name)}, expected a divisor of the host's {channels}")
        self.stages = nn.ModuleList(Stage(channels, config) for _ in range(config.stages))
        start(self.stages)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of the auxiliary logits that training gives: "host", "stage1" and on, then the host's."""
        return ("host", *(f"stage{index}" for index in range(1, len(self.stages))), *aux_names_of(self.host))

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to the last stage's logits (N, K, h, w), in training to all logits."""
        out, _, x = self.host.forward_with_maps(inputs)
        kernels = self.host.classifier.get_parameter("weight").flatten(1).repeat(x.shape[0], 1, 1)
        logits = [out.logits]
        for stage in self.stages:
            kernels, classifier = stage(x, kernels, logits[-1])
            is_last = len(logits) == len(self.stages)
            logits.append(classifier.exact_logits() if is_last else classifier.logits())
        aux = {**dict(zip(self.aux_names, logits[:-1], strict=False)), **out.aux} if self.training else {}
        return out._replace(logits=logits[-1], aux=aux)


def is_pointwise(classifier: nn.Module) -> bool:
    """Tell whether a classifier is one 1x1 convolution."""
    return isinstance(classifier, nn.Conv2d) and classifier.kernel_size == (1, 1)


def upsamples_inside(host: DenseNetwork) -> bool:
    """Tell whether a host's logits are of another size than the map before its classifier."""
    return getattr(host, "inner", None) is not None


def start(stages: nn.Module) -> None:
    """Set the authors' starting weights: every matrix uniform by the number of its rows and columns, every bias 0."""
    for name, parameter in stages.named_parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


ARCHITECTURE = Architecture(
    name="knet",
    title="K-Net",
    paper="https://arxiv.org/abs/2106.14855",
    tasks=("semantic",),
    output=SemanticLogits,
    config=KNetConfig,
    build=KNet,
    variants={
        f"knet_{host}": {"host": {"name": host}}
        for host in ("fcn_r50", "pspnet_r50", "deeplabv3_r50", "upernet_r50", "upernet_swin_t", "upernet_swin_l")
    },
    tiny={
        "host": {"name": "fcn", "encoder": "resnet18_w8", "channels": 8, "aux": True},
        "stages": 2,
        "part_channels": 4,
        "heads": 2,
        "feed_forward_channels": 16,
    },
    needs=Needs(host=("SemanticLogits",), example_host="fcn"),
)
