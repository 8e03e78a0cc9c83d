"""From whatever a caller holds to the network's input, by the card alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.data.formats.addresses import fetch_image, is_address, shown_address
from segatlas.data.formats.images import as_image
from segatlas.data.formats.masks import as_codes, decode_raw, read_raw
from segatlas.data.sample import Sample
from segatlas.data.transforms.color import normalise
from segatlas.data.transforms.geometry import Resize, resized_size
from segatlas.data.transforms.pipeline import is_empty
from segatlas.data.transforms.warp import resize_image, warp_label
from segatlas.data.value_range import FAR_ABOVE, far_below_zero, scale_fault
from segatlas.drawing.maps import viewable
from segatlas.errors import DataError, UsageError
from segatlas.inference.tta import nearest_places
from segatlas.ops.sampling import make_axis
from segatlas.ops.upsampling import resample
from segatlas.structures import IGNORE, Inputs, InputSpec, changed, image_of

ImageLike: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Tensor

MAX_INPUT_PIXELS = 2**28


@dataclass(frozen=True, kw_only=True, eq=False)
class WithSources:
    """An image with the further inputs of a model, by the names of its card; each what an image may be.

    None stands for a source that is not there.
    """

    image: ImageLike
    sources: Mapping[str, ImageLike | None]

    def __post_init__(self) -> None:
        """Refuse sources without names."""
        check_mapping(self.sources)


def check_mapping(sources: object) -> None:
    """Raise UsageError unless sources are named."""
    if not isinstance(sources, Mapping):
        found = type(sources).__name__
        raise UsageError(f"sources: got {found}, expected names with what belongs to them, as {{'before': image}}")


GivenImage: TypeAlias = ImageLike | WithSources


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedArray:
    """An array ready for the network; normalised where and when it is looked at.

    values: (h, w, C), or (h, w) codes, as stored, resized as the card says. rules: the card's preprocessing, None where
    values reach the network as they are.
    """

    values: np.ndarray
    rules: Preprocessing | None

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (h, w) of the network's input."""
        return self.values.shape[0], self.values.shape[1]

    @cached_property
    def pixels(self) -> Tensor:
        """(C, h, w) float32, or (h, w) uint8 codes; made once."""
        return self.part(0, 0, *self.input_size)

    def part(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a window of `pixels`, made without the rest."""
        values = self.values[top : top + height, left : left + width]
        if values.ndim == 2:
            return torch.from_numpy(np.ascontiguousarray(values))
        if self.rules is not None:
            values = normalise(values, self.rules.mean, self.rules.std, self.rules.max_value)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32))


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedImage(PreparedArray):
    """One image ready for the network.

    size: (H, W) of the image itself. view: (H, W, 3) uint8 RGB form of it for drawing. source: file name, or "".
    sources: the model's further inputs on the same pixels. present: which of those that it can do without are there.
    """

    size: tuple[int, int]
    view: np.ndarray
    source: str
    sources: Mapping[str, PreparedArray] = field(default_factory=dict)
    present: Mapping[str, bool] = field(default_factory=dict)

    def make_pixels(self) -> None:
        """Normalise image and sources now."""
        for array in (self, *self.sources.values()):
            _ = array.pixels


class ImageBatch:
    """Images of one input size as a batch that is normalised, and brought to the device, window by window."""

    def __init__(self, images: Sequence[PreparedImage], device: torch.device):
        self.images = images
        self.device = device
        self.size = images[0].input_size

    def whole(self) -> Tensor | Inputs:
        """Return the batch of (h, w), the image alone where there is nothing else; of a single one, not a copy."""
        sources = {
            name: _stacked([image.sources[name].pixels for image in self.images]) for name in self.images[0].sources
        }
        return self._inputs(_stacked([image.pixels for image in self.images]), sources)

    def part(self, top: int, left: int, height: int, width: int) -> Tensor | Inputs:
        """Return a window of the batch, (height, width)."""
        window = (top, left, height, width)
        sources = {
            name: torch.stack([image.sources[name].part(*window) for image in self.images])
            for name in self.images[0].sources
        }
        return self._inputs(torch.stack([image.part(*window) for image in self.images]), sources)

    def _inputs(self, image: Tensor, sources: dict[str, Tensor]) -> Tensor | Inputs:
        flags = self.images[0].present
        present = {name: torch.tensor([image.present[name] for image in self.images]) for name in flags}
        return Inputs(image, sources, present).to(self.device).given()


class ScaledInputs:
    """The same resized by a factor, as `View` resizes whole images; made window by window, too."""

    def __init__(self, inputs: ImageBatch, scale: float):
        self.inputs = inputs
        self.size = (max(1, round(inputs.size[0] * scale)), max(1, round(inputs.size[1] * scale)))
        self._axes = [
            make_axis(before, after, device=inputs.device) for before, after in zip(inputs.size, self.size, strict=True)
        ]

    def part(self, top: int, left: int, height: int, width: int) -> Tensor | Inputs:
        """Return a window of the batch, (height, width)."""
        rows, columns = self._axes[0].part(top, top + height), self._axes[1].part(left, left + width)
        (first, last), (begin, end) = rows.reach(), columns.reach()

        def resized(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                return resample(resample(tensor, 2, rows.over(first, last)), 3, columns.over(begin, end))
            spans = ((self.inputs.size[0], self.size[0], first), (self.inputs.size[1], self.size[1], begin))
            for axis, ((before, after, offset), start, count) in enumerate(
                zip(spans, (top, left), (height, width), strict=True), start=1
            ):
                places = nearest_places(before, after, start, start + count, tensor.device) - offset
                tensor = tensor.index_select(axis, places.clamp_(0, tensor.shape[axis] - 1))
            return tensor

        return changed(self.inputs.part(first, begin, last - first, end - begin), resized)


def prepare(
    image: GivenImage,
    card: Card,
    name: str = "image",
    *,
    max_value: float | None = None,
    check_scale: bool = True,
    offline: bool = False,
) -> PreparedImage:
    """Read an image and bring it into the network's form.

    Args:
        image: a file (str, Path), its address (http, https), its bytes, a PIL image, an array (H, W) or (H, W, C) of
            uint8, uint16 or float in stored values, RGB order, or a tensor (C, H, W) or (H, W), uint8 or float 0..1;
            `WithSources` for a model that takes more.
        card: the model's card.
        name: what messages call an image that is no file.
        max_value: the stored value that is full scale in this image, where it is not the card's; float tensors are
            0..1 anyway.
        check_scale: refuse an image whose values cannot be meant on the card's scale, see `scale_fault`.
        offline: fetch nothing, see `fetch_image`.

    Raises:
        DataError: unreadable, of another number of channels, with NaN or infinite values, on another scale than the
            card's, or far too large after the card's resize; a source that does not lie on the image's pixels.
        UsageError: a source that the model does not take, or one that it needs and is not given.
    """
    given: dict[str, ImageLike] = {}
    if isinstance(image, WithSources):
        given = {key: source for key, source in image.sources.items() if source is not None}
        image = image.image
    if isinstance(image, Inputs):
        raise UsageError(
            f"{name}: Inputs are normalised and for Predictor.output; WithSources holds images as they are"
        )
    further = card.inputs[1:]
    source = source_name(image)
    name = source or name
    check_names(tuple(given), further, name)
    scale = (max_value, check_scale)
    image = at_hand(image, offline)
    array, values = _as_stored(image, card.inputs[0].channels, card.preprocessing, name, *scale)
    size = (array.shape[0], array.shape[1])
    target = _input_size(card.preprocessing, size, name)
    sources = {
        spec.name: prepare_source(given.get(spec.name), spec, card.preprocessing, size, target, name, *scale, offline)
        for spec in further
    }
    return PreparedImage(
        values=resize_image(values, target),
        rules=card.preprocessing,
        size=size,
        view=_tensor_view(array, card.preprocessing.max_value) if isinstance(image, Tensor) else viewable(array),
        source=source,
        sources=sources,
        present={spec.name: _is_there(given, spec, sources) for spec in further if not spec.required},
    )


def _is_there(given: Mapping[str, ImageLike], spec: InputSpec, prepared: Mapping[str, PreparedArray]) -> bool:
    """Tell whether a source is given and says anything: codes that are all "ignore" do not."""
    return spec.name in given and not (spec.kind == "label" and is_empty(prepared[spec.name].values))


def _as_stored(
    image: ImageLike, channels: int, rules: Preprocessing, name: str, max_value: float | None, check_scale: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (H, W, C) as stored, and the same on the card's scale."""
    array = _with_channels(image, channels, rules, name)
    if isinstance(image, Tensor) or not (check_scale or max_value is not None):
        return array, array
    return array, _on_card_scale(array, rules.max_value, max_value, name)


def _input_size(rules: Preprocessing, size: tuple[int, int], name: str) -> tuple[int, int]:
    """Return the (height, width) that the card makes of an image of `size`."""
    if rules.resize is None:
        return size
    target = resized_size(rules.resize, size)
    if target[0] * target[1] > MAX_INPUT_PIXELS:
        raise DataError(
            f"{size[0]}x{size[1]} resized to {rules.resize!r} would be {target[0]}x{target[1]} pixels", name
        )
    return target


def check_names(given: Sequence[str], taken: Sequence[InputSpec], name: str = "image") -> None:
    """Raise UsageError, naming all that the model takes, where a source is not one of them or a needed one is missing.

    Args:
        given: names of the sources that are there.
        taken: what the model takes besides the image.
        name: of the image, for messages.
    """
    lost = [repr(spec.name) for spec in taken if spec.required and spec.name not in given]
    unknown = [repr(one) for one in given if one not in [spec.name for spec in taken]]
    if not lost and not unknown:
        return
    takes = ", ".join(described(spec) for spec in taken) if taken else "nothing"
    faults = [f"no source {', '.join(lost)} is given"] if lost else []
    faults += [f"a source {', '.join(unknown)} is given, which the model does not take"] if unknown else []
    raise UsageError(f"{name}: {', but '.join(faults)}; besides the image the model takes {takes}")


def check_inputs(inputs: Tensor | Inputs, taken: Sequence[InputSpec]) -> None:
    """Raise UsageError unless a normalised batch has the form of a model's inputs.

    Args:
        inputs: what the network is to be given.
        taken: what the card lists, the image first.
    """
    if not isinstance(inputs, Tensor | Inputs):
        found = f"got a {type(inputs).__name__}, expected a normalised tensor (N, C, H, W)"
        raise UsageError(f"inputs: {found}; predict takes files, PIL images and arrays")
    image, sources = image_of(inputs), inputs.sources if isinstance(inputs, Inputs) else {}
    check_names(tuple(sources), taken[1:], "inputs")
    for spec in taken:
        tensor = image if spec is taken[0] else sources.get(spec.name)
        if tensor is None:
            continue
        size = (image.shape[0], *image.shape[-2:]) if image.ndim == 4 else ("N", "H", "W")
        expected = size if spec.kind == "label" else (size[0], spec.channels, *size[1:])
        good = not tensor.is_floating_point() if spec.kind == "label" else tensor.dtype == torch.float32
        if tuple(tensor.shape) != expected or not good:
            form = f"{'codes' if spec.kind == 'label' else 'normalised float32'} ({', '.join(map(str, expected))})"
            raise UsageError(f"{spec.name}: {tensor.dtype} of shape {tuple(tensor.shape)}; expected {form}")


def described(spec: InputSpec) -> str:
    """Return on one line what a further input is."""
    form = {"image": "an image", "map": "a map of numbers", "label": "codes"}[spec.kind]
    channels = "" if spec.kind == "label" else f" of {spec.channels} channel{'s' if spec.channels > 1 else ''}"
    return f"{spec.name} ({form}{channels}{'' if spec.required else ', optional'})"


def prepare_source(
    given: ImageLike | None,
    spec: InputSpec,
    rules: Preprocessing,
    size: tuple[int, int],
    target: tuple[int, int],
    name: str,
    max_value: float | None,
    check_scale: bool,
    offline: bool = False,
) -> PreparedArray:
    """Read a source of an image; where it is missing, padding stands in its place.

    Args:
        given: what `prepare` takes as an image.
        spec: what the model takes.
        rules: the card's preprocessing.
        size: (H, W) of the image.
        target: (h, w) that it is resized to.
        name: of the image, for messages.
        max_value: as of `prepare`.
        check_scale: as of `prepare`.
        offline: as of `prepare`.

    Raises:
        DataError: as `prepare`; or it has another size than the image, or codes that are none of the source's.
    """
    if given is None:
        empty = np.full(target, IGNORE, np.uint8) if spec.kind == "label" else np.zeros((*target, spec.channels), "f4")
        return PreparedArray(values=empty, rules=None)
    own = source_name(given) or f"{name}, source {spec.name}"
    given = at_hand(given, offline)
    if spec.kind == "label":
        values = _codes(given, own, spec.codes)
    elif spec.kind == "image":
        _, values = _as_stored(given, spec.channels, rules, own, max_value, check_scale)
    else:
        values = _numbers(given, spec.channels, own)
    found = (values.shape[0], values.shape[1])
    if found != size:
        raise DataError(
            f"source {spec.name} is {found[1]} x {found[0]} pixels, the image {name} is {size[1]} x {size[0]}", own
        )
    if spec.kind == "label":
        placement = Resize(target=f"{target[0]}x{target[1]}").draw(np.random.default_rng(0), size)
        return PreparedArray(values=warp_label(values, placement, IGNORE), rules=None)
    return PreparedArray(values=resize_image(values, target), rules=rules if spec.kind == "image" else None)


def _codes(given: ImageLike, name: str, count: int | None) -> np.ndarray:
    """Return codes (H, W) uint8 of a mask file, its bytes, a PIL image, an array or a tensor.

    count: how many codes there are, None = any.
    """
    if isinstance(given, str | Path):
        codes = read_raw(given)
    elif isinstance(given, bytes):
        codes = decode_raw(given, name)
    else:
        codes = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    return as_codes(codes, name, count)


def _numbers(given: ImageLike, channels: int, name: str) -> np.ndarray:
    """Return a map of numbers (H, W, channels) as stored; of other channels it has no meaning."""
    array = as_image(_channels_last(given, name).float().numpy() if isinstance(given, Tensor) else given, name=name)
    if array.shape[2] != channels:
        raise DataError(f"a map of {array.shape[2]} channels, the model expects {channels}", name)
    return array


def with_own_sources(images: Sequence[ImageLike], sources: Mapping[str, Any]) -> list[WithSources]:
    """Return each image of a list with its own sources. UsageError where there are not as many."""
    check_mapping(sources)
    for name, given in sources.items():
        if not isinstance(given, list | tuple) or len(given) != len(images):
            found = f"{len(given)}" if isinstance(given, list | tuple) else type(given).__name__
            raise UsageError(f"sources[{name!r}]: got {found}, expected a list of {len(images)}, one for each image")
    return [
        WithSources(image=image, sources={name: given[index] for name, given in sources.items()})
        for index, image in enumerate(images)
    ]


def with_sources(sample: Sample, card: Card) -> GivenImage:
    """Return what `prepare` takes of a sample: its image, and those of its sources that the model takes."""
    names = [spec.name for spec in card.inputs[1:] if spec.name in sample.sources]
    if not names:
        return sample.image
    return WithSources(image=sample.image, sources={name: sample.sources[name].array for name in names})


def _on_card_scale(array: np.ndarray, of_card: float, of_image: float | None, name: str) -> np.ndarray:
    """Return stored values on the card's scale, in float32 where the image has a full scale of its own."""
    lowest, highest = float(array.min()), float(array.max())
    if of_image is None:
        fault = scale_fault(array.dtype.name, lowest, highest, of_card)
        if fault:
            raise DataError(f"{fault}; --max-value N (max_value=N) says which value is full scale in the images", name)
        return array
    if array.dtype == np.uint8 and of_image > 255 and highest > 0:
        raise DataError(f"an 8-bit image does not reach --max-value {of_image:g}", name)
    if highest > FAR_ABOVE * of_image:
        raise DataError(f"largest value {highest:g}, far above --max-value {of_image:g}", name)
    if lowest < far_below_zero(of_image):
        raise DataError(
            f"smallest value {lowest:g}, far below 0; if it means 'no data', write another value there", name
        )
    scaled: np.ndarray = array.astype(np.float32) * np.float32(of_card / of_image)
    return scaled


def source_name(image: ImageLike) -> str:
    """Return the file or address that an image comes from, "" where there is none."""
    if isinstance(image, str) and is_address(image):
        return shown_address(image)
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "") or "")
    return ""


