"""Carry out a Placement on arrays: one warp each, however many geometric steps it is made of.

Images are interpolated bilinearly and labels take the nearest value. Only the window of the source that shows is
touched. A placement of whole pixels (crop, flip, quarter turn) copies values exactly, without interpolation; one that
resizes a window of whole pixels, as most crops do, goes through OpenCV's resize, which is quicker than its warp. Where
an image shrinks to less than half, blocks of whole pixels are averaged first, so that fine texture does not alias.
"""

from __future__ import annotations

import cv2
import numpy as np

from segatlas.data.transforms.geometry import Placement, Size
from segatlas.labels import IGNORE

CV_CHANNELS = 4
"""OpenCV warps at most this many channels at once."""
TILE = 8192
"""Side of the largest piece warped at once: keeps the source window of each below OpenCV's limit of 32767 pixels."""
MARGIN = 2
"""Source pixels around a window, so that interpolation at its rim does not meet the cut."""
WHOLE = 1e-6
"""How far from a whole pixel, by rounding, a place counts as one."""
FIXED_BITS = 20
FIXED = 1 << FIXED_BITS
SWAP = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def warp_image(image: np.ndarray, placement: Placement) -> np.ndarray:
    """Return the image that `placement` makes of `image`, bilinear.

    Args:
        image: (H, W, C) uint8, uint16 or float32, any C.
        placement: drawn for an image of (H, W).

    Returns:
        A new contiguous (h, w, C) array of the same type. Places outside the source repeat its nearest edge; pad them
        with `fill_outside` once all steps that look at neighbours (blur) are done.
    """
    image, placement = _unturned(image, placement)
    cut = _cut(image, placement)
    if cut is not None:
        return cut
    height, width = placement.size
    channels = image.shape[2]
    if height <= TILE and width <= TILE and channels <= CV_CHANNELS:
        return _warp_tile(image, placement)
    out = np.empty((height, width, channels), image.dtype)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            size = (min(TILE, height - top), min(TILE, width - left))
            shift = np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])
            tile = placement.then(Placement(matrix=shift, size=size))
            for channel in range(0, channels, CV_CHANNELS):
                piece = _warp_tile(image[..., channel : channel + CV_CHANNELS], tile)
                out[top : top + size[0], left : left + size[1], channel : channel + CV_CHANNELS] = piece
    return out


def warp_label(label: np.ndarray, placement: Placement, padding: int = IGNORE) -> np.ndarray:
    """Return the label that `placement` makes of `label`: the value of the source pixel that each pixel centre hits.

    Args:
        label: (H, W) of any integer type.
        placement: drawn for an image of (H, W).
        padding: value outside the source.

    Returns:
        A new contiguous (h, w) array of the same type.
    """
    source_size = (label.shape[0], label.shape[1])
    turned, straight = _unturned(label, placement)
    if _is_axis_aligned(straight):
        rows = _axis_index(straight, 1, turned.shape[0])
        columns = _axis_index(straight, 0, turned.shape[1])
        top, left = rows.min(), columns.min()
        window = turned[top : rows.max() + 1, left : columns.max() + 1]
        rows, columns = rows - top, columns - left
        if len(window) < len(rows):  # picking columns costs more than repeating rows: do it on the fewer rows
            out = window.take(columns, axis=1).take(rows, axis=0)
        else:
            out = window.take(rows, axis=0).take(columns, axis=1)
        fill_outside(out, placement, source_size, padding)
        return out
    column, row = _source_pixels(placement)
    out = label.take(row * source_size[1] + column, mode="clip")
    out[_outside(column, row, source_size)] = padding
    return out


def fill_outside(array: np.ndarray, placement: Placement, source_size: Size, value: float) -> None:
    """Set `value`, in place, wherever the pixels of a warped `array` (h, w, ...) lie outside the source image.

    Args:
        array: what `warp_image` or `warp_label` gave, or anything made from it of the same (h, w).
        placement: the placement it was made with.
        source_size: (H, W) of the source.
        value: the padding.
    """
    if _covers(placement, source_size):
        return
    height, width = source_size
    if _is_turned(placement):
        placement = _swapped(placement)
        height, width = width, height
    if _is_axis_aligned(placement):
        top, bottom = _inside_range(placement, 1, height)
        left, right = _inside_range(placement, 0, width)
        array[:top] = value
        array[bottom:] = value
        array[top:bottom, :left] = value
        array[top:bottom, right:] = value
    else:
        array[_outside(*_source_pixels(placement), source_size)] = value


