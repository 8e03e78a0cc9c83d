"""From a sample as stored to arrays as the network takes them: one pipeline for training, one for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segatlas.data.sample import Sample, Source
from segatlas.data.transforms.boundary_labels import BoundaryLabels, boundary_labels_of
from segatlas.data.transforms.color import (
    ColorChange,
    ColorSteps,
    GaussianBlur,
    Photometric,
    PhotometricSteps,
    normalise,
)
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
    Size,
    Step,
    Turns,
)
from segatlas.data.transforms.source_jitter import SourceJitter
from segatlas.data.transforms.targets import size_of_target, warp_target
from segatlas.data.transforms.thin_plate import ThinPlateWarp
from segatlas.data.transforms.warp import beyond_source, fill_outside, warp_image, warp_label
from segatlas.errors import DataError, UsageError
from segatlas.structures import IGNORE, InputSpec, SemanticTarget, Target

if TYPE_CHECKING:
    from segatlas.config.transforms import TransformsConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSample:
    """A sample ready to be collated.

    image: (H, W, C) float32, contiguous, normalised; padding is exactly 0.
    target: the truth, of the image's size in training, of the stored size in evaluation; padding is "ignore". A sample
        without truth has labels of 255 throughout.
    key: the sample's name.
    sources: those that the pipeline was asked for, in the image's size: (H, W, C) float32, or (H, W) uint8 codes.
    present: by name, for sources that may be missing.
    padding: (H, W) bool, beyond the image; None = nothing is.
    """

    image: np.ndarray
    target: Target
    key: str
    sources: Mapping[str, np.ndarray] = field(default_factory=dict)
    present: Mapping[str, bool] = field(default_factory=dict)
    padding: np.ndarray | None = None

    @property
    def label(self) -> np.ndarray:
        """(H, W) uint8, 0..K-1 or 255. TypeError where the truth is of another type."""
        if not isinstance(self.target, SemanticTarget):
            raise TypeError(f"the truth is a {type(self.target).__name__}, it has no labels")
        return np.asarray(self.target.labels)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Training: geometry (one warp), blur, colour and normalisation (one matrix), padding.

    The blur comes before the colour change, which commutes with it up to rounding, because it is cheaper on stored
    values. mean, std: per channel, of values / max_value. sources: what the network takes besides the image; others of
    a sample are left out. All move by one placement, and sources of kind "image" change colour as the image does.
    boundary_labels: what is done to labels once they lie in their place. jitter: sources that are moved by themselves
    first. An optional source of codes that says nothing, 255 everywhere, counts as absent.
    """

    geometry: Geometry
    photometric: Photometric | PhotometricSteps | None = None
    blur: GaussianBlur | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_value: float = 255.0
    sources: tuple[InputSpec, ...] = ()
    boundary_labels: BoundaryLabels | None = None
    jitter: Mapping[str, SourceJitter] = field(default_factory=dict)

    @classmethod
    def from_config(
        cls,
        transforms: TransformsConfig,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        max_value: float,
        channels: int,
        sources: tuple[InputSpec, ...] = (),
    ) -> Pipeline:
        """Build the pipeline that a recipe's `transforms:` asks for.

        Raises:
            UsageError: mean or std do not have one entry for each of the `channels` channels; jitter of what is no
                source.
        """
        _check_channels(mean, std, channels)
        _check_jitter(transforms, sources)
        return cls(
            geometry=geometry_of(transforms),
            photometric=photometric_of(transforms),
            blur=GaussianBlur(**dict(transforms.blur)) if transforms.blur else None,
            mean=tuple(mean),
            std=tuple(std),
            max_value=max_value,
            sources=sources,
            boundary_labels=boundary_labels_of(transforms),
            jitter={name: SourceJitter(**dict(one)) for name, one in transforms.source_jitter.items()},
        )

    def __call__(self, sample: Sample, generator: np.random.Generator) -> PreparedSample:
        """Draw all random values for `sample` from `generator` and apply them.

        Raises:
            DataError: the image's channels, or the size of its truth or a source, do not fit; a source is missing.
        """
        check_sample(sample, len(self.mean), self.sources)
        size = _size(sample.image)
        placement = self.geometry.draw(generator, size, sample.label)
        sigma = self.blur.draw(generator, placement.size) if self.blur else None
        change = self.photometric.draw(generator, placement.size) if self.photometric else None

        def prepared(image: np.ndarray, placement: Placement = placement) -> np.ndarray:
            image = warp_image(image, placement)
            if sigma is not None:
                image = GaussianBlur.apply(image, sigma)
            if isinstance(change, ColorSteps):
                image = change.apply(image, self.max_value)
            linear = change if isinstance(change, ColorChange) else None
            image = normalise(image, self.mean, self.std, self.max_value, linear)
            fill_outside(image, placement, size, 0)
            return image

        target = _empty(placement.size) if sample.target is None else warp_target(sample.target, placement)
        return PreparedSample(
            image=prepared(sample.image),
            target=target if self.boundary_labels is None else self.boundary_labels.apply(target),
            key=sample.key,
            sources=_sources(sample, self.sources, placement, self._moved(generator, size, placement), prepared),
            present=_present(sample, self.sources),
            padding=beyond_source(placement, size),
        )

    def _moved(self, generator: np.random.Generator, size: Size, placement: Placement) -> dict[str, Placement]:
        """Return the placement of each source that is moved by itself."""
        named = [(spec.name, self.jitter[spec.name]) for spec in self.sources if spec.name in self.jitter]
        return {name: jitter.draw(generator, size).then(placement) for name, jitter in named}


