"""Counting right and wrong pixels: everything `segatlas eval` prints about semantic maps."""

from __future__ import annotations

from segatlas.metrics.definitions import DEFINITIONS
from segatlas.metrics.semantic import SemanticMetrics, SemanticScores, mean_iou

__all__ = ["DEFINITIONS", "SemanticMetrics", "SemanticScores", "mean_iou"]
