"""Cross-entropy over hard pixels near edges alone, as a head of edges sees them."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.errors import UsageError
from segatlas.losses.loss import Canvas, Loss, precise
from segatlas.losses.ohem import Ohem
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Generator, Tensor


class EdgeOhem(Ohem):
    """`ohem` of the network's own logits over the pixels where a head of edges is sure that there is one.

    The boundary-awareness loss of PIDNet (Xu et al. 2023, https://arxiv.org/abs/2206.02066). The head learns nothing
    from it.
    """

    takes: ClassVar = "a map (N, K + 1, h, w): logits of classes, and last those of a head of edges"

    name: Literal["edge_ohem"] = "edge_ohem"  # type: ignore[assignment]
    on: str = Field("aux.boundary", pattern=r"^aux\.\w+$", description="the head that draws edges")
    above: float = Field(0.8, ge=0, lt=1, description="pixels count where its probability of an edge is larger")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsample_logits

        classes, edges = logits[:, :-1], logits[:, -1:].detach()
        size = (labels.shape[-2], labels.shape[-1])
        edge = upsample_logits(precise(edges), size, canvas=canvas, align_corners=align_corners).squeeze(1)
        least = log(self.above / (1 - self.above)) if self.above > 0 else float("-inf")
        near = labels.masked_fill(edge <= least, IGNORE)
        return super().value(classes, near, canvas, align_corners, class_weights)

    def given(self, output: Any) -> Any:
        """Return the network's logits with those of the head behind them.

        Raises:
            UsageError: there is no such head, or it has another size or several channels.
        """
        import torch

        edges = super().given(output)
        if getattr(edges, "ndim", 0) != 4 or edges.shape[1] != 1 or edges.shape[-2:] != output.logits.shape[-2:]:
            raise UsageError(
                f"loss {self.name} is on {self.on!r}; it takes a head of one channel at the size of the logits, "
                f"{tuple(output.logits.shape[-2:])}"
            )
        return torch.cat([output.logits, edges.to(output.logits)], dim=1)

    def fits(self, logits: Any) -> bool:
        """Tell whether this is a map of at least one class and of edges."""
        return Loss.fits(self, logits) and logits.shape[1] > 1

    def num_classes(self, logits: Tensor) -> int:
        """Return K."""
        return int(logits.shape[1]) - 1

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Tensor:
        """See `Loss`."""
        logits: Tensor = super().example(labels, classes + 1, draw)
        return logits


LOSS = EdgeOhem
