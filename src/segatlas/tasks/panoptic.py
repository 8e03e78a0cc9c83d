"""Panoptic segmentation: a segment for each pixel, things told apart, stuff not."""

from segatlas.tasks.task import Task

TASK = Task(
    name="panoptic",
    title="panoptic segmentation",
    target="SegmentsTarget",
    metrics=("panoptic_quality", "average_precision", "confusion"),
    result=("semantic", "instances", "panoptic"),
    writers=("panoptic", "overlay", "json", "mask", "color", "instances", "coco", "labelme", "geojson", "csv"),
    sheet="segatlas.drawing.sheets:panoptic_row",
)
