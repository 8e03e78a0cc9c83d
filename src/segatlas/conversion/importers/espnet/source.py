"""The authors' ESPNet repository (github.com/sacmehta/ESPNet) as a whole: files hold tensors and nothing else."""

from __future__ import annotations

from segatlas.conversion.importers.source import Library

SOURCE = Library(name="espnet", title="the authors' ESPNet")