def beyond_source(placement: Placement, source_size: Size) -> np.ndarray | None:
    """Return which pixels (h, w) bool of a placement lie outside the source image (H, W); None where none does."""
    if _covers(placement, source_size):
        return None
    beyond = np.zeros(placement.size, bool)
    fill_outside(beyond, placement, source_size, True)
    return beyond if beyond.any() else None


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Resize a whole image, as evaluation and prediction do.

    It is OpenCV's bilinear resize; shrinking a side to less than half averages blocks first, as in training.

    Args:
        image: (H, W, C) uint8, uint16 or float32, any C.
        size: (height, width) wanted.
    """
    height, width, channels = image.shape
    if (height, width) == size:
        return image
    if size[0] * 2 < height or size[1] * 2 < width:
        return warp_image(image, Placement(matrix=np.diag([width / size[1], height / size[0], 1.0]), size=size))
    out = np.empty((*size, channels), image.dtype)
    for channel in range(0, channels, CV_CHANNELS):
        part = np.ascontiguousarray(image[..., channel : channel + CV_CHANNELS])
        resized = cv2.resize(part, size[::-1], interpolation=cv2.INTER_LINEAR)
        out[..., channel : channel + CV_CHANNELS] = resized.reshape(*size, -1)
    return out


def _unturned(array: np.ndarray, placement: Placement) -> tuple[np.ndarray, Placement]:
    """Return the transposed source and its placement where rows have become columns, else both as they are."""
    return (array.swapaxes(0, 1), _swapped(placement)) if _is_turned(placement) else (array, placement)


def _is_turned(placement: Placement) -> bool:
    return placement.grid is None and bool(placement.matrix[0, 0] == 0 and placement.matrix[1, 1] == 0)


def _swapped(placement: Placement) -> Placement:
    return Placement(matrix=SWAP @ placement.matrix, size=placement.size)


def _is_axis_aligned(placement: Placement) -> bool:
    return placement.grid is None and bool(placement.matrix[0, 1] == 0 and placement.matrix[1, 0] == 0)


def _axis_points(placement: Placement, axis: int) -> np.ndarray:
    """Return the source coordinate of each new pixel centre along an axis (0: x, 1: y) of an axis-aligned placement."""
    count = placement.size[1 - axis]
    return placement.matrix[axis, axis] * (np.arange(count) + 0.5) + placement.matrix[axis, 2]


def _axis_index(placement: Placement, axis: int, length: int) -> np.ndarray:
    return np.clip(np.floor(_axis_points(placement, axis)), 0, length - 1).astype(np.intp)


def _inside_range(placement: Placement, axis: int, length: int) -> tuple[int, int]:
    """Return the first new pixel that shows the source, and the one after the last; equal where none does."""
    points = _axis_points(placement, axis)
    inside = np.flatnonzero((points >= 0) & (points < length))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


def _source_pixels(placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row of the source pixel that each new pixel centre hits, each (h, w); may lie outside.

    Fixed-point numbers with 20 binary places: adding whole numbers and shifting is several times quicker than floor.
    """
    if placement.grid is not None:
        column, row = np.moveaxis(np.rint(placement.grid * FIXED).astype(np.int64) >> FIXED_BITS, -1, 0)
        return column, row
    height, width = placement.size
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    column, row = (
        np.rint(x * along * FIXED).astype(np.int64) + np.rint((y * across + shift) * FIXED).astype(np.int64)[:, None]
        for along, across, shift in placement.matrix[:2]
    )
    column >>= FIXED_BITS
    row >>= FIXED_BITS
    return column, row


def _outside(column: np.ndarray, row: np.ndarray, source_size: Size) -> np.ndarray:
    return (column < 0) | (column >= source_size[1]) | (row < 0) | (row >= source_size[0])


