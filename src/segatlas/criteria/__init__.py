"""Criteria: a network's output and the truth -> the loss to minimise."""

from __future__ import annotations

from segatlas.criteria.criterion import Criterion

__all__ = ["Criterion"]
