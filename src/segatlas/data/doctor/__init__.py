"""The data-set doctor: finds what is wrong with pictures and masks, says how to repair it, and writes a repaired copy.

Order of reading: `findings` (what is said), `inventory` (which files there are), `facts` and `survey` (what each
shows), `reading` (what the codes of all masks together mean), `rules` and `splits` (the faults), `examine` (all of it),
`repair`. `quick` applies the same rules to listings, `headers` and `samples` before a training.
"""

from __future__ import annotations

from segatlas.data.doctor.examine import available_splits, data_config, examine
from segatlas.data.doctor.findings import KINDS, Diagnosis, Finding
from segatlas.data.doctor.quick import QuickLook, look_before_training
from segatlas.data.doctor.repair import FIXES_FILE, repair
from segatlas.data.doctor.samples import quick_check

__all__ = [
    "FIXES_FILE",
    "KINDS",
    "Diagnosis",
    "Finding",
    "QuickLook",
    "available_splits",
    "data_config",
    "examine",
    "look_before_training",
    "quick_check",
    "repair",
]
