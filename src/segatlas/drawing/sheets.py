"""Several images on one sheet of paper: the validation sheet (image | truth | prediction | error) and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segatlas.drawing.gallery import place
from segatlas.drawing.maps import LINE, Color, boundaries, color_mask, error_image, not_tinted, viewable
from segatlas.drawing.text import INK, MUTED, canvas, font, shortened, tell_missing
from segatlas.labels import IGNORE
from segatlas.structures import Result, SegmentsTarget

if TYPE_CHECKING:
    from segatlas.structures import Instance, InstancesTarget, SemanticTarget

Pixels = np.ndarray

NO_OBJECT, IGNORED = -1, -2
"""In a map of objects' classes: a pixel of no object, one that is not judged."""

SAMPLE_TITLES = ("image", "truth", "prediction", "error")


def sample_row(
    image: Pixels, label: np.ndarray, prediction: np.ndarray, palette: Sequence[Color], ignore: int = IGNORE
) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return one row of a validation sheet: image, truth, prediction and error (see SAMPLE_TITLES).

    Args:
        image: (H, W, C) of any type.
        label: (H, W) true classes, `ignore` where there is no truth.
        prediction: (H, W) predicted classes.
        palette: K RGB colours.
        ignore: the label value that is not judged.
    """
    truth = color_mask(label, palette)
    truth[label == ignore] = 0
    return viewable(image), truth, color_mask(prediction, palette), error_image(prediction, label, ignore)


def semantic_row(
    image: Pixels, target: SemanticTarget, result: Result, palette: Sequence[Color]
) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return `sample_row` of a truth and a result: the row of the task "semantic"."""
    return sample_row(image, np.asarray(target.labels), result.semantic, palette)


def instance_row(
    image: Pixels, target: InstancesTarget, result: Result, palette: Sequence[Color]
) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return the row of the task "instance": each object in its class's colour, with a line between objects.

    An error is a pixel whose class, or none, differs; crowds are not judged.
    """
    masks, classes, crowd = (np.asarray(part) for part in target[:3])
    size = masks.shape[1:]
    truth_ids = _true_ids(masks, crowd)
    found_ids = _ids_of(result.instances, (size[0], size[1]))
    found_classes = np.array([one.class_index for one in result.instances], np.int64)
    truth, found = _classes_of(truth_ids, classes), _classes_of(found_ids, found_classes)
    ignored = masks[crowd.astype(bool)].any(axis=0)
    error = error_image(found, np.where(ignored, IGNORED, truth), IGNORED)
    return viewable(image), _objects(truth_ids, truth, palette), _objects(found_ids, found, palette), error


def panoptic_row(
    image: Pixels, target: SegmentsTarget, result: Result, palette: Sequence[Color]
) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return the row of the task "panoptic": each segment in its class's colour, with a line between segments.

    An error is a pixel whose class, or none, differs; ignored pixels and crowds are not judged.
    """
    truth_ids = np.asarray(target.ids)
    truth = _classes_of(truth_ids, np.asarray(target.classes))
    found_ids, found = segment_maps(result)
    crowd = np.append(np.asarray(target.crowd).astype(bool), True)[truth_ids]  # the last is that of ignored pixels
    error = error_image(found, np.where(crowd, IGNORED, truth), IGNORED)
    return viewable(image), _objects(truth_ids, truth, palette), _objects(found_ids, found, palette), error


def segment_maps(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W) the number of each pixel's segment, -1 = none, and its class, NO_OBJECT = none."""
    classes = np.array([NO_OBJECT] * (1 + max((one.id for one in result.panoptic.segments), default=0)))
    for one in result.panoptic.segments:
        classes[one.id] = one.class_index
    ids = result.panoptic.ids
    return ids - 1, classes[ids]


def object_maps(result: Result, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W) the number of each pixel's object or segment, -1 = none, and its class, NO_OBJECT = none.

    Of a result that has a class map alone, each class counts as one.

    Args:
        result: what was found.
        size: (H, W) of the image.
    """
    if result.segments is not None:
        return segment_maps(result)
    if result.objects is None:
        numbers = result.semantic.astype(np.int32)
        return numbers, numbers
    ids = _ids_of(result.instances, size)
    return ids, _classes_of(ids, np.array([one.class_index for one in result.instances], np.int64))


def truth_maps(target: InstancesTarget | SegmentsTarget) -> tuple[np.ndarray, np.ndarray]:
    """Return the same of a truth, the smallest object on top."""
    ids = np.asarray(target.ids) if isinstance(target, SegmentsTarget) else _true_ids(np.asarray(target.masks))
    return ids, _classes_of(ids, np.asarray(target.classes))


def truth_overlay(image: Pixels, target: InstancesTarget | SegmentsTarget, palette: Sequence[Color]) -> Pixels:
    """Return the image (H, W, 3) with each true object or segment tinted in its class's colour, and lines between."""
    return _tinted(image, *truth_maps(target), palette)


