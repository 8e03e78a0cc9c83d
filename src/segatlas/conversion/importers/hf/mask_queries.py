"""What the importers of networks of queries share: Swin Transformers below them, and what settings have to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf.swin import TABLE, TABLE_BEFORE_5, swin_fields
from segatlas.errors import WeightsError

ENCODER, DECODER = "model.pixel_level_module.encoder", "model.pixel_level_module.decoder"
TRANSFORMER = "model.transformer_module"


def encoder_fields(file: ForeignWeights, *roots: str) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder, whose names begin with one of `roots`; None where it is no Swin."""
    found = (swin_fields(file, root, table) for root in roots for table in (TABLE, TABLE_BEFORE_5))
    return next((fields for fields in found if fields is not None), None)


def require_form(file: ForeignWeights, fixed: Mapping[str, Any]) -> None:
    """Raise WeightsError where settings state another value than the only one that ours has."""
    for key, ours in fixed.items():
        stated = file.stated(key)
        if stated not in (None, ours):
            raise WeightsError(f"{key} = {stated}: only {ours} is supported")


def padding(file: ForeignWeights) -> int:
    """Return to which multiple of pixels images grow, as the image processor says, 32 if it does not."""
    processor = "preprocessor_config"
    found = file.stated(f"{processor}.size_divisor") or file.stated(f"{processor}.size_divisibility")
    return found if isinstance(found, int) and found > 0 else 32
