"""From a network's output to results in the image's own size: one file for each type of output, a function a task.

The table holds no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from segatlas.errors import TaskError

if TYPE_CHECKING:
    from segatlas.config.objects import ObjectRule
    from segatlas.structures import Result

POSTPROCESS: dict[tuple[str, str], str] = {
    ("SemanticLogits", "semantic"): "segatlas.postprocess.semantic_logits:semantic",
    ("CentersAndOffsets", "instance"): "segatlas.postprocess.centers_offsets:instance",
    ("CentersAndOffsets", "panoptic"): "segatlas.postprocess.centers_offsets:panoptic",
    ("CentersAndOffsets", "semantic"): "segatlas.postprocess.centers_offsets:semantic",
    ("DetectedMasks", "instance"): "segatlas.postprocess.detected_masks:instance",
    ("DetectedMasks", "semantic"): "segatlas.postprocess.detected_masks:semantic",
    ("DetectedMasks", "panoptic"): "segatlas.postprocess.detected_masks:panoptic",
    ("QueryMasks", "semantic"): "segatlas.postprocess.query_masks:semantic",
    ("QueryMasks", "instance"): "segatlas.postprocess.query_masks:instance",
    ("QueryMasks", "panoptic"): "segatlas.postprocess.query_masks:panoptic",
}
"""(name of an output type of `segatlas.structures`, task) -> "module:function", a `Postprocess`."""


class Postprocess(Protocol):
    """What the functions of the table are."""

    def __call__(
        self,
        output: Any,
        size: tuple[int, int],
        *,
        crop: tuple[int, int],
        confidence: bool = False,
        rule: ObjectRule | None = None,
        things: Sequence[bool] = (),
    ) -> list[Result]:
        """Return a result for each image of a batch.

        Args:
            output: a network's output in eval mode, float32, for N images of one size.
            size: (H, W) of the results.
            crop: (H', W') of the canvas that is image: the top left part; the rest is padding.
            confidence: also give what the task calls confidence.
            rule: how objects and segments are made; None = the defaults. Class maps of logits have no use for it.
            things: of each class, whether it is one of things; () = not known.
        """
        ...


def find(output: str, task: str) -> Postprocess:
    """Return the function that turns outputs of a type into results of a task.

    Raises:
        TaskError: there is none.
    """
    place = POSTPROCESS.get((output, task))
    if place is None:
        able = [known for given, known in POSTPROCESS if given == output]
        can = f"it can give: {', '.join(able)}" if able else "nothing can be made of it"
        raise TaskError(f"a network that gives {output} has no results for task {task}; {can}")
    module, _, name = place.partition(":")
    function: Postprocess = getattr(import_module(module), name)
    return function


__all__ = ["POSTPROCESS", "Postprocess", "find"]
