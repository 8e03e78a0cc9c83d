"""Criteria: what a training minimises, from typed network outputs and labels."""

from __future__ import annotations

from segatlas.criteria.criterion import Criterion

__all__ = ["Criterion"]
