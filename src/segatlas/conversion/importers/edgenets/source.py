"""The authors' EdgeNets repository (github.com/sacmehta/EdgeNets) as a whole: files hold tensors and nothing else."""

from __future__ import annotations

from segatlas.conversion.importers.source import Library

SOURCE = Library(name="edgenets", title="the authors' EdgeNets")
