"""What a part of an image attends to in AFMA, and what attends to it: `models/afma.py`.

For a class, patches of the image attend to patches of one of the encoder's maps, each of which stands for a square of
the image. Of a region the rows of its patches are averaged, each weighing as many pixels of the region as it has;
likewise the columns of those patches of the map that stand for it.

Letters: K classes, H W image, P side of a patch, s stride of the map, I F patches of the image and of the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.drawing import Cell, boundary_image, gallery, heat_overlay, with_color_bar
from segatlas.errors import TaskError, UsageError
from segatlas.explain.choosing import Region, find_classes, find_region, predicted_classes, predicted_pixels
from segatlas.explain.seeing import SeenImage
from segatlas.inference import Predictor
from segatlas.inference.images import GivenImage, ImageLike
from segatlas.ops.patches import fitted, patch_grid, to_patches
from segatlas.structures import PatchAttention

SMALLEST = 20
"""Pixels that an object has at least, where the smallest one is looked for."""

Part = Region | Literal["smallest"]
"""A part of an image: the smallest connected piece that is predicted to be of the class, or see `explain.Region`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMap:
    """What a region attends to for a class, and what attends to it.

    region: (H, W) bool; region_name: in words. class_index, class_name: the class.
    to: (H, W) float32 in the image's size, none below 0: how much the region attends to the patch of the map that
        stands for each pixel; NaN where none does. to_side: pixels of the network's input along a side of such a patch.
    by: (H, W), how much the patch of the image at each pixel attends to the region; by_side: likewise.
    level: which of the encoder's maps it is, 1 = the finest.
    on_class: fraction of what it attends to that lies where the class is predicted, 0..1.
    """

    region: np.ndarray = field(repr=False)
    region_name: str
    class_index: int
    class_name: str
    to: np.ndarray = field(repr=False)
    to_side: int
    by: np.ndarray = field(repr=False)
    by_side: int
    level: int
    on_class: float


def attention_map(
    predictor: Predictor,
    image: GivenImage,
    class_name: str | int | None = None,
    region: Part = "smallest",
    sources: Mapping[str, ImageLike] | None = None,
) -> AttentionMap:
    """Return what a region of an image attends to, and what attends to it, in a network with AFMA.

    The whole image goes through the network at once, in fp32.

    Args:
        predictor: from `segatlas.load`.
        image: as `Predictor.predict` takes it.
        class_name: name or index; None = the predicted class of the region's most pixels, with "smallest" that of the
            smallest piece of any class.
        region: whose patches are asked, see `Part`.
        sources: further inputs of the model.

    Raises:
        TaskError: the network has no such attention.
        UsageError: no such class, a region outside of the image, nothing predicted that it could be, or no patch there.
        DataError: an image or a mask that cannot be used.
    """
    network: Any = predictor.model
    if not hasattr(network, "forward_with_attention"):
        raise TaskError(f"{predictor.card.architecture} has no attention between patches; afma has, around any host")
    names = predictor.card.classes
    kinds = find_classes([] if class_name is None else [class_name], names)
    seen = SeenImage.of(predictor, image, sources)
    labels = seen.predicted().semantic
    kind, inside, told = _chosen(seen, labels, kinds, region, names)
    with torch.inference_mode(), torch.autocast(predictor.device.type, enabled=False):
        out, attention = network.forward_with_attention(seen.inputs())
    if not bool(attention.image.isfinite().all() and attention.features.isfinite().all()):
        raise seen.not_finite("attention")
    to, by = _both_ways(seen, out.canvas, attention, kind, inside)
    total = float(np.nansum(to))
    return AttentionMap(
        region=inside,
        region_name=told,
        class_index=kind,
        class_name=names[kind],
        to=to,
        to_side=attention.side * attention.stride,
        by=by,
        by_side=attention.side,
        level=network.level,
        on_class=float(np.nansum(to[labels == kind])) / total if total else 0.0,
    )


