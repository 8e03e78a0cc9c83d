"""Writers: what a result looks like as a file, one function a kind. The table loads no torch.

A task's record names the kinds that suit its results (`Task.writers`); some kinds exist for several tasks, and each has
its own function in the file of its task.
"""

from segatlas.output.kinds import MOVING, all_kinds, draw, ending_of, kinds_of, record, tasks_with_writers, write
from segatlas.output.saving import FolderOfResults, result_names, result_record, save_result

__all__ = [
    "MOVING",
    "FolderOfResults",
    "all_kinds",
    "draw",
    "ending_of",
    "kinds_of",
    "record",
    "result_names",
    "result_record",
    "save_result",
    "tasks_with_writers",
    "write",
]
