"""OneFormerForUniversalSegmentation on Swin as transformers up to 4 names its tensors: the published files."""

from __future__ import annotations

from segatlas.conversion.importers.hf import swin
from segatlas.conversion.importers.hf.oneformer import below, importer

IMPORTER = importer(
    swin.BEFORE_5, "attention.self.relative_position_bias_table", below("backbone"), dropped=swin.INDEX_BEFORE_5
)
