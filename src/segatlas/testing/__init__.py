"""Checks that anyone can run on an own network, dataset or metric; nothing has to be registered, pytest is not needed.

Each is a list of named rules, small functions of one sentence. A check raises `BrokenRules`, an AssertionError that
names every broken rule and what was found; it returns nothing where all hold.
"""

from __future__ import annotations

from segatlas.testing.dataset import RULES as DATASET_RULES
from segatlas.testing.dataset import check_dataset
from segatlas.testing.metric import RULES as METRIC_RULES
from segatlas.testing.metric import check_metric
from segatlas.testing.model import RULES as MODEL_RULES
from segatlas.testing.model import check_model
from segatlas.testing.rules import Breach, BrokenRules, Rule

__all__ = [
    "DATASET_RULES",
    "METRIC_RULES",
    "MODEL_RULES",
    "Breach",
    "BrokenRules",
    "Rule",
    "check_dataset",
    "check_metric",
    "check_model",
]
