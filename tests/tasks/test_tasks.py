"""The table of tasks."""

from __future__ import annotations

from segatlas import structures
from segatlas.tasks import TASKS


def test_a_task_is_found_under_its_own_name():
    assert all(task.name == name for name, task in TASKS.items())


def test_a_task_names_a_target_and_parts_of_a_result():
    for task in TASKS.values():
        assert hasattr(structures, task.target)
        assert set(task.result) <= {"semantic", "instances", "panoptic"}
        assert task.result
