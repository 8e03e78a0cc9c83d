"""Measures models: time, processor time, memory, parameters, FLOPs; and the state of the machine beside them."""

from segatlas.bench.machine import Load, Machine
from segatlas.bench.measuring import ModelFacts, Report, Row, measure
from segatlas.bench.settings import Settings
from segatlas.bench.timing import Spread, Timing, time_alternating

__all__ = [
    "Load",
    "Machine",
    "ModelFacts",
    "Report",
    "Row",
    "Settings",
    "Spread",
    "Timing",
    "measure",
    "time_alternating",
]
