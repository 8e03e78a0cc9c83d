"""SegformerForSemanticSegmentation as transformers 5 names its tensors. Every norm of the encoder has epsilon 1e-5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mit import STAGES, mit_name, require_authors_form, require_published
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.models.segformer import SegFormerConfig

EPS = 1e-5
"""Of all norms: `layer_norm_eps` of the config.json is not used by the library."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    stage = "segformer.stages.{s}"
    encoder = mit_name(file, f"{stage}.patch_embeddings.proj", f"{stage}.blocks.{{i}}.attention")
    return None if encoder is None else config_fields(file, encoder, "segformer.stages.0.patch_embeddings.proj")


def config_fields(file: ForeignWeights, encoder: str, first: str) -> Mapping[str, Any] | None:
    """Return the fields of the config; `first` is their name of the first convolution."""
    if not file.has("decode_head.linear_fuse", "decode_head.classifier"):
        return None
    require_published(file, "num_attention_heads", "sr_ratios", "mlp_ratios")
    classes, width = file.shape("decode_head.classifier.weight")[:2]
    return {
        "num_classes": classes,
        "in_channels": file.shape(f"{first}.weight")[1],
        "encoder": encoder,
        "encoder_options": {"norm_eps": EPS, "embedding_norm_eps": EPS},
        "decoder_channels": width,
    }


def renames(config: SegFormerConfig) -> Renames:
    """See `Importer`."""
    require_authors_form(config, "Hugging Face")
    return [
        *(pair for stage in STAGES for pair in _stage_renames(stage)),
        ("decode_head.linear_projections.{i}.proj", "decoder.projections.{i}"),
        *HEAD,
    ]


HEAD: Renames = (
    ("decode_head.linear_fuse", "decoder.fuse.conv"),
    ("decode_head.batch_norm", "decoder.fuse.bn"),
    ("decode_head.classifier", "classifier"),
)


def _stage_renames(stage: int) -> Renames:
    theirs, block = f"segformer.stages.{stage - 1}", f"encoder.block{stage}.{{i}}"
    attention = f"{theirs}.blocks.{{i}}.attention"
    return [
        (f"{theirs}.patch_embeddings.proj", f"encoder.patch_embed{stage}.proj"),
        (f"{theirs}.patch_embeddings.layer_norm", f"encoder.patch_embed{stage}.norm"),
        (f"{theirs}.blocks.{{i}}.layernorm_before", f"{block}.norm1"),
        (f"{theirs}.blocks.{{i}}.layernorm_after", f"{block}.norm2"),
        (f"{theirs}.blocks.{{i}}.mlp", f"{block}.mlp"),
        (f"{attention}.q_proj", f"{block}.attn.q"),
        (f"{attention}.o_proj", f"{block}.attn.proj"),
        (f"{attention}.sequence_reduction.sequence_reduction", f"{block}.attn.sr"),
        (f"{attention}.sequence_reduction.layer_norm", f"{block}.attn.norm"),
        (f"{theirs}.layer_norm", f"encoder.norm{stage}"),
    ]


def stacks(config: SegFormerConfig) -> Sequence[Stack]:
    """See `Importer`: keys and values are two matrices."""
    blocks = {stage: f"segformer.stages.{stage - 1}.blocks.{{i}}.attention" for stage in STAGES}
    return [
        Stack(
            theirs={f"{theirs}.k_proj": 1, f"{theirs}.v_proj": 1},
            ours={f"encoder.block{stage}.{{i}}.attn.kv": 1},
        )
        for stage, theirs in blocks.items()
    ]


IMPORTER = Importer(source="hf", architecture="segformer", recognise=recognise, renames=renames, stacks=stacks)