def attention_figure(image: np.ndarray, attention: AttentionMap) -> np.ndarray:
    """Return one sheet, (H', W', 3) uint8: the region, what it attends to, what attends to it.

    Args:
        image: (H, W, 3) uint8 RGB.
        attention: of it.
    """
    outline = attention.region.astype(np.uint8)
    cells = [
        Cell(
            image=boundary_image(image, outline),
            title=f"{attention.class_name}, {int(outline.sum())} pixels",
            note=attention.region_name,
        )
    ]
    for values, side, title in (
        (attention.to, attention.to_side, "attends to"),
        (attention.by, attention.by_side, "is attended to by"),
    ):
        largest = float(np.nanmax(values))
        heat = heat_overlay(image, values / largest if largest else np.zeros_like(values))
        note = f"patches of {side} x {side} pixels, largest {largest:.3g}"
        cells.append(Cell(image=boundary_image(heat, outline), title=title, note=note))
    title = f"attention for {attention.class_name}, to the encoder's map of level {attention.level}"
    return with_color_bar(gallery(cells, columns=3, cell_width=480), "turbo", low="0", high="the largest", title=title)


def _chosen(
    seen: SeenImage, labels: np.ndarray, kinds: list[int], region: Part, names: tuple[str, ...]
) -> tuple[int, np.ndarray, str]:
    """Return the class, the pixels of the region (H, W), and the region in words."""
    result = seen.predicted()
    if isinstance(region, str) and region == "smallest":
        wanted = kinds or predicted_classes(result, len(names))
        found = [(piece, kind) for kind in wanted for piece in _pieces(labels == kind)]
        if not found:
            raise UsageError(_nowhere(names, kinds, f"in a piece of {SMALLEST} pixels or more"))
        inside, kind = min(found, key=lambda pair: int(pair[0].sum()))
        return kind, inside, "the smallest piece that is predicted as it"
    where = find_region(region, seen.size)
    if where.inside is None:
        kind = kinds[0] if kinds else predicted_classes(result)[0]
        inside = predicted_pixels(result, kind, seen.size)
        if not inside.any():
            raise UsageError(_nowhere(names, kinds, "in this image"))
        return kind, inside, where.name
    kind = kinds[0] if kinds else int(np.bincount(labels[where.inside]).argmax())
    return kind, where.inside, where.name


def _nowhere(names: tuple[str, ...], kinds: list[int], where: str) -> str:
    told = repr(names[kinds[0]]) if kinds else "any class"
    return f"class: {told} is not predicted {where}; give a box or a mask"


def _pieces(inside: np.ndarray) -> list[np.ndarray]:
    """Return the connected pieces of a mask (H, W) that are large enough."""
    count, numbers, facts, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    return [numbers == one for one in range(1, count) if facts[one, cv2.CC_STAT_AREA] >= SMALLEST]


def _both_ways(
    seen: SeenImage, canvas: tuple[int, int], attention: PatchAttention, kind: int, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much the region attends to each pixel (H, W), and how much each pixel attends to the region."""
    side, stride, border, cells = attention.side, attention.stride, attention.border, attention.cells
    mask = cv2.resize(inside.astype(np.float32), seen.crop[::-1], interpolation=cv2.INTER_AREA)
    pixels = fitted(torch.from_numpy(mask)[None, None].double().to(attention.image.device), canvas)
    in_cells = F.avg_pool2d(fitted(pixels, (cells[0] * stride, cells[1] * stride)), stride)
    of_image, of_map = attention.image[0, kind].double(), attention.features[0, kind].double()
    own, there = _weights(pixels, attention, "image"), _weights(in_cells, attention, "encoder's map")
    to, by = of_map @ (own @ of_image) / side**2, of_image @ (there @ of_map) / side**2
    return (
        _painted(seen, to, patch_grid(cells, side, border), side * stride),
        _painted(seen, by, patch_grid(canvas, side, border), side),
    )


def _weights(mask: Tensor, attention: PatchAttention, what: str) -> Tensor:
    """Return the part of a mask (1, 1, h, w) that each patch has, (I or F,); together 1."""
    weights = to_patches(mask, attention.side, attention.border)[0, 0].sum(dim=1)
    if not bool(weights.any()):
        raise UsageError(f"region: no whole patch of the {what} lies there")
    return weights / weights.sum()


def _painted(seen: SeenImage, values: Tensor, grid: tuple[int, int], side: int) -> np.ndarray:
    """Return values of patches (rows * columns,) at the image's size, each over its square; NaN beyond the last."""
    squares = values.float().cpu().numpy().reshape(grid).repeat(side, 0).repeat(side, 1)
    height, width = seen.crop
    whole = np.full((max(height, squares.shape[0]), max(width, squares.shape[1])), np.nan, np.float32)
    whole[: squares.shape[0], : squares.shape[1]] = squares
    resized: np.ndarray = cv2.resize(whole[:height, :width], seen.size[::-1], interpolation=cv2.INTER_NEAREST)
    return resized
