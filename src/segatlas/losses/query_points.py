"""The loss of queries whose masks are compared at points: Mask2Former's, which OneFormer and EoMT have too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.queries import QueryLoss

if TYPE_CHECKING:
    from segatlas.ops.query_losses import PointTerms


class QueryPoints(QueryLoss):
    """Masks at points (Cheng et al. 2022): binary cross-entropy and Dice.

    Matching reads the same random points of all masks of an image. The loss has points of its own for each mask: of
    `oversample` times as many those where the mask is least sure, and some at random. See `QueryLoss`.
    """

    tiny: ClassVar[dict[str, Any]] = {"points": 64}

    name: Literal["query_points"] = "query_points"
    points: int = Field(12544, ge=1, le=1 << 20, description="points of a mask, for matching and for the loss")
    oversample: float = Field(3.0, ge=1, le=100, description="times as many points are drawn, to choose from")
    important: float = Field(0.75, ge=0, le=1, description="fraction of points where the mask is least sure")

    def mask_terms(self) -> PointTerms:
        """See `QueryLoss`."""
        from segatlas.ops.query_losses import PointTerms

        return PointTerms(points=self.points, oversample=self.oversample, important=self.important)


LOSS = QueryPoints
