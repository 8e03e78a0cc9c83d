"""What a Predictor gives and what a dataset gives, made by hand for metrics."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from segatlas.metrics import MetricSet, create
from segatlas.structures import SemanticTarget
from segatlas.tasks import TASKS


def semantic_pair(prediction: Any, label: Any) -> tuple[Any, SemanticTarget]:
    """Return result and target of one image from its two label maps."""
    return SimpleNamespace(semantic=prediction), SemanticTarget(label)


def semantic_metrics(classes: Sequence[str], **options: Any) -> MetricSet:
    """Return all metrics of semantic maps; `options` as in a recipe's `eval:`."""
    return create(TASKS["semantic"].metrics, classes, {"small_classes": (), **(options or {})})