def geometry_of(transforms: TransformsConfig) -> Geometry:
    """Return the geometric steps of a recipe, in the order that `TransformsConfig` states.

    Quarter turns come before the crop, so that the crop's size is the sample's size.
    """
    before: list[Step] = []
    if transforms.resize is not None:
        before.append(Resize(target=transforms.resize))
    if transforms.scale_range is not None:
        low, high = transforms.scale_range
        before.append(ScaleJitter(low=low, high=high, uniform=transforms.scale_draw == "uniform"))
    if transforms.aspect > 0:
        before.append(AspectJitter(amount=transforms.aspect))
    if transforms.rotation > 0:
        before.append(Rotation(degrees=transforms.rotation))
    if transforms.tps is not None:
        before.append(ThinPlateWarp(**dict(transforms.tps)))
    if transforms.turns:
        before.append(Turns())
    crop = None
    if transforms.crop_size is not None:
        at_end = transforms.crop_padding == "end"
        crop = Crop(size=transforms.crop_size, class_balance=transforms.class_balance, pad_end=at_end)
    after: list[Step] = []
    if transforms.flip > 0:
        after.append(Flip(probability=transforms.flip))
    if transforms.flip_vertical > 0:
        after.append(FlipVertical(probability=transforms.flip_vertical))
    return Geometry(before=tuple(before), crop=crop, after=tuple(after))


def photometric_of(transforms: TransformsConfig) -> Photometric | PhotometricSteps | None:
    """Return the colour changes of a recipe."""
    if transforms.photometric is None:
        return None
    fields = dict(transforms.photometric)
    return (PhotometricSteps if fields.pop("kind") == "steps" else Photometric)(**fields)


def check_sample(sample: Sample, channels: int, sources: Sequence[InputSpec] = ()) -> None:
    """Raise DataError unless image, truth and the sources asked for are there and lie on the same pixels.

    Args:
        sample: as a dataset gave it.
        channels: that the image must have.
        sources: those that the network takes.
    """
    size = _size(sample.image)
    if sample.image.ndim != 3 or sample.image.shape[2] != channels:
        raise DataError(f"image of shape {sample.image.shape}, expected (height, width, {channels})", sample.key)
    if sample.target is not None and size_of_target(sample.target) != size:
        raise DataError(f"truth of {size_of_target(sample.target)} for an image of {size}", sample.key)
    for spec in sources:
        source = sample.sources.get(spec.name)
        if source is None:
            if spec.required:
                raise DataError(f"has no source {spec.name!r}, which the network needs", sample.key)
            continue
        if source.kind != spec.kind:
            raise DataError(f"source {spec.name} is of kind {source.kind}, the network takes {spec.kind}", sample.key)
        shape = (*size, spec.channels)
        if source.array.shape != shape and (source.array.ndim != 2 or (*source.array.shape, 1) != shape):
            raise DataError(f"source {spec.name} of shape {source.array.shape}, expected {shape}", sample.key)


def _check_channels(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UsageError(
                f"model.input.{name}: got {len(values)} values, expected {channels}, one for each channel of the images"
            )


def _check_jitter(transforms: TransformsConfig, sources: Sequence[InputSpec]) -> None:
    names = [spec.name for spec in sources]
    lost = next((name for name in transforms.source_jitter if name not in names), None)
    if lost is not None:
        taken = ", ".join(names) or "none"
        raise UsageError(f"transforms.source_jitter: {lost!r} is no source of the network, which takes: {taken}")


def _size(array: np.ndarray) -> tuple[int, int]:
    return array.shape[0], array.shape[1]


def _empty(size: tuple[int, int]) -> SemanticTarget:
    return SemanticTarget(np.full(size, IGNORE, np.uint8))


def _present(sample: Sample, sources: Sequence[InputSpec]) -> dict[str, bool]:
    return {spec.name: is_there(sample.sources.get(spec.name)) for spec in sources if not spec.required}


def is_there(source: Source | None) -> bool:
    """Tell whether a source says anything: codes that are all "ignore" do not."""
    return source is not None and not (source.kind == "label" and is_empty(source.array))


def is_empty(codes: np.ndarray) -> bool:
    """Tell whether codes are 255 everywhere."""
    return bool(codes.size and codes.flat[0] == IGNORE and (codes == IGNORE).all())


def _sources(
    sample: Sample,
    sources: Sequence[InputSpec],
    placement: Placement,
    moved: Mapping[str, Placement],
    as_image: Callable[[np.ndarray, Placement], np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the sources that the network takes, in the size of `placement`; padding stands for what is missing.

    moved: placements of those that do not lie as the image does; what is padding of the image is padding there, too.
    """
    found: dict[str, np.ndarray] = {}
    for spec in sources:
        source, own = sample.sources.get(spec.name), moved.get(spec.name, placement)
        padding = IGNORE if spec.kind == "label" else 0
        if source is None:
            shape = placement.size if spec.kind == "label" else (*placement.size, spec.channels)
            array = np.full(shape, padding, np.uint8 if spec.kind == "label" else np.float32)
        elif spec.kind == "label":
            array = warp_label(_flat(source.array), own, padding)
        elif spec.kind == "image":
            array = as_image(source.array, own)
        else:
            values = np.atleast_3d(source.array)
            warped = warp_image(values, own)
            fill_outside(warped, own, _size(values), padding)
            array = warped.astype(np.float32, copy=False)
        if own is not placement and source is not None:
            fill_outside(array, placement, _size(source.array), padding)
        found[spec.name] = array
    return found


def _flat(codes: np.ndarray) -> np.ndarray:
    return codes.reshape(_size(codes))