def at_hand(image: ImageLike, offline: bool = False) -> ImageLike:
    """Return an image that is on this machine: of an address its content, all else as it is. DataError: see there."""
    return fetch_image(image, offline=offline) if isinstance(image, str) and is_address(image) else image


def as_view(image: ImageLike) -> np.ndarray:
    """Return an image of any kind as (H, W, 3) uint8 to look at, see `viewable`. DataError where it is unreadable."""
    name = source_name(image) or "image"
    held = at_hand(image)
    if isinstance(held, Tensor):
        return _tensor_view(as_image(_tensor_array(held, 255.0, name), name=name), 255.0)
    return viewable(as_image(held, name=name))


def _tensor_view(array: np.ndarray, max_value: float) -> np.ndarray:
    """Return what a tensor held, (H, W, C) uint8 or float of 0..max_value, to look at: nothing is stretched."""
    if array.dtype != np.uint8:
        array = (array * np.float32(255 / max_value) + np.float32(0.5)).astype(np.uint8)
    return viewable(array)


def _with_channels(image: ImageLike, channels: int, rules: Preprocessing, name: str) -> np.ndarray:
    """Return (H, W, channels) in stored values."""
    held = _tensor_array(image, rules.max_value, name) if isinstance(image, Tensor) else image
    try:
        return as_image(held, channels, name=name)
    except DataError as error:
        found = as_image(held, name=name)  # raises again where reading is what failed
        raise DataError(f"the model expects {channels} channels, the image has {found.shape[2]}", name) from error


