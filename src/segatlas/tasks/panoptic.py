"""Panoptic segmentation: a segment for each pixel, things told apart, stuff not.

Planned: no network, metric and writer has it yet. The record says what they will be called.
"""

from segatlas.tasks.task import Task

TASK = Task(
    name="panoptic",
    title="panoptic segmentation",
    target="SegmentsTarget",
    metrics=(),
    result=("semantic", "instances", "panoptic"),
    writers=("panoptic", "overlay", "json"),
    sheet="segatlas.drawing.sheets:panoptic_row",
)
