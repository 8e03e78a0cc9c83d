"""What label values mean, everywhere: 0..K-1 are classes, 255 is "ignore". Loads no torch."""

from __future__ import annotations

IGNORE = 255
"""The label value that means "ignore": never predicted, never scored, no loss."""

MAX_CLASSES = 255
"""Class indices 0..254 fit beside IGNORE into a label map of 8 bits."""
