"""BeitForSemanticSegmentation as transformers 5 names its tensors."""

from __future__ import annotations

from segatlas.conversion.importers.hf.beit import NOW, importer

IMPORTER = importer(NOW)
