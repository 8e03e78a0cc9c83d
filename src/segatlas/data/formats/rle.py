"""Run-length codes of masks, as COCO's annotation files hold them."""

from __future__ import annotations

from typing import Any

import numpy as np


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Return COCO's uncompressed run-length code of a boolean (H, W) mask.

    `counts` are the lengths of runs down the columns, left to right, zeros first; `size` is [H, W].
    """
    flat = mask.T.ravel().astype(bool)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = [0, *changes.tolist(), flat.size]
    counts = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}
