"""MMSegmentation's `PCPVT` and `SVT` (Twins): names of its own, one matrix for queries, keys, values of whole maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.encoders.spec import EncoderSpec
from segatlas.encoders.twins import PATCH_SIZES, REDUCTIONS, SIZES, STRIDES, TwinsOptions, TwinsSize
from segatlas.errors import WeightsError

_STAGES = range(len(STRIDES))


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`. The strides are its own."""
    embeddings = [f"backbone.patch_embeds.{stage}.projection.weight" for stage in _STAGES]
    if not file.has("backbone.position_encodings.0.proj", *embeddings):
        return None
    widths = tuple(file.shape(name)[0] for name in embeddings)
    depths = tuple(file.count(f"backbone.layers.{stage}.{{i}}") for stage in _STAGES)
    windows = file.has("backbone.layers.0.0.attn.qkv")
    sizes = {(size.widths, size.depths, size.windows): name for name, size in SIZES.items()}
    name = sizes.get((widths, depths, windows))  # type: ignore[arg-type]
    if name is None:
        kind = "SVT" if windows else "PCPVT"
        told = f"widths {list(widths)} with {list(depths)} blocks"
        raise WeightsError(f"a Twins-{kind} of {told} is none of the published")
    _require_published(file, name, SIZES[name])
    options = {
        "window": _window(file),
        "drop_path": file.stated("model.backbone.drop_path_rate"),
        "stage_norms": file.has("backbone.norm_list"),
        "norm_eps": (file.stated("model.backbone.norm_cfg") or {}).get("eps"),
    }
    default = {**vars(TwinsOptions()), "stage_norms": windows}
    given = {key: value for key, value in options.items() if value not in (None, default[key])}
    return {"encoder": name, "output_stride": None, "encoder_options": given}


def _require_published(file: ForeignWeights, name: str, size: TwinsSize) -> None:
    """Raise WeightsError where weights or settings tell of another form than the published one of that size."""
    hidden = tuple(file.shape(f"backbone.layers.{stage}.0.ffn.layers.0.0.weight")[0] for stage in _STAGES)
    ratios = tuple(one / width for one, width in zip(hidden, size.widths, strict=True))
    kernels = tuple(file.shape(f"backbone.patch_embeds.{stage}.projection.weight")[2] for stage in _STAGES)
    found = {
        "num_heads": (file.stated("model.backbone.num_heads"), size.heads),
        "mlp_ratios": (ratios, size.mlp_ratios),
        "patch_sizes": (kernels, PATCH_SIZES),
        "strides": (file.stated("model.backbone.strides"), PATCH_SIZES),
        "sr_ratios": (file.stated("model.backbone.sr_ratios"), REDUCTIONS),
    }
    for key, (told, ours) in found.items():
        if told is not None and tuple(told) != ours:
            raise WeightsError(f"{name} with {key} {list(told)}: only {list(ours)} is supported")
    if not any(name.endswith(("attn.qkv.bias", "attn.in_proj_bias")) for name in file.tensors):
        raise WeightsError(f"{name} without biases of queries, keys and values (qkv_bias=False): only those with")


def _window(file: ForeignWeights) -> int | None:
    """Return the side of the windows as stated, None where it is not (the weights do not tell)."""
    stated = file.stated("model.backbone.windiow_sizes")  # spelled so
    if stated is None:
        return None
    if len(set(stated)) > 1:
        raise WeightsError(f"model.backbone.windiow_sizes = {stated}: only windows of one size are supported")
    return int(stated[0])


def renames(encoder: str) -> Renames:
    """See `Backbone`."""
    block, ours = "backbone.layers.{s}.{i}", "encoder.blocks.{s}.{i}"
    return [
        ("backbone.patch_embeds.{s}.projection", "encoder.patch_embeds.{s}.proj"),
        ("backbone.patch_embeds.{s}.norm", "encoder.patch_embeds.{s}.norm"),
        *_projections(SIZES[encoder]),
        (f"{block}.ffn.layers.0.0", f"{ours}.mlp.fc1"),
        (f"{block}.ffn.layers.1", f"{ours}.mlp.fc2"),
        (block, ours),
        ("backbone.position_encodings.{s}.proj", "encoder.pos_block.{s}.proj.0"),
        ("backbone.norm_list.{s}", "encoder.stage_norms.{s}"),
    ]


def _projections(size: TwinsSize) -> Renames:
    """Return the names of the matrix behind attention, which has one more part where it is not of windows."""
    return [
        (f"backbone.layers.{stage}.{number}.attn.attn.out_proj", f"encoder.blocks.{stage}.{number}.attn.proj")
        for stage, depth in enumerate(size.depths)
        for number in range(depth)
        if not (size.windows and number % 2 == 0)
    ]


def stacks(encoder: EncoderSpec) -> Sequence[Stack]:
    """See `Backbone`: queries, keys and values of attention to the whole map are one matrix."""
    block, ours = "backbone.layers.{s}.{i}.attn.attn.in_proj", "encoder.blocks.{s}.{i}.attn"
    return [
        Stack(theirs={f"{block}_{kind}": 1}, ours={f"{ours}.q.{kind}": 1, f"{ours}.kv.{kind}": 2})
        for kind in ("weight", "bias")
    ]


BACKBONE = Backbone(module="segatlas.encoders.twins", recognise=recognise, renames=renames, stacks=stacks)
