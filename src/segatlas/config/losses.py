"""What all loss terms of a recipe share. The losses themselves, each with its own keys, are in `segatlas.losses`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from segatlas.config.section import Section
from segatlas.renamed import old_names


class LossConfig(Section):
    """A line of `losses:`. Keys beyond these are the loss's own (`segatlas config schema` lists them)."""

    model_config = ConfigDict(extra="allow")

    name: str
    weight: float = Field(1.0, gt=0, le=1e6, description="factor of this term in the sum")
    on: str = Field("logits", pattern=r"^(logits|aux\.\w+)$", description="'logits' or 'aux.NAME'")
    align_corners: bool | None = Field(
        None, description="how what the term is on is upsampled; default: as the network's output"
    )
    class_weights: tuple[float, ...] | Literal["auto", "median_frequency"] | None = Field(
        None,
        description="one per class; or from the training masks: 'auto' (see `segatlas data stats`), or "
        "'median_frequency': the median of the classes' frequencies by that of the class, each counted over the images "
        "that show it",
    )


__getattr__ = old_names("segatlas.config.losses")
