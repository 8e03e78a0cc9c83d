"""torchvision as a whole: its files hold tensors and nothing else."""

from __future__ import annotations

from segatlas.weights.importers.source import Source

SOURCE = Source(name="torchvision", title="torchvision")
