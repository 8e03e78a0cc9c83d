"""Whether data that name no classes can be those of a model: which labels they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from segatlas.labels import IGNORE
from segatlas.structures import SemanticTarget, Target

_NUMBERED = re.compile(r"class[ _]\d+")


class LabelsSeen:
    """Notes the largest label of data without class names, which a model's names were given to by index."""

    def __init__(self, classes: Sequence[str], *, unnamed: bool):
        """Look at nothing where the data have names, or the model has numbers in place of names."""
        self._classes = classes
        self._looks = unnamed and not all(_NUMBERED.fullmatch(name) for name in classes)
        self._largest = -1

    def look_at(self, target: Target | None) -> None:
        """Take the truth of one image into account."""
        if self._looks and isinstance(target, SemanticTarget) and self._largest < len(self._classes) - 1:
            labels = np.asarray(target.labels)
            labels = labels[labels != IGNORE]
            self._largest = max(self._largest, int(labels.max()) if labels.size else -1)

    def warnings(self) -> list[str]:
        """Return what is to be told: fewer labels than the model has classes, so that they may mean others."""
        if not 0 <= self._largest < len(self._classes) - 1:
            return []
        label = min(1, self._largest)
        return [
            f"the model has {len(self._classes)} classes, the data name none and hold labels 0 to {self._largest} "
            f"only; they were compared by index, so label {label} was taken for {self._classes[label]!r}; "
            "data.classes and data.label_map say what else the labels are"
        ]
