"""The authors' SeMask repository as a whole: checkpoints are MMSegmentation 0.x's around another network."""

from __future__ import annotations

from segatlas.conversion.importers.mmseg import source as mmseg
from segatlas.conversion.importers.mmseg.settings import read_settings_file
from segatlas.conversion.importers.source import Library

SOURCE = Library(
    name="semask",
    title="the authors' SeMask",
    settings_of=mmseg.settings_of,
    settings_names=mmseg.SOURCE.settings_names,
    read_settings=read_settings_file,
    disagreement=mmseg.disagreement,
    facts=mmseg.facts,
    content=mmseg.content,
)
