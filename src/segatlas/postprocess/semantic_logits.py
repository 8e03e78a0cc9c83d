"""From semantic logits to class maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from segatlas.config.objects import ObjectRule
from segatlas.ops import class_map, class_map_with_confidence
from segatlas.structures import Result, SemanticLogits


def semantic(
    output: SemanticLogits,
    size: tuple[int, int],
    *,
    crop: tuple[int, int],
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return the class map of each image at `size`, see `postprocess.Postprocess`; confidence: of the chosen class."""
    mode, align_corners = output.resample
    if confidence:
        labels, sure = class_map_with_confidence(
            output.logits, size, canvas=output.canvas, crop=crop, align_corners=align_corners, mode=mode
        )
        return semantic_results(labels, sure)
    labels = class_map(output.logits, size, canvas=output.canvas, crop=crop, align_corners=align_corners, mode=mode)
    return semantic_results(labels)


def semantic_results(labels: Tensor, confidence: Tensor | None = None) -> list[Result]:
    """Return a result for each of the class maps (N, H, W), with the confidences (N, H, W) where they are given."""
    sure = [None] * len(labels) if confidence is None else list(confidence.cpu().numpy())
    return [Result(class_map=one, confidence=p) for one, p in zip(labels.cpu().numpy(), sure, strict=True)]
