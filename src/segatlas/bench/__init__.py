"""Measures models: time, processor time, memory, parameters, FLOPs; and the state of the machine beside them."""

from segatlas.bench.machine import Load, MachineState
from segatlas.bench.measuring import BenchReport, BenchRow, MeasuredModel, measure
from segatlas.bench.realtime import RealtimeReport, RealtimeRow, RealtimeSettings, measure_realtime
from segatlas.bench.settings import BenchSettings
from segatlas.bench.timing import Spread, Timing, time_alternating
from segatlas.renamed import old_names

__all__ = [
    "BenchReport",
    "BenchRow",
    "BenchSettings",
    "Load",
    "MachineState",
    "MeasuredModel",
    "RealtimeReport",
    "RealtimeRow",
    "RealtimeSettings",
    "Spread",
    "Timing",
    "measure",
    "measure_realtime",
    "time_alternating",
]

__getattr__ = old_names("segatlas.bench")
