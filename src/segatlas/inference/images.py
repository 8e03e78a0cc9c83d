"""From whatever a caller holds to the network's input, by the card alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segatlas.data.formats.images import as_image
from segatlas.data.transforms.color import normalise
from segatlas.data.transforms.geometry import resized_size
from segatlas.data.transforms.warp import resize_image
from segatlas.data.value_range import FAR_ABOVE, far_below_zero, scale_fault
from segatlas.drawing.maps import viewable
from segatlas.errors import DataError
from segatlas.ops.sampling import make_axis
from segatlas.ops.upsampling import resample
from segatlas.weights.card import Card, Preprocessing

ImageLike: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Tensor

MAX_INPUT_PIXELS = 2**28


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedImage:
    """One image ready for the network.

    values: (h, w, C) in stored values, resized as the card says; normalised where and when they are looked at.
    rules: the card's preprocessing. size: (H, W) of the image itself. view: (H, W, 3) uint8 RGB form of it for
    drawing. source: file name, or "".
    """

    values: np.ndarray
    rules: Preprocessing
    size: tuple[int, int]
    view: np.ndarray
    source: str

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (h, w) of the network's input."""
        return self.values.shape[0], self.values.shape[1]

    @cached_property
    def pixels(self) -> Tensor:
        """(C, h, w) float32, normalised; made once."""
        return self.part(0, 0, *self.input_size)

    def part(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a window of `pixels`, made without the rest."""
        values = self.values[top : top + height, left : left + width]
        pixels = normalise(values, self.rules.mean, self.rules.std, self.rules.max_value)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


class ImageBatch:
    """Images of one input size as a batch that is normalised, and brought to the device, window by window."""

    def __init__(self, images: Sequence[PreparedImage], device: torch.device):
        self.images = images
        self.device = device
        self.size = images[0].input_size

    def whole(self) -> Tensor:
        """Return the batch (N, C, h, w)."""
        return stack(self.images, self.device)

    def part(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a window of the batch, (N, C, height, width)."""
        return torch.stack([image.part(top, left, height, width) for image in self.images]).to(self.device)


class ScaledInputs:
    """The same resized bilinearly by a factor, as `View` resizes whole images; made window by window, too."""

    def __init__(self, inputs: ImageBatch, scale: float):
        self.inputs = inputs
        self.size = (max(1, round(inputs.size[0] * scale)), max(1, round(inputs.size[1] * scale)))
        self._axes = [
            make_axis(before, after, device=inputs.device) for before, after in zip(inputs.size, self.size, strict=True)
        ]

    def part(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a window of the batch, (N, C, height, width)."""
        rows, columns = self._axes[0].part(top, top + height), self._axes[1].part(left, left + width)
        (first, last), (begin, end) = rows.reach(), columns.reach()
        source = self.inputs.part(first, begin, last - first, end - begin)
        return resample(resample(source, 2, rows.over(first, last)), 3, columns.over(begin, end))


def prepare(
    image: ImageLike,
    card: Card,
    name: str = "image",
    *,
    max_value: float | None = None,
    check_scale: bool = True,
) -> PreparedImage:
    """Read an image and bring it into the network's form.

    Args:
        image: a file (str, Path), its bytes, a PIL image, an array (H, W) or (H, W, C) of uint8, uint16 or float in
            stored values, RGB order, or a tensor (C, H, W) or (H, W), uint8 or float 0..1.
        card: the model's card.
        name: what messages call an image that is no file.
        max_value: the stored value that is full scale in this image, where it is not the card's; float tensors are
            0..1 anyway.
        check_scale: refuse an image whose values cannot be meant on the card's scale, see `scale_fault`.

    Raises:
        DataError: unreadable, of another number of channels, with NaN or infinite values, on another scale than the
            card's, or far too large after the card's resize.
    """
    channels = card.inputs[0].channels
    source = source_name(image)
    name = source or name
    array = _with_channels(image, channels, card.preprocessing, name)
    size = (array.shape[0], array.shape[1])
    rules, values = card.preprocessing, array
    if not isinstance(image, Tensor) and (check_scale or max_value is not None):
        values = _on_card_scale(array, rules.max_value, max_value, name)
    if rules.resize is not None:
        target = resized_size(rules.resize, size)
        if target[0] * target[1] > MAX_INPUT_PIXELS:
            raise DataError(
                f"{size[0]}x{size[1]} resized to {rules.resize!r} would be {target[0]}x{target[1]} pixels", name
            )
        values = resize_image(values, target)
    return PreparedImage(
        values=values,
        rules=rules,
        size=size,
        view=viewable(array),
        source=source,
    )


def _on_card_scale(array: np.ndarray, of_card: float, of_image: float | None, name: str) -> np.ndarray:
    """Return stored values on the card's scale, in float32 where the image has a full scale of its own."""
    lowest, highest = float(array.min()), float(array.max())
    if of_image is None:
        fault = scale_fault(array.dtype.name, lowest, highest, of_card)
        if fault:
            raise DataError(f"{fault}; --max-value N (max_value=N) says which value is full scale in the images", name)
        return array
    if highest > FAR_ABOVE * of_image:
        raise DataError(f"largest value {highest:g}, far above --max-value {of_image:g}", name)
    if lowest < far_below_zero(of_image):
        raise DataError(
            f"smallest value {lowest:g}, far below 0; if it means 'no data', write another value there", name
        )
    scaled: np.ndarray = array.astype(np.float32) * np.float32(of_card / of_image)
    return scaled


def source_name(image: ImageLike) -> str:
    """Return the file that an image comes from, "" where there is none."""
    if isinstance(image, str | Path):
        return str(image)
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", "") or "")
    return ""


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
    if tensor.layout != torch.strided or tensor.is_meta:
        raise DataError("a sparse or meta tensor is not an image; expected a dense tensor", name)
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3:
        raise DataError(f"tensor of shape {tuple(tensor.shape)}; expected (C, H, W) or (H, W)", name)
    array = tensor.detach().cpu().permute(1, 2, 0).contiguous()
    if array.dtype == torch.uint8:
        return array.numpy()
    if not array.is_floating_point():
        raise DataError(f"tensor of {array.dtype}; expected uint8, or float in 0..1", name)
    if array.numel() and not (array.min() >= 0 and array.max() <= 1):
        raise DataError(
            f"float tensor with values {array.min():.3g}..{array.max():.3g}; expected 0..1 (not normalised)", name
        )
    return array.float().numpy() * np.float32(max_value)


def stack(images: Sequence[PreparedImage], device: torch.device) -> Tensor:
    """Return images of one input size as a batch (N, C, h, w) on `device`; the pixels of a single one, not a copy."""
    pixels = [image.pixels for image in images]
    return (pixels[0].unsqueeze(0) if len(pixels) == 1 else torch.stack(pixels)).to(device)
