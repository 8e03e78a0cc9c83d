"""Semantic segmentation: a class for each pixel."""

from segatlas.tasks.task import Task

TASK = Task(
    name="semantic",
    title="semantic segmentation",
    target="SemanticTarget",
    metrics=("confusion", "boundary", "object_size", "small_classes"),
    result=("semantic",),
    writers=("mask", "overlay", "color", "boundary", "confidence", "json", "csv"),
    tables={"csv": "areas.csv"},
    sheet="segatlas.drawing.sheets:semantic_row",
)
