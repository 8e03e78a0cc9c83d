"""Networks with one output more than classes, for pixels without a label: what the authors of ESPNet publish.

A label here is a class or 255, which is never predicted. So that output is kept in the network, and left out of what it
gives, unless somebody states that it is a class as any other: `--set last_output=class`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.source import Facts
from segatlas.data.datasets import dataset_class
from segatlas.errors import WeightsError

CLASS, IGNORED = "class", "ignored"
LICENCE = "MIT"
"""Of the authors' repositories, which hold code and weights."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a published file was trained on.

    data_set: a key of `segatlas.data.DATASETS`. ignored: its last output is for pixels without a label.
    preprocessing: its images.
    """

    data_set: str
    ignored: bool
    preprocessing: Preprocessing


def class_fields(file: ForeignWeights, outputs: int, trained: Mapping[int, Trained]) -> dict[str, Any]:
    """Return the config fields that say which outputs are classes, and note what was taken by default.

    Args:
        file: what was stated of it.
        outputs: of its classifier.
        trained: outputs -> what published files with as many were trained on.

    Raises:
        WeightsError: something else was stated than can be.
    """
    stated, known = file.stated("last_output"), trained.get(outputs)
    if stated not in (None, CLASS, IGNORED):
        raise WeightsError(f"last_output: got {stated!r}, expected {CLASS} or {IGNORED}")
    ignored = stated == IGNORED or (stated is None and known is not None and known.ignored)
    if stated is None:
        told = f"the last of {outputs} outputs is for pixels without a label, as published, and is never predicted"
        file.note(
            f"{told} (--set last_output=class makes it a class)"
            if ignored
            else f"all {outputs} outputs are classes (--set last_output=ignored: the last one is never predicted)"
        )
    if file.stated("size") is None and known is not None:
        file.note(
            f"images are resized to {known.preprocessing.resize}, as published (--set size=HxW, or own, for others)"
        )
    if known is None:
        file.note(f"no published file has {outputs} outputs: mean, std and size are those of their programs' defaults")
    return {"num_classes": outputs - ignored, "ignored_output": ignored}


def trained_facts(
    classes: int,
    outputs: int,
    settings: Mapping[str, Any],
    trained: Mapping[int, Trained],
    default: Preprocessing,
) -> Facts:
    """Return what is known of the use of such a network.

    Args:
        classes: of the network.
        outputs: of its classifier.
        settings: what was stated; `size` is the size that images are resized to, HxW, or "own".
        trained: see `class_fields`.
        default: how images are made where no published file has as many outputs.
    """
    known = trained.get(outputs)
    preprocessing = default if known is None else known.preprocessing
    size = settings.get("size")
    if size is not None:
        preprocessing = replace(preprocessing, resize=None if size == "own" else str(size))
    if known is None:
        return Facts(licence=LICENCE, preprocessing=preprocessing)
    kind = dataset_class(known.data_set)
    names, palette = tuple(kind.classes), tuple(kind.palette)
    if known.ignored and classes == outputs:
        names, palette = (*names, IGNORED), (*palette, (0, 0, 0))
    return Facts(classes=names, palette=palette, data_set=known.data_set, licence=LICENCE, preprocessing=preprocessing)
