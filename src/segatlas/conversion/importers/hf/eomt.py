"""EomtForUniversalSegmentation: EoMT on DINOv2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segatlas.config.objects import TRANSFORMERS_EOMT, TRANSFORMERS_EOMT_CLASS_MAPS
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf.mask_queries import class_weights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.query_facts import query_facts, square_windows, things_of
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.conversion.importers.vit import dino_options, image_size
from segatlas.encoders.vit import FORMS
from segatlas.errors import WeightsError
from segatlas.models.eomt import EoMTConfig, doublings

LAYER = "layers.{i}"
_PATCHES = "embeddings.patch_embeddings.projection"
_POSITIONS = "embeddings.position_embeddings.weight"
FRACTIONS = "attn_mask_probs"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(_PATCHES, _POSITIONS, "query", "upscale_block", "mask_head", "class_predictor"):
        return None
    width, channels, patch, _ = file.shape(f"{_PATCHES}.weight")
    gated = file.has("layers.0.mlp.gate_proj")
    first = "layers.0.mlp.gate_proj" if gated else "layers.0.mlp.fc1"
    cells = file.shape(_POSITIONS)[0]
    told = {
        "depth": file.count(LAYER),
        "patch_size": patch,
        "image_size": image_size(cells, patch, file.stated("image_size"), tensor=_POSITIONS),
        "class_position": False,
        "layer_scale": file.stated("layerscale_value") or 1e-5,
        **options_told(file),
    }
    name, options = dino_options(
        file,
        "dinov2",
        width=width,
        hidden=file.shape(f"{first}.weight")[0],
        gated=gated,
        heads="num_attention_heads",
        told=told,
    )
    return {"in_channels": channels, "encoder": name, "encoder_options": options, **head_fields(file, patch)}


def options_told(file: ForeignWeights) -> dict[str, Any]:
    """Return what settings and tokens tell of the encoder's options, on DINOv2 and DINOv3 alike.

    Raises:
        WeightsError: settings state a form that ours does not have.
    """
    stated = file.stated("hidden_act")
    if stated not in (None, "gelu"):
        raise WeightsError(f"hidden_act = {stated!r}: only 'gelu' is supported")
    return {
        "registers": file.shape("embeddings.register_tokens")[1],
        "norm_eps": file.setting("layer_norm_eps", 1e-6),
        "dropout": file.stated("hidden_dropout_prob") or 0.0,
        "drop_path": file.stated("drop_path_rate") or 0.0,
    }


def head_fields(file: ForeignWeights, patch: int) -> dict[str, Any]:
    """Return the config fields besides the encoder.

    Raises:
        WeightsError: masks of another stride than ours has.
    """
    found = file.count("upscale_block.block.{i}")
    if found != doublings(patch):
        raise WeightsError(f"{found} upsamplings of patches of {patch}: only {doublings(patch)} are supported")
    return {
        "num_classes": file.shape("class_predictor.weight")[0] - 1,
        "queries": file.shape("query.weight")[0],
        "padded_to": _padded_to(file),
        "query_blocks": file.shape(FRACTIONS)[0],
    }


def _padded_to(file: ForeignWeights) -> int | None:
    """Return to which side images are padded, where the image processor does that: published for objects, segments."""
    processor = "preprocessor_config"
    sides = file.stated(f"{processor}.size") or {}
    longest = sides.get("longest_edge") if isinstance(sides, Mapping) else None
    return longest if file.stated(f"{processor}.do_pad") and isinstance(longest, int) else None


def card_fields(file: ForeignWeights, config: EoMTConfig) -> Mapping[str, Any]:
    """See `Importer`. Images that are split are for class maps, and are predicted by windows."""
    task = None
    split = file.stated("preprocessor_config.do_split_image")
    if split:
        task = "semantic"
    elif config.padded_to is not None:
        task = "panoptic" if things_of(config.num_classes, None) else "instance"
    found = query_facts(file, config.num_classes, TRANSFORMERS_EOMT, task=task, class_maps=TRANSFORMERS_EOMT_CLASS_MAPS)
    side = file.stated("preprocessor_config.size.shortest_edge")
    return found | {"inference": square_windows(side)} if split and isinstance(side, int) else found


HEAD: Renames = (
    ("embeddings.cls_token", "encoder.cls_token"),
    ("embeddings.register_tokens", "encoder.reg_token"),
    ("layernorm", "encoder.norm"),
    (f"{LAYER}.norm1", "encoder.blocks.{i}.norm1"),
    (f"{LAYER}.norm2", "encoder.blocks.{i}.norm2"),
    (f"{LAYER}.layer_scale1.lambda1", "encoder.blocks.{i}.ls1.gamma"),
    (f"{LAYER}.layer_scale2.lambda1", "encoder.blocks.{i}.ls2.gamma"),
    ("query.weight", "queries"),
    ("class_predictor", "classifier"),
    ("mask_head.fc1", "mask_head.0"),
    ("mask_head.fc2", "mask_head.2"),
    ("mask_head.fc3", "mask_head.4"),
    ("upscale_block.block.{i}.conv1", "upsampling.{i}.0"),
    ("upscale_block.block.{i}.conv2", "upsampling.{i}.2"),
    ("upscale_block.block.{i}.layernorm2d", "upsampling.{i}.3"),
    (FRACTIONS, "mask_fractions"),
)
"""What is called alike on DINOv2 and DINOv3."""


def renames(config: EoMTConfig) -> Renames:
    """See `Importer`."""
    require_form(config, rotary=False)
    block, gated = "encoder.blocks.{i}", FORMS[config.encoder.name].gated
    return [
        *HEAD,
        (_PATCHES, "encoder.patch_embed.proj"),
        (_POSITIONS, "encoder.pos_embed"),
        (f"{LAYER}.attention.out_proj", f"{block}.attn.proj"),
        (f"{LAYER}.mlp.fc1", f"{block}.mlp.fc1"),
        (f"{LAYER}.mlp.{'down_proj' if gated else 'fc2'}", f"{block}.mlp.fc2"),
    ]


def require_form(config: EoMTConfig, *, rotary: bool) -> None:
    """Raise WeightsError where the library has no such encoder."""
    name, options = config.encoder.name, config.encoder.options
    kind = "dinov3" if rotary else "dinov2"
    if name.startswith("dinov3") != rotary or not options.class_token:
        raise WeightsError(f"Hugging Face's EoMT on {kind} has no encoder {name} with these options")
    if not rotary and (options.class_position or not options.qkv_bias or options.relative_positions):
        raise WeightsError("Hugging Face's EoMT has a class token without position, and biases of queries and keys")


def stacks(config: EoMTConfig) -> Sequence[Stack]:
    """See `Importer`: queries, keys and values are three matrices, and so is what makes a gate."""
    attention = {f"{LAYER}.attention.{part}_proj": 1 for part in "qkv"}
    found = [Stack(theirs=attention, ours={"encoder.blocks.{i}.attn.qkv": 1})]
    return [*found, GATE] if FORMS[config.encoder.name].gated else found


GATE = Stack(theirs={f"{LAYER}.mlp.{part}_proj": 1 for part in ("gate", "up")}, ours={"encoder.blocks.{i}.mlp.fc1": 1})
"""What makes the gate, and what passes it."""


def changes(config: EoMTConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`: theirs has positions of no batch."""
    return {"encoder.pos_embed": (_batched, _unbatched)}


def _batched(rows: Tensor) -> Tensor:
    return rows[None]


def _unbatched(rows: Tensor) -> Tensor:
    return rows[0]


def constants(config: EoMTConfig) -> Mapping[str, Tensor]:
    """See `Importer`. A part of the library's loss stands in all files."""
    return class_weights(config.num_classes)


IMPORTER = Importer(
    source="hf",
    architecture="eomt",
    recognise=recognise,
    renames=renames,
    stacks=stacks,
    changes=changes,
    card_fields=card_fields,
    dropped=("criterion",),
    constants=constants,
)