def _true_ids(masks: np.ndarray, hidden: np.ndarray | None = None) -> np.ndarray:
    """Return (H, W) the index of each pixel's object of masks (M, H, W), the smallest on top; -1 = none.

    hidden: (M,) bool, masks that are left out.
    """
    ids = np.full(masks.shape[1:], -1, np.int32)
    for index in np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist():
        if hidden is None or not hidden[index]:
            ids[masks[index]] = index
    return ids


def object_overlay(image: Pixels, objects: Sequence[Instance], palette: Sequence[Color]) -> Pixels:
    """Return the image (H, W, 3) with each object tinted in its class's colour, and a line between objects."""
    found = Result(objects=tuple(objects))
    return _tinted(image, *object_maps(found, (image.shape[0], image.shape[1])), palette)


def _tinted(image: Pixels, ids: np.ndarray, classes: np.ndarray, palette: Sequence[Color]) -> Pixels:
    drawn, inside = _objects(ids, classes, palette), (ids >= 0) & ~not_tinted(classes, palette)
    tinted = image.copy()
    tinted[inside] = (image[inside].astype(np.uint16) + drawn[inside]) // 2
    tinted[boundaries(ids)] = LINE
    return tinted


def _ids_of(objects: Sequence[Instance], size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) the index of each pixel's object, the surest on top; -1 = none."""
    ids = np.full(size, -1, np.int32)
    for index, one in reversed([*enumerate(objects)]):
        ids[one.mask] = index
    return ids


def _classes_of(ids: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return (H, W) the class of each pixel's object, NO_OBJECT where it has none."""
    return np.where(ids >= 0, classes[np.maximum(ids, 0)], NO_OBJECT) if classes.size else np.full(ids.shape, NO_OBJECT)


def _objects(ids: np.ndarray, classes: np.ndarray, palette: Sequence[Color]) -> Pixels:
    drawn = color_mask(np.where(classes == NO_OBJECT, len(palette), classes), palette)
    drawn[boundaries(ids)] = LINE
    return drawn


def sheet(
    rows: Sequence[Sequence[Pixels | None]],
    titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    cell_width: int = 360,
) -> Pixels:
    """Return a grid of images on white paper, one title over each column and under each row.

    Each image is scaled to fit its cell with its ratio kept; None leaves a cell empty.

    Args:
        rows: images, each (H, W, 3) uint8 RGB; rows may differ in the images' sizes.
        titles: one for each column, or none.
        row_titles: one for each row (a file name, a score), or none.
        cell_width: width of a column in pixels.
    """
    if not rows or not any(image is not None for row in rows for image in row):
        raise ValueError("a sheet needs at least one image")
    tell_missing([*titles, *row_titles])
    text = max(13, cell_width // 22)
    gap = max(6, cell_width // 50)
    columns = max(len(row) for row in rows)
    heights = [_row_height(row, cell_width) for row in rows]
    header = round(2 * text) if titles else gap
    caption = round(1.7 * text) if row_titles else 0
    width = gap + columns * (cell_width + gap)
    paper, pen = canvas(width, header + sum(h + caption + gap for h in heights))
    for column, title in enumerate(titles):
        centre = gap + column * (cell_width + gap) + cell_width / 2
        name = shortened(title, text, cell_width)
        pen.text((centre, header / 2), name, fill=INK, font=font(text, name), anchor="mm")
    top = header
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for column, image in enumerate(row):
            if image is not None:
                place(paper, image, gap + column * (cell_width + gap), top, cell_width, height)
        if number < len(row_titles):
            middle = top + height + caption / 2
            name = shortened(row_titles[number], text - 2, width - 2 * gap)
            pen.text((gap, middle), name, fill=MUTED, font=font(text - 2, name), anchor="lm")
        top += height + caption + gap
    return np.asarray(paper)


def side_by_side(images: Sequence[Pixels], titles: Sequence[str] = (), cell_width: int = 480) -> Pixels:
    """Return images next to each other with a title over each."""
    return sheet([images], titles, cell_width=cell_width)


def _row_height(row: Sequence[Pixels | None], cell_width: int) -> int:
    """Height that the row's tallest image needs, at most twice the width of a cell."""
    wanted = [cell_width * p.shape[0] / p.shape[1] for p in row if p is not None]
    return round(min(max(wanted, default=1), 2 * cell_width)) or 1
