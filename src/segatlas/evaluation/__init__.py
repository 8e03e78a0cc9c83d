"""From a model and a data set to a report."""

from __future__ import annotations

from segatlas.evaluation.report import REPORT_FILE, Report
from segatlas.evaluation.run import evaluate

__all__ = ["REPORT_FILE", "Report", "evaluate"]
