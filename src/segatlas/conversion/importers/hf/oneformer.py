"""OneFormerForUniversalSegmentation on Swin, as transformers 5 names its tensors, without what encodes texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf import swin
from segatlas.conversion.importers.hf.backbones import BackboneNames
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.errors import WeightsError
from segatlas.models.oneformer import WORDS, OneFormerConfig

_ENCODER, _PIXELS = "pixel_level_module.encoder", "pixel_level_module.decoder"
_QUERIES = "transformer_module.decoder"
_FIRST = f"{_QUERIES}.query_transformer.decoder"
_TASK = "task_encoder.task_mlp.layers"
_BACKBONE = "backbone"
"""What names of a backbone begin with below other heads of the library."""

_FIXED = {"pre_norm": False, "enforce_input_proj": False, "use_task_norm": True, "norm": "GN", "common_stride": 4}
"""Setting -> the one value that ours has."""


def recognise_with(file: ForeignWeights, table: str, root: str) -> Mapping[str, Any] | None:
    """Return the fields of the config, None where the file has another network.

    Args:
        file: the file.
        table: as of `swin_fields`.
        root: what all names of the backbone begin with.

    Raises:
        WeightsError: settings state a form that ours does not have.
    """
    if not file.has(f"{_TASK}.0.0", f"{_FIRST}.norm", f"{_PIXELS}.level_embed", f"{_QUERIES}.class_embed"):
        return None
    encoder = swin.swin_fields(file, root, table)
    if encoder is None:
        raise WeightsError("a OneFormer around another backbone: only Swin is supported")
    for key, ours in _FIXED.items():
        if (stated := file.stated(key)) not in (None, ours):
            raise WeightsError(f"{key} = {stated}: only {ours} is supported")
    if (words := file.shape(f"{_TASK}.0.0.weight")[1]) != WORDS:
        raise WeightsError(f"a task of {words} numbers: only {WORDS} are supported")
    width, heads = file.shape(f"{_QUERIES}.class_embed.weight")[1], file.setting("num_attention_heads", 8)
    levels = file.shape(f"{_PIXELS}.level_embed")[0]
    return {
        **encoder,
        "num_classes": file.shape(f"{_QUERIES}.class_embed.weight")[0] - 1,
        "queries": file.shape("transformer_module.queries_embedder.weight")[0],
        "channels": width,
        "mask_channels": file.shape(f"{_PIXELS}.mask_projection.weight")[0],
        "heads": heads,
        "pixel_layers": file.count(f"{_PIXELS}.encoder.layers.{{i}}"),
        "pixel_hidden": file.shape(f"{_PIXELS}.encoder.layers.0.fc1.weight")[0],
        "points": file.shape(f"{_PIXELS}.encoder.layers.0.self_attn.attention_weights.weight")[0] // (heads * levels),
        "first_layers": file.count(f"{_FIRST}.layers.{{i}}"),
        "layers": file.count(f"{_QUERIES}.layers.{{i}}"),
        "hidden": file.shape(f"{_QUERIES}.layers.0.ffn.linear1.weight")[0],
        "dropout": OneFormerConfig.dropout if (stated := file.stated("dropout")) is None else stated,
    }


HEAD: Renames = (
    (f"{_PIXELS}.level_embed", "pixel_decoder.level_embedding"),
    (f"{_PIXELS}.input_projections.{{i}}.0", "pixel_decoder.project.{i}.conv"),
    (f"{_PIXELS}.input_projections.{{i}}.1", "pixel_decoder.project.{i}.norm"),
    (f"{_PIXELS}.encoder.layers.{{i}}.self_attn", "pixel_decoder.layers.{i}.attention"),
    (f"{_PIXELS}.encoder.layers.{{i}}.self_attn_layer_norm", "pixel_decoder.layers.{i}.norm1"),
    (f"{_PIXELS}.encoder.layers.{{i}}.fc1", "pixel_decoder.layers.{i}.feed_forward.fc1"),
    (f"{_PIXELS}.encoder.layers.{{i}}.fc2", "pixel_decoder.layers.{i}.feed_forward.fc2"),
    (f"{_PIXELS}.encoder.layers.{{i}}.final_layer_norm", "pixel_decoder.layers.{i}.norm2"),
    (f"{_PIXELS}.adapter_1.0", "pixel_decoder.lateral.0.conv"),
    (f"{_PIXELS}.adapter_1.1", "pixel_decoder.lateral.0.norm"),
    (f"{_PIXELS}.layer_1.0", "pixel_decoder.output.0.conv"),
    (f"{_PIXELS}.layer_1.1", "pixel_decoder.output.0.norm"),
    (f"{_PIXELS}.mask_projection", "pixel_decoder.mask_features"),
    (f"{_TASK}.0.0", "task_embedding.0"),
    (f"{_TASK}.1.0", "task_embedding.2"),
    (f"{_QUERIES}.query_input_projection", "first_look.project"),
    (f"{_FIRST}.layers.{{i}}.self_attn.out_proj", "first_look.layers.{i}.self_attention.proj"),
    (f"{_FIRST}.layers.{{i}}.multihead_attn.out_proj", "first_look.layers.{i}.cross_attention.proj"),
    (f"{_FIRST}.layers.{{i}}.linear1", "first_look.layers.{i}.feed_forward.fc1"),
    (f"{_FIRST}.layers.{{i}}.linear2", "first_look.layers.{i}.feed_forward.fc2"),
    (f"{_FIRST}.layers.{{i}}", "first_look.layers.{i}"),
    (f"{_FIRST}.norm", "first_look.norm"),
    ("transformer_module.queries_embedder.weight", "query_positions"),
    ("transformer_module.level_embed.weight", "level_embedding"),
    (f"{_QUERIES}.layers.{{i}}.cross_attn.multihead_attn.out_proj", "layers.{i}.cross_attention.proj"),
    (f"{_QUERIES}.layers.{{i}}.cross_attn.norm", "layers.{i}.norm1"),
    *((f"{_QUERIES}.layers.{{i}}.self_attn.self_attn.{x}_proj", f"layers.{{i}}.self_attention.{x}") for x in "qkv"),
    (f"{_QUERIES}.layers.{{i}}.self_attn.self_attn.out_proj", "layers.{i}.self_attention.proj"),
    (f"{_QUERIES}.layers.{{i}}.self_attn.norm", "layers.{i}.norm2"),
    (f"{_QUERIES}.layers.{{i}}.ffn.linear1", "layers.{i}.feed_forward.fc1"),
    (f"{_QUERIES}.layers.{{i}}.ffn.linear2", "layers.{i}.feed_forward.fc2"),
    (f"{_QUERIES}.layers.{{i}}.ffn.norm", "layers.{i}.norm3"),
    (f"{_QUERIES}.decoder_norm", "norm"),
    (f"{_QUERIES}.class_embed", "classifier"),
    *((f"{_QUERIES}.mask_embed.layers.{index}.0", f"mask_embedding.{2 * index}") for index in range(3)),
)

_ATTENTION = {
    f"{_FIRST}.layers.{{i}}.self_attn": "first_look.layers.{i}.self_attention",
    f"{_FIRST}.layers.{{i}}.multihead_attn": "first_look.layers.{i}.cross_attention",
    f"{_QUERIES}.layers.{{i}}.cross_attn.multihead_attn": "layers.{i}.cross_attention",
}
"""Their attention with one matrix of queries, keys and values -> ours, which has three."""


def importer(backbone: BackboneNames, table: str, root: str, dropped: tuple[str, ...] = ()) -> Importer:
    """Return the importer for the names of one version.

    Args:
        backbone: the names of Swin in it.
        table: as of `recognise_with`.
        root: likewise.
        dropped: further beginnings of their names that are left out.
    """

    def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
        return recognise_with(file, table, root)

    def renames(config: OneFormerConfig) -> Renames:
        if config.encoder.name not in backbone.encoders or config.padding != OneFormerConfig.padding:
            raise WeightsError(f"Hugging Face has no OneFormer on '{config.encoder.name}', or with such padding")
        return [*((below(theirs), ours) for theirs, ours in backbone.renames(config.encoder)), *HEAD]

    def stacks(config: OneFormerConfig) -> Sequence[Stack]:
        of_encoder = [
            replace(stack, theirs={below(name): rows for name, rows in stack.theirs.items()})
            for stack in backbone.stacks(config.encoder)
        ]
        of_queries = [
            Stack(theirs={f"{theirs}.in_proj_{kind}": 1}, ours={f"{ours}.{x}.{kind}": 1 for x in "qkv"})
            for theirs, ours in _ATTENTION.items()
            for kind in ("weight", "bias")
        ]
        return [*of_encoder, *of_queries]

    def constants(config: OneFormerConfig) -> Mapping[str, Tensor]:
        return {below(name): tensor for name, tensor in backbone.constants(config.encoder).items()}

    return Importer(
        source="hf",
        architecture="oneformer",
        recognise=recognise,
        renames=renames,
        stacks=stacks,
        dropped=("text_mapper", "criterion", *map(below, dropped)),
        constants=constants,
    )


def below(name: str) -> str:
    """Return a name of a backbone as it is inside a OneFormer."""
    return _ENCODER + name.removeprefix(_BACKBONE)


IMPORTER = importer(
    swin.BACKBONE,
    "attention.relative_position_bias.relative_position_bias_table",
    f"{_ENCODER}.swin",
)
