"""What a network of queries is published for, as fields of a card: its task, which classes are things, and the rule.

The weights are alike for all tasks. What settings do not tell follows from the number of classes, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segatlas.checkpoint.preprocessing import InferenceMode
from segatlas.config.objects import CLASS_MAPS_OF_QUERIES, ObjectRule
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.data.datasets import dataset_class
from segatlas.tasks import TASKS

THINGS = {133: 80}
"""Classes -> of which so many are things, before all stuff: COCO's, in all libraries."""
TASK_OF = {
    133: "panoptic",
    80: "instance",
    100: "instance",
    8: "instance",
    1: "instance",
    150: "semantic",
    19: "semantic",
}
"""Classes -> the task that published weights with this number are for, mostly: of COCO, ADE20K and Cityscapes.

Of one class there are only objects: a label map of one class is that class everywhere.
"""
ZOO_LICENCE = "CC-BY-NC-4.0 (non-commercial)"
"""Of all weights that the authors of Mask2Former and MaskFormer published, in their MODEL_ZOO.md."""
WITH_THINGS = {150: "ade20k", 19: "cityscapes"}
"""Classes -> the dataset that says which of them are things."""


def query_facts(
    file: ForeignWeights,
    classes: int,
    rule: ObjectRule,
    *,
    task: str | None = None,
    things: int | None = None,
    class_maps: ObjectRule = CLASS_MAPS_OF_QUERIES,
) -> dict[str, Any]:
    """Return the fields `task`, `things` and `objects` of a card.

    Args:
        file: where a note is left when the task is taken by the number of classes.
        classes: of the network.
        rule: how objects and segments are made.
        task: as settings tell; None = they do not.
        things: how many of the first classes are things, as settings tell; None = they do not.
        class_maps: how class maps are made.
    """
    if task is None:
        task = TASK_OF.get(classes, "panoptic" if things else "semantic")
        file.note(f"task = {task!r} (by the number of classes, {classes}; the file does not tell)")
    of_segments = TASKS[task].target == "SegmentsTarget"
    flags = things_of(classes, things) if of_segments else ()
    if of_segments and not flags:
        task = "instance"
        file.note("things are not told apart from stuff by the file: taken as objects alone")
    has_objects = "instances" in TASKS[task].result
    return {"task": task, "things": flags, "objects": rule if has_objects else class_maps}


def things_of(classes: int, things: int | None) -> tuple[bool, ...]:
    """Return of each class whether it is one of things, () where nothing tells."""
    count = THINGS.get(classes) if things is None else things
    if count is not None:
        return tuple(index < count for index in range(classes))
    return (dataset_class(WITH_THINGS[classes]).things or ()) if classes in WITH_THINGS else ()


def square_windows(side: int) -> InferenceMode:
    """Return prediction by squares side by side along the longer side, the last one moved back to the border."""
    return InferenceMode(mode="slide", crop=(side, side), stride=(side, side))


def with_score(rule: ObjectRule, settings: Mapping[str, Any], names: Sequence[str]) -> ObjectRule:
    """Return a rule with the two thresholds of segments that settings state under `names`: of score, of overlap."""
    score, overlap = (settings.get(name) for name in names)
    queries = rule.queries
    if isinstance(score, int | float):
        queries = replace(queries, segment_score=float(score))
    if isinstance(overlap, int | float):
        queries = replace(queries, segment_overlap=float(overlap))
    return replace(rule, queries=queries)
