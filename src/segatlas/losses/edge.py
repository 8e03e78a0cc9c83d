"""Teach a head where labels change, one channel of thin lines: the boundary loss of PIDNet and SANet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, precise, quotient
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Generator, Tensor

TANGENT_22, TANGENT_67_BITS, BITS = 13573, 16, 15
"""tan 22.5 degrees times 2 to the power of 15, as OpenCV has it; tan 67.5 = tan 22.5 + 2."""


class Edge(Loss):
    """Edges of the label map, for a head of one channel: binary cross-entropy, each kind weighing as the other is many.

    A pixel of an edge weighs as the fraction of all others, any other pixel as the fraction of edges, counted over the
    batch; the mean runs over all pixels (Xie and Tu 2015, https://arxiv.org/abs/1504.06375, as Xu et al. 2023,
    https://arxiv.org/abs/2206.02066, train PIDNet). The target follows from the labels that training sees; authors who
    make it before an image is resized have wider lines in larger images.
    """

    takes: ClassVar = "a map of one channel that draws edges (N, 1, h, w), such as aux.boundary"
    weighted: ClassVar = False

    name: Literal["edge"] = "edge"
    on: str = Field("aux.boundary", pattern=r"^aux\.\w+$", description="the head that draws edges")
    width: int = Field(4, ge=1, le=1000, description="pixels that an edge is wide")
    margin: int = Field(0, ge=0, le=1000, description="pixels at the border of the label map where no edge is seen")
    ignored_as_class: bool = Field(
        False, description="ignored pixels are a class, 255, with edges of its own, and count, as in published code"
    )

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from torch.nn import functional as F

        from segatlas.ops import upsample_logits

        size = (labels.shape[-2], labels.shape[-1])
        upsampled = upsample_logits(precise(logits), size, canvas=canvas, align_corners=align_corners).squeeze(1)
        edge = edge_map(labels, width=self.width, margin=self.margin, ignored_as_class=self.ignored_as_class)
        counted = ((labels != IGNORE) | self.ignored_as_class).to(upsampled)
        target = edge.to(upsampled) * counted
        count, edges = counted.sum(), target.sum()
        weight = quotient(target * (count - edges) + (1 - target) * edges, count) * counted
        each = F.binary_cross_entropy_with_logits(upsampled, target, weight=weight, reduction="sum")
        return quotient(each, count)

    def fits(self, logits: Any) -> bool:
        """Tell whether this is a map of one channel."""
        return super().fits(logits) and logits.shape[1] == 1

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Tensor:
        """See `Loss`."""
        logits: Tensor = super().example(labels, 1, draw)
        return logits


def edge_map(labels: Tensor, *, width: int = 4, margin: int = 0, ignored_as_class: bool = False) -> Tensor:
    """Return the edges of label maps, (N, H, W) bool: those that OpenCV's Canny finds, dilated by a box.

    Args:
        labels: (N, H, W) integer, 0..255.
        width: side of the box; of an even one the pixel has one more above and to the left.
        margin: pixels at the border in which no edge is found; one that is found further in may be dilated into them.
        ignored_as_class: the borders of pixels without label are edges too, and such pixels may be one. If not, an edge
            is where labelled pixels around differ, and only labelled pixels are one.
    """
    import torch
    from torch.nn import functional as F

    edge = canny_of_labels(labels)
    if not ignored_as_class:
        edge &= _labelled_neighbours_differ(labels)
    if margin:
        inner = torch.zeros_like(edge)
        inner[:, margin:-margin, margin:-margin] = edge[:, margin:-margin, margin:-margin]
        edge = inner
    before, after = width // 2, (width - 1) // 2
    padded = F.pad(edge.unsqueeze(1).float(), (before, after, before, after))
    wide = F.max_pool2d(F.max_pool2d(padded, (1, width), stride=1), (width, 1), stride=1).squeeze(1) > 0
    return wide if ignored_as_class else wide & (labels != IGNORE)


def canny_of_labels(labels: Tensor) -> Tensor:
    """Return where `cv2.Canny(label, 0.1, 0.2)` finds an edge, (N, H, W) bool, on the labels' device.

    Its thresholds lie below every difference of whole numbers, so hysteresis keeps all that is largest across its edge.
    """
    import torch
    from torch.nn import functional as F

    values = F.pad(labels.unsqueeze(1).float(), (1, 1, 1, 1), mode="replicate").squeeze(1)
    up, here, down = values[:, :-2], values[:, 1:-1], values[:, 2:]
    rows = up + 2 * here + down
    dx = (rows[..., 2:] - rows[..., :-2]).int()
    change = down - up
    dy = (change[..., :-2] + 2 * change[..., 1:-1] + change[..., 2:]).int()
    size = dx.abs() + dy.abs()
    around = F.pad(size, (1, 1, 1, 1))

    def at(row: int, column: int) -> Tensor:
        """Return the size of the gradient at the neighbour so many rows and columns on; 0 beyond the edge."""
        height, width = size.shape[-2:]
        return around[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    x, y = dx.abs() * TANGENT_22, dy.abs() << BITS
    is_flat, is_steep = y < x, y > x + (dx.abs() << TANGENT_67_BITS)
    across = (size > at(0, -1)) & (size >= at(0, 1))
    along = (size > at(-1, 0)) & (size >= at(1, 0))
    falling = (size > at(-1, -1)) & (size > at(1, 1))
    rising = (size > at(-1, 1)) & (size > at(1, -1))
    diagonal = torch.where((dx ^ dy) < 0, rising, falling)
    return (size > 0) & torch.where(is_flat, across, torch.where(is_steep, along, diagonal))


def _labelled_neighbours_differ(labels: Tensor) -> Tensor:
    """Return where two labelled pixels of the 3 x 3 around differ, (N, H, W) bool."""
    import torch
    from torch.nn import functional as F

    values, labelled = labels.float(), labels != IGNORE
    nothing = values.new_tensor(-torch.inf)
    both = torch.stack([values.where(labelled, nothing), (-values).where(labelled, nothing)], 1)
    largest, smallest = F.max_pool2d(both, 3, stride=1, padding=1).unbind(1)
    return (largest > -smallest) & largest.isfinite()


LOSS = Edge
