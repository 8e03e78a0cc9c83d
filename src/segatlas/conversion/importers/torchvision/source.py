"""torchvision as a whole: its files hold tensors and nothing else."""

from __future__ import annotations

from segatlas.conversion.importers.source import Library

SOURCE = Library(name="torchvision", title="torchvision")
