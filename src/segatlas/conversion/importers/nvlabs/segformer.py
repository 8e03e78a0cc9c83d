"""SegFormer as its authors published it. Our encoder has their names and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mit import STAGES, authors_mit_name, require_authors_form
from segatlas.conversion.importers.renames import Renames
from segatlas.models.segformer import SegFormerConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    encoder = authors_mit_name(file, "backbone")
    if encoder is None or not file.has("decode_head.linear_c1", "decode_head.linear_fuse", "decode_head.linear_pred"):
        return None
    classes, width = file.shape("decode_head.linear_pred.weight")[:2]
    return {
        "num_classes": classes,
        "in_channels": file.shape("backbone.patch_embed1.proj.weight")[1],
        "encoder": encoder,
        "decoder_channels": width,
    }


def renames(config: SegFormerConfig) -> Renames:
    """See `Importer`."""
    require_authors_form(config, "the authors' repository")
    return [
        ("backbone", "encoder"),
        *((f"decode_head.linear_c{stage}.proj", f"decoder.projections.{stage - 1}") for stage in STAGES),
        ("decode_head.linear_fuse", "decoder.fuse"),
        ("decode_head.linear_pred", "classifier"),
    ]


IMPORTER = Importer(
    source="nvlabs",
    architecture="segformer",
    recognise=recognise,
    renames=renames,
    dropped=("decode_head.conv_seg",),  # made by their base class, never used
)
