"""Training-time transforms of a recipe. Each maps to one record in `segatlas.data.transforms`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from segatlas.config.section import Section

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
Factor = Annotated[float, Field(gt=0, le=100)]
Side = Annotated[int, Field(gt=0, le=32768)]
Size = tuple[Side, Side]
RESIZE = r"^((short|long):[1-9]\d{0,4}|(fit:)?[1-9]\d{0,4}x[1-9]\d{0,4})$"


class PhotometricConfig(Section):
    """Random brightness, contrast, saturation and hue."""

    kind: Literal["linear", "steps"] = Field(
        "linear",
        description="linear: one change of all four, in one matrix. steps: MMSegmentation's, each of the four drawn by "
        "itself, one after another, saturation and hue in HSV, cut to the image's values after each",
    )
    probability: Probability = Field(0.8, description="fraction of samples that get it; with steps, that get each one")
    brightness: Annotated[float, Field(ge=0, lt=1)] = Field(0.125, description="shift, as a fraction of max_value")
    contrast: Range = Field((0.5, 1.5), description="factor, drawn between these")
    saturation: Range = Field((0.5, 1.5), description="factor, drawn between these; images of 3 channels only")
    hue: float = Field(18.0, ge=0, le=180, description="degrees each way")


class BlurConfig(Section):
    """Random Gaussian blur."""

    probability: Probability = Field(0.2, description="fraction of samples that get it")
    sigma: Range = Field((0.1, 1.5), description="radius in pixels, drawn between these")


class CopyPasteConfig(Section):
    """Objects of a second training image are pasted over a sample; only for truths of objects or segments."""

    probability: Probability = Field(0.5, description="fraction of samples that get objects of another image")
    objects: Probability = Field(0.5, description="fraction of that image's objects, each drawn by itself")


class SourceJitterConfig(Section):
    """One further input is moved by itself, before it moves with its image; the truth stays where it is."""

    probability: Probability = Field(1.0, description="fraction of samples that get it")
    scale: tuple[Factor, Factor] = Field((1.0, 1.0), description="factor about the centre, drawn between these")
    rotation: float = Field(0.0, ge=0, le=180, description="degrees each way, about the centre")
    shift: Probability = Field(0.0, description="fraction of height and width, each way")
    bend: float = Field(
        0.0,
        ge=0,
        le=1,
        description="thin-plate spline: standard deviation of its 4 x 4 control points, as a fraction of half a side",
    )


class BoundaryLabelsConfig(Section):
    """Only pixels near another class keep their label; the rest is ignored in training, validation sees all labels."""

    width: int = Field(2, ge=1, le=1000, description="pixels on each side of a boundary that keep their class")


class ThinPlateConfig(Section):
    """Random smooth bending: a thin-plate spline through a lattice of points, each moved a little."""

    probability: Probability = Field(0.5, description="fraction of samples that are bent")
    sigma: float = Field(
        0.05, gt=0, le=0.5, description="deviation of each point's move along x and y, as a fraction of half that side"
    )
    points: int = Field(4, ge=2, le=16, description="points of the lattice along each side")


class TransformsConfig(Section):
    """How a training sample is made: resize, jitter, rotation, bending, crop, flip, photometric, blur, normalise."""

    resize: str | None = Field(
        None, pattern=RESIZE, description="short:N, long:N, fit:SHORTxLONG or HxW; done before all else"
    )
    scale: Literal["auto"] | Range | None = Field(
        None,
        description="scale jitter, drawn between these factors as scale_draw says; auto: as much as what the masks "
        "show bears, by its thickness; the run's config.yaml holds the factors",
    )
    scale_draw: Literal["log", "uniform"] = Field("log", description="scale jitter is drawn log-uniformly or uniformly")
    aspect: float = Field(0.0, ge=0, lt=1, description="aspect jitter: log-uniform within 1/(1+a)..1+a")
    rotation: float = Field(0.0, ge=0, le=180, description="degrees each way")
    tps: ThinPlateConfig | None = None
    crop: Literal["auto"] | Size | None = Field(
        None,
        description="(h, w) of a training sample; default: no crop; auto: the median image of train, no side above "
        "512; the run's config.yaml holds the numbers",
    )
    class_balance: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="redraw the crop (up to 10 times) while one class covers more than this fraction"
    )
    crop_padding: Literal["around", "end"] = Field(
        "around",
        description="where an image smaller than the crop is padded: around it, or right and below",
    )
    flip: Probability = Field(0.5, description="fraction of samples flipped left-right")
    flip_vertical: Probability = Field(0.0, description="fraction of samples flipped upside down")
    turns: bool = Field(False, description="random quarter turns, for images without an up")
    photometric: PhotometricConfig | None = None
    blur: BlurConfig | None = None
    copy_paste: CopyPasteConfig | None = None
    boundary_labels: BoundaryLabelsConfig | None = None
    source_jitter: dict[str, SourceJitterConfig] = Field(
        {}, description="by name, further inputs that are moved on purpose, besides moving as the image does"
    )

    @property
    def crop_size(self) -> Size | None:
        """(h, w) of a training sample, None: that of its image, as long as nobody has looked at the data too."""
        return None if isinstance(self.crop, str) else self.crop

    @property
    def scale_range(self) -> Range | None:
        """Smallest and largest factor of the scale jitter, None: there is none, or nobody has looked at the data."""
        return None if isinstance(self.scale, str) else self.scale