def _tensor_array(tensor: Tensor, max_value: float, name: str) -> np.ndarray:
    """Return a tensor (C, H, W) or (H, W), uint8 or float 0..1, as an (H, W, C) array in stored values."""
    array = _channels_last(tensor, name)
    if array.dtype == torch.uint8:
        return array.numpy()
    if not array.is_floating_point():
        raise DataError(f"tensor of {array.dtype}; expected uint8, or float in 0..1", name)
    if array.numel() and not (array.min() >= 0 and array.max() <= 1):
        raise DataError(
            f"float tensor with values {array.min():.3g}..{array.max():.3g}; expected 0..1 (not normalised)", name
        )
    return array.float().numpy() * np.float32(max_value)


def _channels_last(tensor: Tensor, name: str) -> Tensor:
    """Return a tensor (C, H, W) or (H, W) as (H, W, C) in memory."""
    if tensor.layout != torch.strided or tensor.is_meta:
        raise DataError("a sparse or meta tensor is not an image; expected a dense tensor", name)
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim == 4:
        shape = tuple(tensor.shape)
        raise DataError(f"tensor of shape {shape} is a batch; expected (C, H, W), or a list of them: list(batch)", name)
    if tensor.ndim != 3:
        raise DataError(f"tensor of shape {tuple(tensor.shape)}; expected (C, H, W) or (H, W)", name)
    if tensor.shape[2] in (1, 3, 4) and tensor.shape[0] > 16:
        raise DataError(f"tensor of shape {tuple(tensor.shape)} looks like (H, W, C); expected (C, H, W)", name)
    return tensor.detach().cpu().permute(1, 2, 0).contiguous()


def _stacked(pixels: Sequence[Tensor]) -> Tensor:
    """Return a batch of one size; of a single one a view, not a copy."""
    return pixels[0].unsqueeze(0) if len(pixels) == 1 else torch.stack(list(pixels))
