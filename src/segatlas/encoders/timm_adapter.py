"""Any backbone of timm (pytorch-image-models) that gives feature maps, behind our encoder contract.

Parameter names are timm's below `model.`. Where timm fixes the image size of a network (ViT, Swin), it is asked for
the form that takes any size, and `size_divisibility` says what height and width must be a multiple of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import FeatureListNet
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.encoders.timm_tokens import is_plain
from segatlas.errors import UsageError
from segatlas.ops.capture import larger, may_differ

_UNPADDED = ("convnext",)
"""What the names of networks begin with that fail on images smaller than their last stride: nothing in them pads."""


class TimmEncoder(PyramidEncoder):
    """A timm network made with `features_only=True`.

    Gradient checkpointing works between the maps where timm gives a list of layers (ResNet, ConvNeXt, Swin); otherwise
    timm's own is used, which counts a batch twice in the statistics of batch norm.
    """

    def __init__(self, model: nn.Module, *, size_divisibility: int, smallest: int = 1):
        super().__init__()
        self.model = model
        self.size_divisibility = size_divisibility
        self.smallest = smallest
        info: Any = model.feature_info
        self.channels = tuple(info.channels())
        self.strides = tuple(info.reduction())
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to feature maps, finest first; smaller sides than `smallest` are padded to that."""
        missing = [larger(self.smallest - side, 0) for side in x.shape[2:]]
        if self.smallest > 1 and may_differ(missing, (0, 0)):
            x = F.pad(x, (0, missing[1], 0, missing[0]))
        features = self._staged(x) if isinstance(self.model, FeatureListNet) else self._whole(x)
        return [f.permute(0, 3, 1, 2) for f in features] if self.channels_last else features

    def stages(self) -> list[list[nn.Module]]:
        """Return the layers between the maps; for networks in one piece, its children in order, lists taken apart."""
        if not isinstance(self.model, FeatureListNet):
            body = next(iter(self.model.children())) if len(list(self.model.children())) == 1 else self.model
            parts = (list(c) if isinstance(c, nn.Sequential | nn.ModuleList) else [c] for c in body.children())
            return [[part] for group in parts for part in group]
        stages: list[list[nn.Module]] = [[]]
        for name, layer in self.model.items():
            stages[-1].append(layer)
            if name in self.model.return_layers:
                stages.append([])
        return stages[:-1]

    def _staged(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages():
            x = self.run_stage(nn.Sequential(*stage), x)
            features.append(x)
        return features

    def _whole(self, x: Tensor) -> list[Tensor]:
        if self.training:
            set_checkpointing: Any = getattr(getattr(self.model, "model", self.model), "set_grad_checkpointing", None)
            if set_checkpointing is not None:
                set_checkpointing(self.gradient_checkpointing)
            elif self.gradient_checkpointing:
                raise UsageError(f"timm's {type(self.model).__name__} has no gradient checkpointing; set it to false")
        features: list[Tensor] = self.model(x)
        return features


@dataclass(frozen=True, kw_only=True)
class TimmOptions(PyramidOptions):
    """Options of a timm backbone, besides those of `PyramidOptions`.

    drop_path: stochastic depth of the last block while training, where the network has it; None = timm's default.
    finest_stride: finer maps are not given out (a VGG has one of stride 1); None = all of them.
    at: indices of the maps that are given, of a plain transformer those of its blocks, in place of all that choose by
        stride; None = timm's default.
    """

    drop_path: float | None = None
    finest_stride: int | None = None
    at: tuple[int, ...] | None = None


def build(spec: EncoderSettings, in_channels: int) -> TimmEncoder:
    """Make a timm backbone with random weights.

    Raises:
        UsageError: it gives no feature maps, or not with these settings.
    """
    name, options = spec.name.removeprefix("timm/"), spec.options
    asked = {"output_stride": spec.output_stride, "drop_path_rate": options.drop_path, "out_indices": options.at}
    settings: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    published = timm.get_pretrained_cfg(name)
    fixed_size = published is not None and published.fixed_input_size
    if fixed_size:
        settings["dynamic_img_size"] = True
    try:
        if options.at is None and (options.levels is not None or options.finest_stride is not None):
            settings["out_indices"] = kept_maps(name, options)
        model: Any = timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels, **settings)
    except (RuntimeError, TypeError, AttributeError, AssertionError, NotImplementedError) as error:
        given = ", ".join(f"{key}={value}" for key, value in settings.items())
        message = f"timm backbone '{name}' gives no feature maps with {given or 'its defaults'}: {error}"
        raise UsageError(message) from error
    coarsest = max(model.feature_info.reduction())
    smallest = coarsest if name.startswith(_UNPADDED) else 1
    return TimmEncoder(model, size_divisibility=coarsest if fixed_size else 1, smallest=smallest)


def kept_maps(name: str, options: TimmOptions) -> tuple[int, ...]:
    """Return timm's indices of the maps that the options keep; UsageError where they keep none."""
    with torch.device("meta"):
        info: Any = timm.create_model(name, pretrained=False, features_only=True).feature_info
    finest, coarsest = options.finest_stride or 1, 2**options.levels if options.levels else max(info.reduction())
    kept = [i for i, stride in zip(info.out_indices, info.reduction(), strict=True) if finest <= stride <= coarsest]
    if not kept:
        raise UsageError(
            f"timm backbone '{name}' has maps of strides {info.reduction()}, none of {finest} to {coarsest}"
        )
    return tuple(kept)


class TimmFamily(EncoderFamily):
    """timm's backbones: whether one can have another output stride, building it tells, but no plain transformer can."""

    def stride_problem(self, name: str, stride: Any) -> str:
        """Say what is wrong with an output stride of the encoder `name`; "" where nothing is."""
        if stride is not None and is_plain(name):
            return f"{name} has its own only, expected null"
        return super().stride_problem(name, stride)


FAMILY = TimmFamily(options=TimmOptions, output_strides=None, build=build)
