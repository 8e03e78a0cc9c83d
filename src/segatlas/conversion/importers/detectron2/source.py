"""Detectron2 as a whole: its configuration lies beside the weights as YAML, and files of its zoo say whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.source import Facts, Library
from segatlas.errors import WeightsError
from segatlas.printable import printable

ZOO = "Detectron2 Model Zoo"
ZOO_LICENCE = "CC-BY-SA-3.0"
MEAN, STD = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)
"""Of blue, green and red, in stored values: those of most of its configurations."""


def is_bgr(file: ForeignWeights) -> bool:
    """Tell whether the network takes its channels in the order blue, green, red, as nearly all do."""
    return bool(file.setting("INPUT.FORMAT", "BGR") == "BGR")


def read_settings(path: Path) -> dict[str, Any]:
    """Return a configuration as plain data.

    Raises:
        WeightsError: it cannot be read, or is none.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise WeightsError(f"{printable(path)}: not a configuration of Detectron2 ({error})") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{printable(path)}: not a configuration of Detectron2, which has MODEL, INPUT and so on")
    return found


def disagreement(file: ForeignWeights) -> str:
    """See `Library`: the class count."""
    stated, name = file.stated("MODEL.ROI_HEADS.NUM_CLASSES"), "roi_heads.box_predictor.cls_score.weight"
    if isinstance(stated, int) and name in file.tensors and file.shape(name)[0] != stated + 1:
        return f"MODEL.ROI_HEADS.NUM_CLASSES is {stated}, but the file has {file.shape(name)[0] - 1} classes"
    return ""


def facts(meta: Mapping[str, Any], settings: Mapping[str, Any]) -> Facts:
    """See `Library`."""
    file = ForeignWeights(tensors={}, settings=settings)
    mean, std = file.stated("MODEL.PIXEL_MEAN") or MEAN, file.stated("MODEL.PIXEL_STD") or STD
    order = -1 if is_bgr(file) else 1
    short, long = file.stated("INPUT.MIN_SIZE_TEST") or 800, file.stated("INPUT.MAX_SIZE_TEST") or 1333
    return Facts(
        licence=ZOO_LICENCE if meta.get("__author__") == ZOO else "",
        preprocessing=Preprocessing(
            mean=tuple(round(float(value) / 255, 12) for value in mean[::order]),
            std=tuple(round(float(value) / 255, 12) for value in std[::order]),
            resize=f"fit:{short}x{long}",
        ),
    )


SOURCE = Library(
    name="detectron2",
    title="Detectron2",
    settings_names=("{stem}.yaml", "config.yaml"),
    read_settings=read_settings,
    disagreement=disagreement,
    facts=facts,
)
