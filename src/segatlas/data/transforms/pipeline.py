"""From a sample as stored to arrays as the network takes them: one pipeline for training, one for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from segatlas.data.sample import Sample, Source
from segatlas.data.transforms.color import GaussianBlur, Photometric, normalise
from segatlas.data.transforms.geometry import (
    AspectJitter,
    Crop,
    Flip,
    FlipVertical,
    Geometry,
    Placement,
    Resize,
    Rotation,
    ScaleJitter,
    Step,
    Turns,
    resized_size,
)
from segatlas.data.transforms.warp import fill_outside, resize_image, warp_image, warp_label
from segatlas.errors import DataError, UsageError

if TYPE_CHECKING:
    from segatlas.config.transforms import TransformsConfig

IGNORE = 255
"""`segatlas.structures.IGNORE`, repeated so that transforms load no torch; a test compares the two."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSample:
    """A sample ready to be collated.

    image: (H, W, C) float32, contiguous, normalised; padding is exactly 0.
    label: (h, w) uint8, 0..K-1 or 255; the image's size in training, the stored size in evaluation; padding is 255.
    key: the sample's name.
    sources: further arrays in the image's size, in stored values; image kind is padded with 0, label kind with 255.
    """

    image: np.ndarray
    label: np.ndarray
    key: str
    sources: dict[str, Source] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Training: geometry (one warp), blur, colour and normalisation (one matrix), padding.

    The blur comes before the colour change, which commutes with it up to rounding, because it is cheaper on stored
    values. mean, std: per channel, of values / max_value.
    """

    geometry: Geometry
    photometric: Photometric | None = None
    blur: GaussianBlur | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_value: float = 255.0

    @classmethod
    def from_config(
        cls,
        transforms: TransformsConfig,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        max_value: float,
        channels: int,
    ) -> Pipeline:
        """Build the pipeline that a recipe's `transforms:` asks for.

        Raises:
            UsageError: mean or std do not have one entry for each of the `channels` channels.
        """
        _check_channels(mean, std, channels)
        return cls(
            geometry=geometry_of(transforms),
            photometric=Photometric(**dict(transforms.photometric)) if transforms.photometric else None,
            blur=GaussianBlur(**dict(transforms.blur)) if transforms.blur else None,
            mean=tuple(mean),
            std=tuple(std),
            max_value=max_value,
        )

    def __call__(self, sample: Sample, generator: np.random.Generator) -> PreparedSample:
        """Draw all random values for `sample` from `generator` and apply them.

        A sample without truth gets a label of 255 throughout.

        Raises:
            DataError: the image's channels, or the size of its label or a source, do not fit.
        """
        check_sample(sample, len(self.mean))
        size = _size(sample.image)
        placement = self.geometry.draw(generator, size, sample.label)
        sigma = self.blur.draw(generator, placement.size) if self.blur else None
        change = self.photometric.draw(generator, placement.size) if self.photometric else None

        image = warp_image(sample.image, placement)
        if sigma is not None:
            image = GaussianBlur.apply(image, sigma)
        image = normalise(image, self.mean, self.std, self.max_value, change)
        fill_outside(image, placement, size, 0)
        if sample.label is None:
            label = np.full(placement.size, IGNORE, np.uint8)
        else:
            label = warp_label(sample.label, placement, IGNORE)
        sources = {name: _warp_source(source, placement) for name, source in sample.sources.items()}
        return PreparedSample(image=image, label=label, key=sample.key, sources=sources)


@dataclass(frozen=True, kw_only=True)
class EvalPipeline:
    """Evaluation: resize as the card says, normalise; the label keeps its stored size.

    resize: None = the image's own size, or "short:N", "long:N", "HxW".
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_value: float = 255.0
    resize: str | None = None

    def __call__(self, sample: Sample, generator: np.random.Generator | None = None) -> PreparedSample:
        """Prepare `sample`; nothing is drawn, `generator` is there so that both pipelines are called alike.

        Raises:
            DataError: the image's channels, or the size of its label or a source, do not fit.
        """
        check_sample(sample, len(self.mean))
        size = _size(sample.image)
        target = size if self.resize is None else resized_size(self.resize, size)
        image = normalise(resize_image(sample.image, target), self.mean, self.std, self.max_value)
        label = np.full(size, IGNORE, np.uint8) if sample.label is None else np.array(sample.label)
        placement = Resize(target=f"{target[0]}x{target[1]}").draw(np.random.default_rng(0), size)
        sources = {name: _warp_source(source, placement) for name, source in sample.sources.items()}
        return PreparedSample(image=image, label=label, key=sample.key, sources=sources)


def geometry_of(transforms: TransformsConfig) -> Geometry:
    """Return the geometric steps of a recipe, in the order that `TransformsConfig` states.

    Quarter turns come before the crop, so that the crop's size is the sample's size.
    """
    before: list[Step] = []
    if transforms.resize is not None:
        before.append(Resize(target=transforms.resize))
    if transforms.scale is not None:
        before.append(ScaleJitter(low=transforms.scale[0], high=transforms.scale[1]))
    if transforms.aspect > 0:
        before.append(AspectJitter(amount=transforms.aspect))
    if transforms.rotation > 0:
        before.append(Rotation(degrees=transforms.rotation))
    if transforms.turns:
        before.append(Turns())
    crop = None
    if transforms.crop is not None:
        crop = Crop(size=transforms.crop, class_balance=transforms.class_balance)
    after: list[Step] = []
    if transforms.flip > 0:
        after.append(Flip(probability=transforms.flip))
    if transforms.flip_vertical > 0:
        after.append(FlipVertical(probability=transforms.flip_vertical))
    return Geometry(before=tuple(before), crop=crop, after=tuple(after))


def check_sample(sample: Sample, channels: int) -> None:
    """Raise DataError unless the image has `channels` channels and its label and sources lie on the same pixels."""
    size = _size(sample.image)
    if sample.image.ndim != 3 or sample.image.shape[2] != channels:
        raise DataError(f"image of shape {sample.image.shape}, expected (height, width, {channels})", sample.key)
    if sample.label is not None and sample.label.shape != size:
        raise DataError(f"label of shape {sample.label.shape} for an image of {size}", sample.key)
    for name, source in sample.sources.items():
        if _size(source.array) != size:
            raise DataError(f"source {name} of shape {source.array.shape} for an image of {size}", sample.key)


def _check_channels(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UsageError(
                f"model.input.{name}: got {len(values)} values, expected {channels}, one for each channel of the images"
            )


def _size(array: np.ndarray) -> tuple[int, int]:
    return array.shape[0], array.shape[1]


def _warp_source(source: Source, placement: Placement) -> Source:
    if source.kind == "label":
        return replace(source, array=warp_label(source.array, placement, IGNORE))
    array = warp_image(np.atleast_3d(source.array), placement)
    fill_outside(array, placement, _size(source.array), 0)
    return replace(source, array=array)
