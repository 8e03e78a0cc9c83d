"""Keys of `distill:`: a student learns from the maps of a trained network, its teacher, besides the labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from segatlas.config.plain import LARGEST_SCALE, SMALLEST_SCALE
from segatlas.config.section import Section

LOGITS, DECODED, FEATURES = "logits", "decoded", "features"
"""What a term may be on besides a layer's name: see `DistillTerm.on`."""


class DistillTerm(Section):
    """A line of `distill.terms`: what of both networks is compared, and by how much it counts."""

    on: str = Field(
        LOGITS,
        pattern=r"^\w+(\.\w+)*$",
        description="logits, decoded, features, features.16 or a layer's name; decoded is the map before the "
        "classifier, features are the encoders' maps at every stride that both have, features.16 those at stride 16; "
        "`segatlas explain layers` lists names",
    )
    teacher_on: str | None = Field(
        None,
        pattern=r"^\w+(\.\w+)*$",
        description="decoded, features.16 or a layer's name; the teacher's map, where it is another; default: as on",
    )


class PixelWise(DistillTerm):
    """At each pixel the student's probabilities of classes are to be the teacher's."""

    name: Literal["pixel_wise"] = "pixel_wise"
    weight: float = Field(1.0, gt=0, le=1e6, description="factor of this term in the sum")
    temperature: float = Field(1.0, gt=0, le=1000, description="logits are divided by it; higher is softer")


class ChannelWise(DistillTerm):
    """In each channel the student is to look where the teacher looks: both are made probabilities of positions."""

    name: Literal["channel_wise"] = "channel_wise"
    weight: float = Field(3.0, gt=0, le=1e6, description="factor of this term in the sum; 50 is usual on features")
    temperature: float = Field(4.0, gt=0, le=1000, description="values are divided by it; higher is softer")


class PairWise(DistillTerm):
    """Positions that are alike to the teacher are to be alike to the student, whatever their channels mean."""

    name: Literal["pair_wise"] = "pair_wise"
    weight: float = Field(10.0, gt=0, le=1e6, description="factor of this term in the sum")
    pooling: float = Field(
        0.125, gt=0, le=1, description="sides of the cells that count as one position, as a fraction of the map's"
    )


AnyTerm = Annotated[PixelWise | ChannelWise | PairWise, Field(discriminator="name")]


class DistillConfig(Section):
    """Learn from a teacher besides the labels: a trained network of class maps, which stays as it is."""

    teacher: str = Field(
        description="the trained network: run or model folder, .ckpt, catalogue name, hub id; --teacher"
    )
    terms: tuple[AnyTerm, ...] = Field(
        (ChannelWise(),),
        description="what is learned from it, added to the losses; a name alone stands for that term with its defaults",
    )
    classes: Literal["names", "numbers"] = Field(
        "names",
        description="how the teacher's classes are found: by their names in any order, or by their numbers where its "
        "card does not name them as the dataset does",
    )
    max_value: float | None = Field(
        None,
        ge=SMALLEST_SCALE,
        le=LARGEST_SCALE,
        description="stored value that is full scale to the teacher, where the images are not on its card's scale",
    )
    adapter_lr_factor: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="learning rate, as a fraction of train.lr, of the adapters, which bring the student's maps to the "
        "teacher's number of channels; they are not part of the model",
    )
