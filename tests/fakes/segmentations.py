"""Results of each task on one small scene, as a Predictor gives them: a square with a hole, and a disc, on ground."""

from __future__ import annotations

from typing import Any

import numpy as np

from segatlas.inference import Segmentation
from segatlas.structures import Instance, Panoptic, Rle, Segment

CLASSES = ("ground", "square", "disc")
PALETTE = ((90, 90, 90), (250, 0, 0), (0, 0, 250))
SIZE = (24, 36)

CLASS_MAP = np.zeros(SIZE, np.uint8)
CLASS_MAP[4:12, 6:16] = 1
CLASS_MAP[6:9, 9:12] = 0
CLASS_MAP[14:20, 24:30] = 2
IMAGE = np.full((*SIZE, 3), 100, np.uint8)


def segmentation(task: str = "semantic", **changes: Any) -> Segmentation:
    """Return the result of a task."""
    objects = (
        Instance(mask=CLASS_MAP == 1, class_index=1, score=0.9),
        Instance(mask=CLASS_MAP == 2, class_index=2, score=0.75),
    )
    masks = [Rle.of(index == CLASS_MAP) for index in range(3)]
    segments = tuple(
        Segment(id=i + 1, class_index=i, is_thing=i > 0, score=None, area=mask.area, box=mask.box)
        for i, mask in enumerate(masks)
    )
    parts: dict[str, dict[str, Any]] = {
        "semantic": {"class_map": CLASS_MAP},
        "instance": {"objects": objects},
        "panoptic": {
            "class_map": CLASS_MAP,
            "objects": objects,
            "segments": Panoptic(ids=CLASS_MAP.astype(np.int32) + 1, segments=segments),
        },
    }
    usual = {"size": SIZE, "classes": CLASSES, "palette": PALETTE, "source": "photos/street.jpg", "image": IMAGE}
    return Segmentation(**{**usual, **parts[task], **changes})
