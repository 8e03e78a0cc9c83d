"""Losses: one file a loss, its keys in a recipe included. Importing them loads no torch.

One name here and one file beside it make a loss: a class of `Loss` with its keys, `value`, and what it says of itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field

from segatlas.losses.loss import Loss
from segatlas.renamed import old_names

NAMES = (
    "cross_entropy",
    "ohem",
    "dice",
    "cross_entropy_dice",
    "focal",
    "tversky",
    "lovasz",
    "boundary",
    "class_boundary",
    "detail",
    "edge",
    "edge_ohem",
    "class_presence",
    "keypoint_equivariance",
    "bending",
    "patch_attention",
    "point_cross_entropy",
    "centers_offsets",
    "hard_pixels",
    "center_mse",
    "offset_l1",
    "two_stage",
    "semantic_branch",
    "mask_points",
    "dynamic_masks",
    "query_points",
    "query_maps",
    "marginal_cross_entropy",
    "gated_crf",
    "image_labels",
    "pixel_relations",
    "box_regions",
    "box_masks",
    "query_boxes",
)
"""Each is a file of this folder. The first for an output type is its default."""

LOSSES: dict[str, type[Loss]] = {name: import_module(f"{__name__}.{name}").LOSS for name in NAMES}
"""Name in a recipe -> loss."""

if TYPE_CHECKING:
    AnyLoss = Loss
else:
    AnyLoss = Annotated[Union[tuple(LOSSES.values())], Field(discriminator="name")]  # noqa: UP007


def losses_for(output: str) -> dict[str, type[Loss]]:
    """Return name -> loss for an output type of `segatlas.structures`; the first is the default."""
    return {name: loss for name, loss in LOSSES.items() if loss.output == output}


def __getattr__(name: str) -> Any:
    """Give a loss under the name of its class."""
    for loss in LOSSES.values():
        if loss.__name__ == name:
            return loss
    return _old_name(name)


_old_name = old_names("segatlas.losses")

__all__ = ["LOSSES", "AnyLoss", "Loss", "losses_for"]
