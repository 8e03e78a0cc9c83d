"""SegformerForSemanticSegmentation as transformers up to 4 names its tensors: the published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf.segformer import HEAD, config_fields
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mit import STAGES, mit_name, require_authors_form
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.models.segformer import SegFormerConfig

_ENCODER = "segformer.encoder"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    encoder = mit_name(file, f"{_ENCODER}.patch_embeddings.{{s}}.proj", f"{_ENCODER}.block.{{s}}.{{i}}.attention")
    return None if encoder is None else config_fields(file, encoder, f"{_ENCODER}.patch_embeddings.0.proj")


def renames(config: SegFormerConfig) -> Renames:
    """See `Importer`."""
    require_authors_form(config, "Hugging Face")
    return [
        *(pair for stage in STAGES for pair in _stage_renames(stage)),
        ("decode_head.linear_c.{i}.proj", "decoder.projections.{i}"),
        *HEAD,
    ]


def _stage_renames(stage: int) -> Renames:
    theirs, block = f"{_ENCODER}.block.{stage - 1}.{{i}}", f"encoder.block{stage}.{{i}}"
    return [
        (f"{_ENCODER}.patch_embeddings.{stage - 1}.proj", f"encoder.patch_embed{stage}.proj"),
        (f"{_ENCODER}.patch_embeddings.{stage - 1}.layer_norm", f"encoder.patch_embed{stage}.norm"),
        (f"{theirs}.layer_norm_1", f"{block}.norm1"),
        (f"{theirs}.layer_norm_2", f"{block}.norm2"),
        (f"{theirs}.mlp.dense1", f"{block}.mlp.fc1"),
        (f"{theirs}.mlp.dense2", f"{block}.mlp.fc2"),
        (f"{theirs}.mlp.dwconv", f"{block}.mlp.dwconv"),
        (f"{theirs}.attention.self.query", f"{block}.attn.q"),
        (f"{theirs}.attention.self.sr", f"{block}.attn.sr"),
        (f"{theirs}.attention.self.layer_norm", f"{block}.attn.norm"),
        (f"{theirs}.attention.output.dense", f"{block}.attn.proj"),
        (f"{_ENCODER}.layer_norm.{stage - 1}", f"encoder.norm{stage}"),
    ]


def stacks(config: SegFormerConfig) -> Sequence[Stack]:
    """See `Importer`: keys and values are two matrices."""
    blocks = {stage: f"{_ENCODER}.block.{stage - 1}.{{i}}.attention.self" for stage in STAGES}
    return [
        Stack(
            theirs={f"{theirs}.key": 1, f"{theirs}.value": 1},
            ours={f"encoder.block{stage}.{{i}}.attn.kv": 1},
        )
        for stage, theirs in blocks.items()
    ]


IMPORTER = Importer(source="hf", architecture="segformer", recognise=recognise, renames=renames, stacks=stacks)
