"""OneFormerForUniversalSegmentation on Swin, as transformers 5 and 4 name its tensors, without what encodes texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segatlas.config.objects import ONEFORMER_OBJECTS, TRANSFORMERS_MASKFORMER
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf import swin
from segatlas.conversion.importers.hf.mask_queries import (
    DECODER,
    ENCODER,
    SWIN,
    TRANSFORMER,
    class_weights,
    encoder_fields,
    masked_renames,
    pixel_fields,
    require_form,
)
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.query_facts import query_facts, things_of
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack, attention_stacks
from segatlas.errors import WeightsError
from segatlas.models.oneformer import TASK_WORDS, WORDS, OneFormerConfig
from segatlas.tasks import TASKS

_QUERIES = f"{TRANSFORMER}.decoder"
_FIRST = f"{_QUERIES}.query_transformer.decoder"
_TASK = "model.task_encoder.task_mlp.layers"
RULE = TRANSFORMERS_MASKFORMER

_FIXED = {"pre_norm": False, "enforce_input_proj": False, "use_task_norm": True, "norm": "GN", "common_stride": 4}
"""Setting -> the one value that ours has."""

_TEMPERATURE = 0.07
"""Of the library's loss, which stands in its files."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(f"{_TASK}.0.0", f"{_FIRST}.norm", f"{DECODER}.level_embed", f"{_QUERIES}.class_embed"):
        return None
    encoder = encoder_fields(file, SWIN, ENCODER)
    if encoder is None:
        raise WeightsError("a OneFormer around another backbone: only Swin is supported")
    require_form(file, _FIXED)
    if (words := file.shape(f"{_TASK}.0.0.weight")[1]) != WORDS:
        raise WeightsError(f"a task of {words} numbers: only {WORDS} are supported")
    classes = file.shape(f"{_QUERIES}.class_embed.weight")[0] - 1
    asked = file.setting("task", "panoptic" if things_of(classes, None) else "instance")
    if asked not in TASK_WORDS:
        raise WeightsError(f"task = {asked!r}: expected {', '.join(TASK_WORDS)}")
    return {
        **encoder,
        **pixel_fields(file, file.setting("num_attention_heads", 8)),
        "asked_for": asked,
        "num_classes": classes,
        "queries": file.shape(f"{TRANSFORMER}.queries_embedder.weight")[0],
        "channels": file.shape(f"{_QUERIES}.class_embed.weight")[1],
        "first_layers": file.count(f"{_FIRST}.layers.{{i}}"),
        "layers": file.count(f"{_QUERIES}.layers.{{i}}"),
        "hidden": file.shape(f"{_QUERIES}.layers.0.ffn.linear1.weight")[0],
        "dropout": OneFormerConfig.dropout if (stated := file.stated("dropout")) is None else stated,
    }


_HEAD: Renames = (
    (f"{_TASK}.0.0", "task_embedding.0"),
    (f"{_TASK}.1.0", "task_embedding.2"),
    (f"{_QUERIES}.query_input_projection", "first_look.project"),
    (f"{_FIRST}.layers.{{i}}.self_attn.out_proj", "first_look.layers.{i}.self_attention.proj"),
    (f"{_FIRST}.layers.{{i}}.multihead_attn.out_proj", "first_look.layers.{i}.cross_attention.proj"),
    (f"{_FIRST}.layers.{{i}}.linear1", "first_look.layers.{i}.feed_forward.fc1"),
    (f"{_FIRST}.layers.{{i}}.linear2", "first_look.layers.{i}.feed_forward.fc2"),
    (f"{_FIRST}.layers.{{i}}", "first_look.layers.{i}"),
    (f"{_FIRST}.norm", "first_look.norm"),
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


def renames(config: OneFormerConfig) -> Renames:
    """See `Importer`. The library's group norms have 32 groups always."""
    return [*masked_renames(), *_HEAD]


def stacks(config: OneFormerConfig) -> Sequence[Stack]:
    """See `Importer`."""
    return [*attention_stacks(_ATTENTION), swin.block_stack(SWIN), swin.block_stack_before_5(ENCODER)]


def constants(config: OneFormerConfig) -> Mapping[str, Tensor]:
    """See `Importer`. Parts of the library's loss stand in all files."""
    return {
        **swin.unused_norm(f"{SWIN}.layernorm", config.encoder),
        **class_weights(config.num_classes),
        "criterion.logit_scale": torch.tensor(-math.log(_TEMPERATURE)),
    }


def card_fields(file: ForeignWeights, config: OneFormerConfig) -> Mapping[str, Any]:
    """See `Importer`. The weights do all tasks; the one asked for is stated, `task`, or taken to be all in one.

    Class maps and segments are the library's. Objects alone are the authors': the library composes them like segments.
    """
    rule = ONEFORMER_OBJECTS if TASKS[config.asked_for].target == "InstancesTarget" else RULE
    return query_facts(file, config.num_classes, rule, task=config.asked_for, class_maps=RULE)


IMPORTER = Importer(
    source="hf",
    architecture="oneformer",
    recognise=recognise,
    renames=renames,
    stacks=stacks,
    dropped=("model.text_mapper", "criterion", *swin.index_before_5(ENCODER)),
    constants=constants,
    card_fields=card_fields,
)
