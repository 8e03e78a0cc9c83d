"""`data check`: finds what is wrong with images and masks, says how to repair it, and writes a repaired copy.

Order of reading: `findings` (what is said), `file_listing` (which files there are), `stats` and `scan` (what each
shows), `reading` (what the codes of all masks together mean), `rules` and `splits` (the faults), `examine` (all of it),
`repair`. `quick` applies the same rules to listings, `headers` and `samples` before a training.
"""

from __future__ import annotations

from segatlas.data.checks.examine import available_splits, data_config, examine
from segatlas.data.checks.findings import KINDS, CheckReport, Finding
from segatlas.data.checks.quick import QuickLook, look_before_training
from segatlas.data.checks.repair import FIXES_FILE, repair
from segatlas.data.checks.samples import quick_check
from segatlas.renamed import old_names

__all__ = [
    "FIXES_FILE",
    "KINDS",
    "CheckReport",
    "Finding",
    "QuickLook",
    "available_splits",
    "data_config",
    "examine",
    "look_before_training",
    "quick_check",
    "repair",
]

__getattr__ = old_names("segatlas.data.checks")
