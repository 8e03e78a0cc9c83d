"""The loss of queries whose masks are compared pixel by pixel: MaskFormer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.queries import QueryLoss

if TYPE_CHECKING:
    from segatlas.ops.query_losses import WholeTerms


class QueryMaps(QueryLoss):
    """Whole masks (Cheng et al. 2021): focal loss and Dice.

    Matching reads the truth at the network's stride, the loss the mask at the canvas's size. See `QueryLoss`.
    """

    name: Literal["query_maps"] = "query_maps"
    class_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the classes of queries, and of their cost")
    mask_weight: float = Field(20.0, ge=0, le=1e6, description="factor of the focal loss, and of its cost")
    dice_weight: float = Field(1.0, ge=0, le=1e6, description="factor of Dice, and of its cost")
    alpha: float = Field(0.25, ge=0, le=1, description="weight of pixels inside an object; 1 - alpha outside")
    gamma: float = Field(2.0, ge=0, le=100, description="how much what is known well is weighted down; 0 = not at all")

    def mask_terms(self) -> WholeTerms:
        """See `QueryLoss`."""
        from segatlas.ops.query_losses import WholeTerms

        return WholeTerms(alpha=self.alpha, gamma=self.gamma)


LOSS = QueryMaps
