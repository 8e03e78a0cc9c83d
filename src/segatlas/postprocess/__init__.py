"""Post-processing: a network's output -> the result in the size of the original picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from segatlas.errors import TaskError
from segatlas.ops import class_map, class_map_with_confidence
from segatlas.structures import SemanticLogits

__all__ = ["POSTPROCESSORS", "SemanticMaps", "postprocess"]


class SemanticMaps(NamedTuple):
    """class_map: (N, H, W) uint8 for K <= 255, else int32; confidence: (N, H, W) float32 0..1, if asked for."""

    class_map: Tensor
    confidence: Tensor | None = None


def semantic_maps(
    output: SemanticLogits, size: tuple[int, int], crop: tuple[int, int] | None, confidence: bool
) -> SemanticMaps:
    """Raise to the canvas, cut the padding, resize to the original size and take the best class, in one step."""
    mode, align_corners = output.resample
    logits, canvas = output.logits, output.canvas
    if confidence:
        maps = class_map_with_confidence(logits, size, canvas=canvas, crop=crop, align_corners=align_corners, mode=mode)
        return SemanticMaps(*maps)
    return SemanticMaps(class_map(logits, size, canvas=canvas, crop=crop, align_corners=align_corners, mode=mode))


POSTPROCESSORS: dict[tuple[type, str], Callable[..., Any]] = {
    (SemanticLogits, "semantic"): semantic_maps,
}
"""(output type, task) -> function of (output, size, crop, confidence)."""


def postprocess(
    output: SemanticLogits,
    task: str,
    size: tuple[int, int],
    crop: tuple[int, int] | None = None,
    *,
    confidence: bool = False,
) -> SemanticMaps:
    """Turn an output into the task's result.

    Args:
        output: of the network, for N pictures of one size.
        task: "semantic".
        size: (H, W) of the original pictures.
        crop: (H', W') of the network's input without padding; default: `size`, for pictures that were not resized.
        confidence: also give the probability of each pixel's class.

    Raises:
        TaskError: the output cannot serve the task.
    """
    function = POSTPROCESSORS.get((type(output), task))
    if function is None:
        possible = sorted(known for kind, known in POSTPROCESSORS if kind is type(output))
        raise TaskError(
            f"{type(output).__name__} gives no {task} result; it can give: {', '.join(possible) or 'nothing known'}"
        )
    return function(output, size, crop, confidence)
