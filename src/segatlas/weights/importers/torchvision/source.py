"""torchvision as a whole: its files hold tensors and nothing else."""

from __future__ import annotations

from segatlas.weights.importers.source import Library

SOURCE = Library(name="torchvision", title="torchvision")
