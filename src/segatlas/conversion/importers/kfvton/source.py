"""The authors' KF-VTON repository as a whole: a file a network, which holds its tensors and nothing else."""

from __future__ import annotations

from segatlas.conversion.importers.source import Library

SOURCE = Library(name="kfvton", title="the authors' KF-VTON")
