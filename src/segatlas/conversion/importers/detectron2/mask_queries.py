"""What the authors' Mask2Former and MaskFormer share in checkpoints of Detectron2: encoders, and parts of decoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from segatlas.build.swin_weights import side_of
from segatlas.checkpoint.preprocessing import default_preprocessing
from segatlas.config.objects import ObjectRule
from segatlas.conversion.importers.detectron2.stages import body_renames
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.query_facts import ZOO_LICENCE, query_facts, with_score
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import attention_stacks
from segatlas.conversion.importers.stages import resnet_name
from segatlas.encoders.spec import EncoderSpec
from segatlas.encoders.swin import SIZES, STRIDES, SwinOptions, distances
from segatlas.errors import WeightsError

BODY, HEAD = "backbone", "sem_seg_head"
PIXEL, PREDICTOR = f"{HEAD}.pixel_decoder", f"{HEAD}.predictor"
_MERGED = range(1, len(STRIDES))


def encoder_fields(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder, a ResNet or a Swin Transformer; None where it is another."""
    name = resnet_name(file, f"{BODY}.res{{layer}}", first=2)
    if name is not None:
        options = {"stride_first": True} if file.setting("MODEL.RESNETS.STRIDE_IN_1X1", False) else {}
        channels = file.shape(f"{BODY}.stem.conv1.weight")[1]
        return {"encoder": name, "encoder_options": options, "in_channels": channels}
    projection, table = f"{BODY}.patch_embed.proj.weight", "blocks.0.attn.relative_position_bias_table"
    if not file.has(projection, f"{BODY}.layers.0.{table}"):
        return None
    width, channels = file.shape(projection)[:2]
    depths = tuple(file.count(f"{BODY}.layers.{stage}.blocks.{{i}}") for stage in range(len(STRIDES)))
    heads = tuple(file.shape(f"{BODY}.layers.{stage}.{table}")[1] for stage in range(len(STRIDES)))
    for name, size in SIZES.items():
        if (size.width, size.depths, size.heads) == (width, depths, heads):
            window = side_of(file.shape(f"{BODY}.layers.0.{table}")[0], name=table)
            stated = {"window": window, "drop_path": file.stated("MODEL.SWIN.DROP_PATH_RATE")}
            default = SwinOptions()
            options = {key: value for key, value in stated.items() if value not in (None, getattr(default, key))}
            return {"encoder": name, "encoder_options": options, "in_channels": channels}
    raise WeightsError(f"a Swin Transformer of width {width} with {list(depths)} blocks is none of the published")


def head_fields(file: ForeignWeights) -> dict[str, Any]:
    """Return the config fields that both networks have, besides the encoder's."""
    classes, width = file.shape(f"{PREDICTOR}.class_embed.weight")
    queries = file.shape(f"{PREDICTOR}.query_embed.weight")[0]
    divisor = file.setting("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", 32)
    return {
        "num_classes": classes - 1,
        "queries": queries,
        "channels": width,
        "mask_channels": file.shape(f"{PIXEL}.mask_features.weight")[0],
        "heads": file.setting("MODEL.MASK_FORMER.NHEADS", 8),
        "padding": divisor if divisor > 0 else 1,
        "bgr": file.setting("INPUT.FORMAT", "RGB") == "BGR",
    }


def facts_of(file: ForeignWeights, config: Any, rule: ObjectRule) -> dict[str, Any]:
    """Return the further fields of a card. Without a configuration, images are those of the authors' own.

    A pickle of arrays is a file of their zoos, whose licence is known; trainings write torch's own files. Their
    networks make objects, segments and class maps, whichever are on; of several the first of these is taken.
    """
    test = file.stated("MODEL.MASK_FORMER.TEST")
    test = test if isinstance(test, Mapping) else {}
    on = (task for task in ("panoptic", "instance", "semantic") if test.get(f"{task.upper()}_ON"))
    stated = with_score(rule, test, ("OBJECT_MASK_THRESHOLD", "OVERLAP_THRESHOLD"))
    found = query_facts(file, config.num_classes, stated, task=next(on, None))
    if file.stated("MODEL.PIXEL_MEAN") is None:
        resize = f"fit:{file.stated('INPUT.MIN_SIZE_TEST') or 800}x{file.stated('INPUT.MAX_SIZE_TEST') or 1333}"
        found["preprocessing"] = replace(default_preprocessing(config.in_channels), resize=resize)
    return found | {"licence": ZOO_LICENCE} if file.file.endswith(".pkl") else found


def encoder_renames(encoder: str) -> Renames:
    """Return the table of an encoder; of a Swin Transformer the names are the authors'.

    Raises:
        WeightsError: there is no such encoder.
    """
    if encoder in SIZES:
        merging = [(f"{BODY}.layers.{stage - 1}.downsample", f"encoder.layers.{stage}.downsample") for stage in _MERGED]
        return [*merging, (BODY, "encoder")]
    if not encoder.startswith("resnet") or encoder.endswith(("c", "d")):
        raise WeightsError(f"the authors' networks have no encoder '{encoder}'")
    return body_renames(BODY)


def encoder_constants(encoder: EncoderSpec) -> Mapping[str, Tensor]:
    """Return what files hold of a Swin Transformer besides: which row of its table each pair of tokens has."""
    if encoder.name not in SIZES:
        return {}
    index = distances(encoder.options.window, torch.device("cpu"))
    return {
        f"{BODY}.layers.{stage}.blocks.{block}.attn.relative_position_index": index
        for stage, depth in enumerate(SIZES[encoder.name].depths)
        for block in range(depth)
    }


def conv_renames(theirs: str, ours: str) -> Renames:
    """Return the table of a convolution whose norm lies below it."""
    return [(f"{theirs}.norm", f"{ours}.norm"), (theirs, f"{ours}.conv")]


EMBEDDINGS: Renames = (
    (f"{PREDICTOR}.query_embed.weight", "query_positions"),
    (f"{PREDICTOR}.class_embed", "classifier"),
    *((f"{PREDICTOR}.mask_embed.layers.{index}", f"mask_embedding.{2 * index}") for index in range(3)),
)
"""What is called alike in both."""


def query_importer(
    architecture: str,
    rule: ObjectRule,
    *,
    recognise: Callable[[ForeignWeights], Mapping[str, Any] | None],
    renames: Callable[[Any], Renames],
    attention: Mapping[str, str],
) -> Importer:
    """Return the importer of an architecture.

    Args:
        architecture: our name of it.
        rule: how the authors make objects and segments.
        recognise: see `Importer`.
        renames: see `Importer`.
        attention: beginning of the names of an attention's tensors there -> here.
    """
    return Importer(
        source="detectron2",
        architecture=architecture,
        recognise=recognise,
        renames=renames,
        stacks=lambda config: attention_stacks(attention),
        dropped=("criterion", "pixel_mean", "pixel_std"),
        constants=lambda config: encoder_constants(config.encoder),
        card_fields=lambda file, config: facts_of(file, config, rule),
    )
