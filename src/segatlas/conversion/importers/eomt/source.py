"""The authors' EoMT repository as a whole: files hold tensors and nothing else."""

from __future__ import annotations

from segatlas.conversion.importers.source import Library

SOURCE = Library(name="eomt", title="the authors' EoMT")
