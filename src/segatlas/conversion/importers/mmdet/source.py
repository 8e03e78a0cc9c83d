"""MMDetection as a whole: its checkpoints keep configuration and class names as MMSegmentation's do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.settings import read_settings_file
from segatlas.conversion.importers.mmseg.source import content, named_facts, normalisation, settings_of
from segatlas.conversion.importers.source import Facts, Library

RESIZE = "fit:800x1333"
"""How large images are predicted, unless settings say otherwise."""


def is_bgr(file: ForeignWeights) -> bool:
    """Tell whether the network takes its channels in the order blue, green, red."""
    norm = normalisation(file)
    return norm is not None and not norm.get("bgr_to_rgb", norm.get("to_rgb", True))


def facts(meta: Mapping[str, Any], settings: Mapping[str, Any]) -> Facts:
    """See `Library`. Theirs of a network on BGR are in that order; ours are in the image's own."""
    file = ForeignWeights(tensors={}, settings=settings)
    norm, found = normalisation(file), Preprocessing(resize=RESIZE)
    if norm is not None:
        mean, std = (tuple(round(float(value) / 255, 12) for value in norm[key]) for key in ("mean", "std"))
        order = -1 if is_bgr(file) else 1
        found = replace(found, mean=mean[::order], std=std[::order])
    return replace(named_facts(meta, settings), preprocessing=found)


def disagreement(file: ForeignWeights) -> str:
    """See `Library`: the class count."""
    for path, name, more in (
        ("model.roi_head.bbox_head.num_classes", "roi_head.bbox_head.fc_cls.weight", 1),
        ("model.bbox_head.num_classes", "bbox_head.conv_cls.weight", 0),
    ):
        stated = file.stated(path)
        if isinstance(stated, int) and name in file.tensors and file.shape(name)[0] != stated + more:
            return f"{path} is {stated}, but the file has {file.shape(name)[0] - more} classes"
    return ""


SOURCE = Library(
    name="mmdet",
    title="MMDetection",
    settings_of=settings_of,
    settings_names=("{stem}.py", "config.py"),
    read_settings=read_settings_file,
    disagreement=disagreement,
    facts=facts,
    content=content,
)
