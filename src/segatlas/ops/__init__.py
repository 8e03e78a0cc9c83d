"""The fast core: from low-resolution logits to class maps, losses and counts, without full-size intermediates."""

from __future__ import annotations

from segatlas.ops.attention import attend
from segatlas.ops.class_map import class_map, class_map_with_confidence
from segatlas.ops.confusion import confusion
from segatlas.ops.upsampled_loss import (
    upsampled_cross_entropy,
    upsampled_log_likelihood,
    upsampled_ohem,
    upsampled_overlap,
)
from segatlas.ops.upsampled_lovasz import upsampled_lovasz
from segatlas.ops.upsampling import upsample_logits
from segatlas.ops.windows import window_starts
from segatlas.renamed import old_names

__all__ = [
    "attend",
    "class_map",
    "class_map_with_confidence",
    "confusion",
    "upsample_logits",
    "upsampled_cross_entropy",
    "upsampled_log_likelihood",
    "upsampled_lovasz",
    "upsampled_ohem",
    "upsampled_overlap",
    "window_starts",
]

__getattr__ = old_names("segatlas.ops")
