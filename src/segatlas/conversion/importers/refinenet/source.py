"""The published PyTorch RefineNet as a whole: its file holds tensors and nothing else."""

from __future__ import annotations

from segatlas.conversion.importers.source import Library

SOURCE = Library(name="refinenet", title="RefineNet of its PyTorch port")
