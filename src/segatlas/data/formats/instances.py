"""Files that hold one number for each object, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segatlas.data.formats.stored import Stored, codes_of
from segatlas.errors import DataError
from segatlas.structures import InstancesTarget

OBJECTS_PER_CLASS = 1000
"""A pixel of the n-th object of a class holds class * 1000 + n."""


@dataclass(frozen=True, kw_only=True)
class InstanceRule:
    """Maps of objects as `OBJECTS_PER_CLASS` says; 0 is no object. num_classes: K, class 0 has no objects."""

    num_classes: int

    def codes(self, stored: Stored, path: Path) -> np.ndarray:
        """Return the numbers of a file's pixels, (H, W).

        Raises:
            DataError: colours, or numbers that a compression with loss may have changed.
        """
        if stored.lossy:
            raise DataError("is compressed with loss, which changes the numbers of objects; write PNG", path)
        codes = codes_of(stored, path)
        if codes.ndim != 2:
            raise DataError(f"holds colours, expected one number a pixel: {self._expected}", path)
        return codes

    def target(self, codes: np.ndarray, path: Path) -> InstancesTarget:
        """Return the objects of (H, W) numbers, by rising number.

        Raises:
            DataError: a number that is neither 0 nor that of an object of a class.
        """
        values = np.unique(codes)
        values = values[values != 0]
        kinds = values.astype(np.int64) // OBJECTS_PER_CLASS
        wrong = values[(kinds < 1) | (kinds >= self.num_classes)]
        if wrong.size:
            more = f" and {wrong.size - 1} more such values" if wrong.size > 1 else ""
            raise DataError(f"holds {wrong[0]}{more}; expected {self._expected}", path)
        return InstancesTarget(codes == values[:, None, None], kinds, np.zeros(len(values), bool))

    @property
    def _expected(self) -> str:
        return f"0, or class * {OBJECTS_PER_CLASS} + n of class 1..{self.num_classes - 1}"
