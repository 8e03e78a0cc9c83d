"""The authors' ViT-Adapter repository as a whole: checkpoints are MMSegmentation 0.x's around another backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segatlas.checkpoint.preprocessing import InferenceMode
from segatlas.conversion.importers.mmseg import source as mmseg
from segatlas.conversion.importers.mmseg.settings import read_settings_file
from segatlas.conversion.importers.source import Facts, Library

WINDOWS = InferenceMode(mode="slide", crop=(512, 512), stride=(341, 341))
"""How all of their UPerNets on a plain transformer predict."""


def facts(meta: Mapping[str, Any], settings: Mapping[str, Any]) -> Facts:
    """See `Library`: as MMSegmentation's, but for windows, which are used where nothing is stated."""
    told = mmseg.facts(meta, settings)
    return replace(told, inference=told.inference or WINDOWS)


SOURCE = Library(
    name="vit_adapter",
    title="the authors' ViT-Adapter",
    settings_of=mmseg.settings_of,
    settings_names=mmseg.SOURCE.settings_names,
    read_settings=read_settings_file,
    disagreement=mmseg.disagreement,
    facts=facts,
    content=mmseg.content,
)
