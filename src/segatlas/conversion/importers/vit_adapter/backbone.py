"""The backbone of the authors' checkpoints: a ViT-Adapter, whatever head stands on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.vit import FORMS
from segatlas.encoders.vit_adapter import FORMS_OF_ADAPTERS
from segatlas.errors import WeightsError

PATCH = 16
LAST = 3
"""The interaction with further extractors."""
POSITIONS = "encoder.vit.pos_embed"

BACKBONE: Renames = (
    ("backbone.level_embed", "encoder.level_embed"),
    ("backbone.pos_embed", POSITIONS),
    ("backbone.patch_embed", "encoder.vit.patch_embed"),
    ("backbone.blocks.{i}.gamma1", "encoder.vit.blocks.{i}.ls1.gamma"),
    ("backbone.blocks.{i}.gamma2", "encoder.vit.blocks.{i}.ls2.gamma"),
    ("backbone.blocks", "encoder.vit.blocks"),
    *((f"backbone.spm.stem.{3 * i}", f"encoder.spm.stem.{i}.conv") for i in range(3)),
    *((f"backbone.spm.stem.{3 * i + 1}", f"encoder.spm.stem.{i}.bn") for i in range(3)),
    *((f"backbone.spm.conv{i + 2}.0", f"encoder.spm.levels.{i}.conv") for i in range(3)),
    *((f"backbone.spm.conv{i + 2}.1", f"encoder.spm.levels.{i}.bn") for i in range(3)),
    *((f"backbone.spm.fc{i + 1}", f"encoder.spm.project.{i}") for i in range(4)),
    ("backbone.interactions.{i}.injector", "encoder.interactions.{i}.injector"),
    ("backbone.interactions.{i}.extractor.ffn.dwconv.dwconv", "encoder.interactions.{i}.extractors.0.ffn.dwconv"),
    ("backbone.interactions.{i}.extractor", "encoder.interactions.{i}.extractors.0"),
    *(
        (
            f"backbone.interactions.{LAST}.extra_extractors.{i}{theirs}",
            f"encoder.interactions.{LAST}.extractors.{i + 1}{ours}",
        )
        for i in range(2)
        for theirs, ours in ((".ffn.dwconv.dwconv", ".ffn.dwconv"), ("", ""))
    ),
    ("backbone.up", "encoder.up"),
    *((f"backbone.norm{i + 1}", f"encoder.norms.{i}") for i in range(4)),
)


def encoder_fields(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder, or None where the backbone is another one.

    Raises:
        WeightsError: a ViT-Adapter around a BEiT, or of other sizes than the published ones.
    """
    if not file.has("backbone.spm.stem.0.weight", "backbone.interactions.0.injector", "backbone.patch_embed.proj"):
        return None
    if file.has("backbone.blocks.0.attn.relative_position_bias_table") or not file.has("backbone.pos_embed"):
        raise WeightsError(
            "a ViT-Adapter around a BEiT (relative positions); only those around a plain ViT can be read"
        )
    rows, width = file.shape("backbone.pos_embed")[1:]
    size = (width, file.count("backbone.blocks.{i}"), file.shape("backbone.spm.stem.0.weight")[0])
    known = {
        (FORMS[form.vit].width, FORMS[form.vit].depth, form.stem): name for name, form in FORMS_OF_ADAPTERS.items()
    }
    side = math.isqrt(rows - 1)
    if size not in known or side * side != rows - 1:
        raise WeightsError(
            f"a ViT-Adapter of width, blocks and stem {size} with {rows} positions; expected one of "
            f"{', '.join(map(str, known))}, and a class token's position with those of a square grid"
        )
    return {
        "encoder": known[size],
        "encoder_options": {"image_size": (PATCH * side, PATCH * side)},
        "in_channels": file.shape("backbone.patch_embed.proj.weight")[1],
    }


def changes() -> Mapping[str, tuple[Change, Change]]:
    """Return what is laid out differently: their positions begin with one of a class token that is never used."""
    return {POSITIONS: (lambda theirs: theirs[:, 1:], _with_class_token)}


def _with_class_token(ours: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(ours[:, :1]), ours], dim=1)
