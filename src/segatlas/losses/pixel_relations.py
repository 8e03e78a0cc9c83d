"""Teach from pairs of labelled pixels where borders of classes lie and how far objects' middles are: IRNet's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from segatlas.losses.background import BackgroundClass, background_index, settled_background
from segatlas.losses.loss import Canvas, Loss, precise, quotient
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Generator, Tensor

SMALL = 1e-5
"""Added to what a logarithm is taken of."""
CHANNELS = 3
"""Of the map: logits of borders, displacements down and right."""


class PixelRelations(Loss):
    """Pairs of pixels less than `radius` cells apart, both labelled (Ahn et al. 2019, section 3.2).

    The affinity of two pixels is 1 - the largest probability of a border on the straight way between them. It costs
    -log a where both have one class, half of it each for pairs of the background and of other classes, and
    -log (1 - a) where they have two. Within a class the difference of the two displacements should be the step from one
    pixel to the other, within the background 0: absolute differences. Each is a mean over its pairs; the loss is half
    of their sum. Labels are those in the middle of the map's cells. A pixel without label is in no pair, but a border
    may lie there: on the way between two that have one.
    """

    takes: ClassVar = "a map of borders and displacements (N, 3, h, w), such as aux.relations"
    weighted: ClassVar = False
    tiny: ClassVar = {"radius": 3}

    name: Literal["pixel_relations"] = "pixel_relations"
    on: str = Field("aux.relations", pattern=r"^aux\.\w+$", description="the map of borders and displacements")
    radius: int = Field(10, ge=2, le=64, description="cells that pairs are less apart")
    background: BackgroundClass | None = Field(
        "named",
        description="the class of everything else, which has no objects; named: the one that is called background, "
        "ground, other or the like, if any; null: there is none",
    )

    def for_classes(self, names: Sequence[str], background: int | None) -> Self:
        """See `Loss`."""
        settled = settled_background(self.name, self.background, names, background)
        return self.model_copy(update={"background": settled})

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`; `align_corners` plays no part."""
        from segatlas.ops.spreading import half_disc, path_affinity

        relations = precise(logits)
        size = (relations.shape[-2], relations.shape[-1])
        cells = labels_of_cells(labels, canvas, size)
        edges, displacement = relations[:, 0].sigmoid(), relations[:, 1:]
        background = background_index(self.background)
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for step in half_disc(self.radius):
            if step[0] >= size[0] or abs(step[1]) >= size[1]:
                continue
            here, there = _ends(cells, step)
            known, alike = (here != IGNORE) & (there != IGNORE), here == there
            empty = here == background if background is not None else alike & False
            affinity = path_affinity(edges, step)
            first, second = _ends(displacement, step)
            moved = first - second
            off = moved - moved.new_tensor(step).view(1, 2, 1, 1)
            for name, where, cost in (
                ("same", known & alike & ~empty, -(affinity + SMALL).log()),
                ("same background", known & alike & empty, -(affinity + SMALL).log()),
                ("other", known & ~alike, -(1 + SMALL - affinity).log()),
                ("displaced", known & alike & ~empty, off.abs().sum(dim=1) / 2),
                ("displaced background", known & alike & empty, moved.abs().sum(dim=1) / 2),
            ):
                sums[name] = sums.get(name, 0) + (cost * where).sum()
                counts[name] = counts.get(name, 0) + where.sum()
        mean = {name: quotient(value, counts[name].to(value)) for name, value in sums.items()}
        if not mean:  # one cell
            return relations.sum() * 0
        same = (mean["same"] + mean["same background"]) / 2
        return (same + mean["other"] + mean["displaced"] + mean["displaced background"]) / 2

    def fits(self, logits: Any) -> bool:
        """Tell whether this is a map of three channels."""
        return super().fits(logits) and logits.shape[1] == CHANNELS

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Tensor:
        """See `Loss`."""
        relations: Tensor = super().example(labels, CHANNELS, draw)
        return relations


def labels_of_cells(labels: Tensor, canvas: Canvas, size: tuple[int, int]) -> Tensor:
    """Return the labels (N, h, w) in the middle of a map's cells; 255 where the canvas goes beyond the label map.

    labels: (N, H, W), the top left part of the canvas. canvas: (H', W') pixels of the map, None = those of the labels.
    """
    import torch

    height, width = labels.shape[-2:]
    whole = (height, width) if canvas is None else canvas
    rows, columns = (
        ((torch.arange(cells, device=labels.device) + 0.5) * (side / cells)).long()
        for cells, side in zip(size, whole, strict=True)
    )
    inside = (rows < height)[:, None] & (columns < width)
    found = labels[:, rows.clamp(max=height - 1)][:, :, columns.clamp(max=width - 1)].long()
    return found.masked_fill(~inside, IGNORE)


def _ends(maps: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the values (..., h', w') at the first pixel of each pair a step apart, and those at the second."""
    height, width = maps.shape[-2:]
    left, right = max(0, -step[1]), max(0, step[1])
    here = maps[..., : height - step[0], left : width - right]
    there = maps[..., step[0] :, left + step[1] : width - right + step[1]]
    return here, there


LOSS = PixelRelations
