"""From a model and a dataset to a report."""

from __future__ import annotations

from segatlas.evaluation.report import REPORT_FILE, Report
from segatlas.evaluation.run import Evaluation, evaluate, open_evaluation

__all__ = ["REPORT_FILE", "Evaluation", "Report", "evaluate", "open_evaluation"]
