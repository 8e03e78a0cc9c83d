"""Teach attention between patches of the image and of a map what the label says of them: the second loss of AFMA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, precise
from segatlas.structures import IGNORE, PatchAttention

if TYPE_CHECKING:
    from torch import Generator, Tensor


class PatchAttentionLoss(Loss):
    """Attention between patches against that of the label: squared differences, their mean over all pairs of patches.

    Sang et al. 2023, https://pmc.ncbi.nlm.nih.gov/articles/PMC10823909: a patch of the image should attend to a patch
    of the map, for a class, by the product of where both have it: of its one-hot label, and of that averaged to the
    map's cells. A pixel without label has no class.
    """

    takes: ClassVar = "attention between patches (PatchAttention), such as aux.attention"
    weighted: ClassVar = False

    name: Literal["patch_attention"] = "patch_attention"
    on: str = Field("aux.attention", pattern=r"^aux\.\w+$", description="the attention")

    def value(
        self, logits: PatchAttention, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`; `align_corners` plays no part."""
        from segatlas.ops.labels import check_labels
        from segatlas.ops.patches import squared_differences

        check_labels(logits.image, labels, canvas, IGNORE)
        has_labels = (labels != IGNORE).flatten(1).any(1)
        if not has_labels.any():
            return (precise(logits.image).sum() + precise(logits.features).sum()) * 0
        attention = logits._replace(
            image=precise(logits.image)[has_labels], features=precise(logits.features)[has_labels]
        )
        size = (labels.shape[-2], labels.shape[-1]) if canvas is None else canvas
        image, features = label_attention(attention, labels[has_labels], size)
        pairs = attention.image.shape[:3].numel() * attention.features.shape[2]
        return squared_differences(attention, image, features) / max(pairs, 1)

    def fits(self, logits: Any) -> bool:
        """Tell whether this is attention between patches."""
        return isinstance(logits, PatchAttention)

    def num_classes(self, logits: PatchAttention) -> int:
        """Return K."""
        return int(logits.image.shape[1])

    def example(self, labels: Tensor, classes: int, draw: Generator) -> PatchAttention:
        """See `Loss`: patches of 2 x 2 at stride 2."""
        import torch

        from segatlas.ops.patches import patch_grid

        side, stride, count = 2, 2, len(labels)
        rows, columns = patch_grid((labels.shape[-2], labels.shape[-1]), side, "pad")
        cells = patch_grid((labels.shape[-2], labels.shape[-1]), stride, "pad")
        grid = patch_grid(cells, side, "pad")
        image, features = (
            torch.rand(count, classes, patches, side**2, generator=draw, dtype=torch.float64)
            for patches in (rows * columns, grid[0] * grid[1])
        )
        return PatchAttention(image, features, side=side, stride=stride, cells=cells, border="pad")


def label_attention(attention: PatchAttention, labels: Tensor, canvas: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the factors of the attention that labels (N, H, W) ask for, as `PatchAttention` has them.

    The labels are the top left part of the canvas.
    """
    from segatlas.ops.patches import class_fractions, to_patches

    classes, dtype = attention.image.shape[1], attention.image.dtype
    pixels = class_fractions(labels, classes, 1, canvas, dtype)
    cells = class_fractions(labels, classes, attention.stride, attention.cells, dtype)
    return to_patches(pixels, attention.side, attention.border), to_patches(cells, attention.side, attention.border)


LOSS = PatchAttentionLoss
