"""The table of tasks. Holds no torch: one line here and one file beside it make a task."""

from segatlas.tasks import instance, panoptic, semantic
from segatlas.tasks.task import Task

__all__ = ["TASKS", "TRUTHS", "Task"]

TASKS: dict[str, Task] = {task.name: task for task in (semantic.TASK, instance.TASK, panoptic.TASK)}
"""Name in a recipe's `task:` -> its record."""

TRUTHS = {"SemanticTarget": "labels", "SegmentsTarget": "segment ids", "InstancesTarget": "masks of objects"}
"""Type of truth -> what people call it."""
