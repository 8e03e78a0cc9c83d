"""Semantic segmentation: a class for each pixel."""

from segatlas.tasks.task import Task

TASK = Task(
    name="semantic",
    title="semantic segmentation",
    target="SemanticTarget",
    metrics=("confusion", "boundary", "object_size"),
    validation=("confusion",),
    monitored={"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"},
    result=("semantic",),
    writers=("mask", "overlay", "boundary", "confidence", "json"),
    sheet="segatlas.drawing.sheets:semantic_row",
)
