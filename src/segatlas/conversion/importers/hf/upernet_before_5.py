"""UperNetForSemanticSegmentation on Swin as transformers up to 4 names its tensors: the published files."""

from __future__ import annotations

from segatlas.conversion.importers.hf import swin
from segatlas.conversion.importers.hf.upernet import importer

IMPORTER = importer((swin.BEFORE_5,), dropped=swin.INDEX_BEFORE_5)
