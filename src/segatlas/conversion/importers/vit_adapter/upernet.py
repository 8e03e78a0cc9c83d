"""UPerNet on a ViT-Adapter, as its authors published it: the head is MMSegmentation's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.upernet import HEAD, decoder_fields, has_head
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.vit_adapter.backbone import BACKBONE, changes, encoder_fields
from segatlas.encoders.vit_adapter import FORMS_OF_ADAPTERS
from segatlas.errors import WeightsError
from segatlas.models.upernet import UPerNetConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    encoder = encoder_fields(file) if has_head(file) else None
    return None if encoder is None else {**decoder_fields(file), **encoder}


def renames(config: UPerNetConfig) -> Renames:
    """See `Importer`."""
    if config.encoder.name not in FORMS_OF_ADAPTERS:
        raise WeightsError(f"the authors' ViT-Adapter has no backbone '{config.encoder.name}'")
    return [*BACKBONE, *HEAD]


IMPORTER = Importer(
    source="vit_adapter",
    architecture="upernet",
    recognise=recognise,
    renames=renames,
    changes=lambda config: changes(),
)
