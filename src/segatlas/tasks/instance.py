"""Instance segmentation: a mask, a class and a score for each object."""

from segatlas.tasks.task import Task

TASK = Task(
    name="instance",
    title="instance segmentation",
    target="InstancesTarget",
    metrics=("instance_f1", "average_precision"),
    result=("instances",),
    writers=("instances", "overlay", "json", "coco", "labelme", "geojson", "csv"),
    sheet="segatlas.drawing.sheets:instance_row",
)