def _bounds(placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest (x, y) of the source that the new image reaches."""
    if placement.grid is not None:
        return placement.grid.min(axis=(0, 1)), placement.grid.max(axis=(0, 1))
    height, width = placement.size
    corners = np.array([[0.0, width, 0.0, width], [0.0, 0.0, height, height], [1.0, 1.0, 1.0, 1.0]])
    points = placement.matrix[:2] @ corners
    return points.min(axis=1), points.max(axis=1)


def _covers(placement: Placement, source_size: Size) -> bool:
    if placement.grid is not None:
        return False  # its points are looked at one by one
    low, high = _bounds(placement)
    return bool(low.min() >= 0 and high[0] <= source_size[1] and high[1] <= source_size[0])


def _cut(image: np.ndarray, placement: Placement) -> np.ndarray | None:
    """Return a crop or flip by slicing, or None where the placement is not one of whole pixels of the image."""
    if placement.grid is not None:
        return None
    matrix = placement.matrix
    whole = np.array_equal(np.abs(matrix[:2, :2]), np.eye(2)) and np.array_equal(matrix[:2, 2], np.rint(matrix[:2, 2]))
    if not whole:
        return None
    top, bottom = _inside_range(placement, 1, image.shape[0])
    left, right = _inside_range(placement, 0, image.shape[1])
    if top == bottom or left == right:
        return None
    piece = _mirror(
        image[_span(placement, 1, top, bottom), _span(placement, 0, left, right)].copy(order="C"), placement
    )
    height, width = placement.size
    if (bottom - top, right - left) == (height, width):
        return piece
    return np.pad(piece, ((top, height - bottom), (left, width - right), (0, 0)), mode="edge")


def _span(placement: Placement, axis: int, first: int, stop: int) -> slice:
    """Return the source pixels along an axis, in ascending order, that the new pixels first..stop show."""
    ends = placement.matrix[axis, axis] * np.array([first, stop]) + placement.matrix[axis, 2]
    return slice(int(ends.min()), int(ends.max()))


def _warp_tile(image: np.ndarray, placement: Placement) -> np.ndarray:
    """Warp one tile of at most four channels."""
    resized = _resize_window(image, placement)
    return _warp_affine(image, placement) if resized is None else resized


def _resize_window(image: np.ndarray, placement: Placement) -> np.ndarray | None:
    """Return a resized window of whole source pixels, or None where the placement is no such thing.

    OpenCV's resize takes a third of the time of its warp. It repeats the window's edge where enlarging looks beyond it;
    that rim is warped.
    """
    if not _is_axis_aligned(placement):
        return None
    spans, places = [], []
    for axis, length in ((1, image.shape[0]), (0, image.shape[1])):
        scale = placement.matrix[axis, axis]
        first, stop = _inside_range(placement, axis, length)
        ends = np.sort(scale * np.array([first, stop]) + placement.matrix[axis, 2])
        whole = np.rint(ends).astype(int)
        if first == stop or abs(scale) >= 2 or np.abs(ends - whole).max() > WHOLE:
            return None
        spans.append(slice(max(0, int(whole[0])), int(whole[1])))
        places.append((first, stop))
    (top, bottom), (left, right) = places
    out = cv2.resize(image[spans[0], spans[1]], (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    out = _mirror(out.reshape(bottom - top, right - left, -1), placement)
    height, width = placement.size
    if out.shape[:2] != (height, width):
        out = cv2.copyMakeBorder(out, top, height - bottom, left, width - right, cv2.BORDER_REPLICATE)
        out = out.reshape(height, width, -1)
    _warp_rim(out, image, placement)
    return out


def _warp_rim(out: np.ndarray, image: np.ndarray, placement: Placement) -> None:
    """Warp, in place, the outermost pixels whose neighbours lie outside an enlarged window."""
    height, width = placement.size
    for axis, length in ((0, image.shape[1]), (1, image.shape[0])):
        scale, new = abs(placement.matrix[axis, axis]), placement.size[1 - axis]
        rim = min(int(np.ceil(0.5 / scale - 0.5 - WHOLE)), new)
        if rim < 1 or scale * new > length - WHOLE:
            continue
        for start in {0, new - rim}:
            top, left = (start, 0) if axis == 1 else (0, start)
            size = (rim, width) if axis == 1 else (height, rim)
            shift = np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])
            strip = _warp_affine(image, placement.then(Placement(matrix=shift, size=size)))
            out[top : top + size[0], left : left + size[1]] = strip


def _mirror(piece: np.ndarray, placement: Placement) -> np.ndarray:
    mirrored = (placement.matrix[1, 1] < 0, placement.matrix[0, 0] < 0)
    if not any(mirrored):
        return piece
    return cv2.flip(piece, -1 if all(mirrored) else int(mirrored[1])).reshape(piece.shape)


def _warp_affine(image: np.ndarray, placement: Placement) -> np.ndarray:
    """Cut the source window, shrink it by whole blocks if need be, one warp."""
    matrix = placement.matrix
    low, high = _bounds(placement)
    block = np.maximum(1, (np.hypot(matrix[:2, 0], matrix[:2, 1]) + 1e-6).astype(int))
    limit = np.array([image.shape[1], image.shape[0]])
    start = np.clip(np.floor(low).astype(int) - MARGIN * block, 0, limit - 1) // block * block
    stop = np.clip(np.ceil(high).astype(int) + MARGIN * block, start + 1, limit)
    window = image[start[1] : stop[1], start[0] : stop[0]]
    if block.max() > 1:
        window = _shrink(window, (int(block[1]), int(block[0])))
    to_window = np.array([[1 / block[0], 0, -start[0] / block[0]], [0, 1 / block[1], -start[1] / block[1]], [0, 0, 1]])
    if placement.grid is not None:
        along, down = (placement.grid[..., axis] * to_window[axis, axis] + to_window[axis, 2] - 0.5 for axis in (0, 1))
        maps = along.astype(np.float32), down.astype(np.float32)
        warped = cv2.remap(window, *maps, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return warped.reshape(*placement.size, -1)
    centred = to_window @ matrix
    centred[:2, 2] += centred[:2, :2].sum(axis=1) * 0.5 - 0.5
    warped = cv2.warpAffine(
        window,
        centred[:2],
        placement.size[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return warped.reshape(*placement.size, -1)


def _shrink(window: np.ndarray, block: Size) -> np.ndarray:
    """Average blocks of (rows, columns) pixels; the last block of a side is filled up with its edge."""
    height, width = window.shape[:2]
    down, across = -height % block[0], -width % block[1]
    filled = cv2.copyMakeBorder(window, 0, down, 0, across, cv2.BORDER_REPLICATE)
    size = ((width + across) // block[1], (height + down) // block[0])
    return cv2.resize(filled, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
