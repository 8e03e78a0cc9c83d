"""BeitForSemanticSegmentation as transformers up to 4 names its tensors: the published files."""

from __future__ import annotations

from segatlas.conversion.importers.hf.beit import BEFORE_5, importer

IMPORTER = importer(BEFORE_5)
