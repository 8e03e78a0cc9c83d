"""What MMDetection's configurations say of the use of a network of queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.config.objects import ObjectRule
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.query_facts import query_facts, with_score


def facts_of(file: ForeignWeights, classes: int, rule: ObjectRule) -> dict[str, Any]:
    """Return the further fields of a card."""
    things = file.stated("model.panoptic_head.num_things_classes")
    test = file.stated("model.test_cfg")
    task = None
    if isinstance(test, Mapping) and "panoptic_on" in test:
        task = "panoptic" if test["panoptic_on"] else "instance"
        rule = with_score(rule, test, ("object_mask_thr", "iou_thr"))
    return query_facts(file, classes, rule, task=task, things=things if isinstance(things, int) else None)
