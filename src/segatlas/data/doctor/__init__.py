"""The data-set doctor: finds what is wrong with pictures and masks, says how to repair it, and writes a repaired copy.

Order of reading: `findings` (what is said), `inventory` (which files there are), `facts` and `survey` (what each
shows), `reading` (what the codes of all masks together mean), `rules` (the faults), `examine` (all of it), `repair`.
"""

from __future__ import annotations

from segatlas.data.doctor.examine import available_splits, data_config, examine, quick_check
from segatlas.data.doctor.findings import KINDS, Diagnosis, Finding
from segatlas.data.doctor.repair import FIXES_FILE, repair

__all__ = [
    "FIXES_FILE",
    "KINDS",
    "Diagnosis",
    "Finding",
    "available_splits",
    "data_config",
    "examine",
    "quick_check",
    "repair",
]
