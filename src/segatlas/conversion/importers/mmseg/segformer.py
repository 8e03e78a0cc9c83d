"""SegFormer of MMSegmentation: another decoder than the authors', and other names in the encoder.

Projections have batch norm and ReLU, the fuse convolution sees the maps finest first, and every norm of the encoder has
epsilon 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.mit import STAGES, mit_name, require_published, require_upsampling
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, image_channels
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.encoders.mit import SIZES
from segatlas.errors import WeightsError
from segatlas.models.segformer import LEVELS, SegFormerConfig

_HEAD = {"conv_seg", "convs", "fusion_conv"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    encoder = mit_name(file, "backbone.layers.{s}.0.projection", "backbone.layers.{s}.1.{i}.attn")
    if parts != _HEAD or encoder is None or not file.has("backbone.layers.0.1.0.ffn.layers.4"):
        return None
    require_published(file, "model.backbone.num_heads", "model.backbone.sr_ratios", "model.backbone.mlp_ratio")
    if file.stated("model.decode_head.align_corners"):
        raise WeightsError("model.decode_head.align_corners = True: a SegFormer is raised without")
    classes, width = file.shape("decode_head.conv_seg.weight")[:2]
    eps = (file.stated("model.backbone.norm_cfg") or {}).get("eps", 1e-6)
    return {
        "num_classes": classes,
        "in_channels": image_channels(file),
        "encoder": encoder,
        "encoder_options": {"norm_eps": eps, "embedding_norm_eps": eps},
        "decoder_channels": width,
        "projection_norm": True,
    }


def renames(config: SegFormerConfig) -> Renames:
    """See `Importer`."""
    return [
        *(pair for stage in STAGES for pair in _stage_renames(stage)),
        ("decode_head.convs.{i}", "decoder.projections.{i}"),
        ("decode_head.fusion_conv", "decoder.fuse"),
        *CLASSIFIER,
    ]


def _stage_renames(stage: int) -> Renames:
    theirs, block = f"backbone.layers.{stage - 1}", f"encoder.block{stage}.{{i}}"
    return [
        (f"{theirs}.0.projection", f"encoder.patch_embed{stage}.proj"),
        (f"{theirs}.0.norm", f"encoder.patch_embed{stage}.norm"),
        (f"{theirs}.1.{{i}}.attn.attn.out_proj", f"{block}.attn.proj"),
        (f"{theirs}.1.{{i}}.attn", f"{block}.attn"),
        (f"{theirs}.1.{{i}}.ffn.layers.0", f"{block}.mlp.fc1"),
        (f"{theirs}.1.{{i}}.ffn.layers.1", f"{block}.mlp.dwconv.dwconv"),
        (f"{theirs}.1.{{i}}.ffn.layers.4", f"{block}.mlp.fc2"),
        (f"{theirs}.1.{{i}}", block),
        (f"{theirs}.2", f"encoder.norm{stage}"),
    ]


def stacks(config: SegFormerConfig) -> Sequence[Stack]:
    """See `Importer`: queries, keys and values are one matrix."""
    return [
        Stack(
            theirs={f"backbone.layers.{stage - 1}.1.{{i}}.attn.attn.in_proj_{kind}": 1},
            ours={f"encoder.block{stage}.{{i}}.attn.q.{kind}": 1, f"encoder.block{stage}.{{i}}.attn.kv.{kind}": 2},
        )
        for stage in STAGES
        for kind in ("weight", "bias")
    ]


def changes(config: SegFormerConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`: linear layers are 1x1 convolutions, and the fuse convolution sees its maps in another order."""
    require_upsampling(config, "MMSegmentation", align_corners=False)
    if config.encoder.name not in SIZES:
        raise WeightsError(f"MMSegmentation has no SegFormer on '{config.encoder.name}'")
    depths = SIZES[config.encoder.name].depths
    linear = {
        f"encoder.block{stage}.{index}.mlp.{layer}.weight": (squeezed, as_convolution)
        for stage, depth in zip(STAGES, depths, strict=True)
        for index in range(depth)
        for layer in ("fc1", "fc2")
    }
    return {**linear, "decoder.fuse.conv.weight": (other_order, other_order)}


def squeezed(kernel: Tensor) -> Tensor:
    """Return the matrix (D, E) of a 1x1 kernel (D, E, 1, 1)."""
    return kernel.flatten(1)


def as_convolution(matrix: Tensor) -> Tensor:
    """Return the 1x1 kernel (D, E, 1, 1) of a matrix (D, E)."""
    return matrix[:, :, None, None]


def other_order(kernel: Tensor) -> Tensor:
    """Return the kernel (D, 4D, 1, 1) for the four maps in reverse order."""
    return kernel.unflatten(1, (LEVELS, -1)).flip(1).flatten(1, 2)


IMPORTER = Importer(
    source="mmseg", architecture="segformer", recognise=recognise, renames=renames, changes=changes, stacks=stacks
)
