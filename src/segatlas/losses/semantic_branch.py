"""The loss of the semantic branch of networks that also find objects: stuff, and one class for all things.

Letters: N batch, S semantic classes, H W image, h w network output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segatlas.losses.loss import Canvas, Loss
from segatlas.structures import DetectedMasks, SegmentsTarget

if TYPE_CHECKING:
    from torch import Generator, Tensor


class SemanticBranch(Loss):
    """Mean cross-entropy of the semantic logits over the pixels that are neither ignored nor in a crowd.

    In place of logits and labels it takes the network's whole output and the truths; what each pixel should be lies in
    `raw`, as the network numbers it.
    """

    output: ClassVar = "DetectedMasks"
    takes: ClassVar = "what a network with a semantic branch gives while training (DetectedMasks)"
    weighted: ClassVar = False

    name: Literal["semantic_branch"] = "semantic_branch"

    def value(
        self,
        logits: DetectedMasks,
        labels: Sequence[SegmentsTarget],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsampled_cross_entropy

        assert logits.semantic is not None
        return upsampled_cross_entropy(logits.semantic, logits.raw["semantic_labels"], canvas=logits.canvas)

    def given(self, output: DetectedMasks) -> DetectedMasks:
        """Return the whole output."""
        return output

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output."""
        return isinstance(logits, DetectedMasks) and logits.semantic is not None and "semantic_labels" in logits.raw

    def example(self, labels: Tensor, classes: int, draw: Generator) -> DetectedMasks:
        """See `Loss`."""
        import torch

        size = (labels.shape[-2], labels.shape[-1])
        semantic = torch.randn(len(labels), classes, *size, generator=draw, dtype=torch.float64)
        raw = {"semantic_labels": labels}
        return DetectedMasks((), (), (), (), canvas=size, semantic=semantic, raw=raw)


LOSS = SemanticBranch
