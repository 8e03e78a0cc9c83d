"""What losses share that read more than logits and labels: the check of what they are given, an example, the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from segatlas.losses.loss import Canvas, Loss, precise
from segatlas.structures import Surroundings, WithSurroundings

if TYPE_CHECKING:
    from torch import Generator, Tensor


class LossAround(Loss):
    """A loss on a map of logits that reads what stands around them. Its `value` is given `WithSurroundings`."""

    takes: ClassVar[str] = "a map of logits (N, K, h, w) with the image and what is known of its classes"
    reads_around: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def fits(self, logits: Any) -> bool:
        """Tell whether this is a map of logits with what stands around it."""
        return isinstance(logits, WithSurroundings) and getattr(logits.part, "ndim", 0) == 4

    def num_classes(self, logits: Any) -> int:
        """Return K of the map."""
        return int(logits.part.shape[1])

    def example(self, labels: Tensor, classes: int, draw: Generator) -> WithSurroundings:
        """See `Loss`."""
        logits = super().example(labels, classes, draw)
        return WithSurroundings(logits, example_surroundings(labels, classes, draw))


def example_surroundings(labels: Tensor, classes: int, draw: Generator) -> Surroundings:
    """Return a random image for labels (N, H, W), with the first two classes annotated and present."""
    import torch

    count, height, width = labels.shape
    flags = torch.arange(classes).expand(count, -1) < 2
    return Surroundings(
        image=torch.randn(count, 3, height, width, generator=draw, dtype=torch.float64),
        valid=torch.ones(count, height, width, dtype=torch.bool),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        annotated=flags,
        present=flags,
    )


def pooled_image(image: Tensor, valid: Tensor, canvas: Canvas, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return an image on a map over its canvas: means of its valid pixels (N, C, h, w), and where most are valid.

    Args:
        image: (N, C, H, W).
        valid: (N, H, W) bool.
        canvas: (H', W') pixels that the map covers, the image is its top left part; None = the image.
        size: (h, w) of the map.
    """
    from torch.nn import functional as F

    height, width = image.shape[-2:]
    down, right = (0, 0) if canvas is None else (canvas[0] - height, canvas[1] - width)
    weight = F.pad(valid[:, None].to(image), (0, right, 0, down))
    sums = F.adaptive_avg_pool2d(F.pad(image, (0, right, 0, down)) * weight, size)
    fraction = F.adaptive_avg_pool2d(weight, size)
    return sums / fraction.clamp(min=1e-6), fraction[:, 0] >= 0.5


def pooled_probabilities(logits: Tensor, canvas: tuple[int, int], stride: int) -> Tensor:
    """Return the softmax of logits (N, K, h, w), averaged over areas where the map is finer than `stride` pixels."""
    from torch.nn import functional as F

    probabilities = precise(logits).softmax(dim=1)
    size = map_size(logits, canvas, stride)
    if size == tuple(logits.shape[-2:]):
        return probabilities
    return F.adaptive_avg_pool2d(probabilities, size)


def map_size(logits: Tensor, canvas: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return (h, w) of a map of logits, made so small that its pixels have at least `stride` pixels of the canvas."""
    height, width = logits.shape[-2:]
    return min(height, max(1, -(-canvas[0] // stride))), min(width, max(1, -(-canvas[1] // stride)))
