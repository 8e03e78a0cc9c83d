"""What a Predictor returns for one image: its result, and what people do with it: look at it, save it, list it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import numpy as np

from segatlas import drawing
from segatlas.inference.images import ImageLike, as_view
from segatlas.output import result_record, save_result
from segatlas.structures import ImageResult

MOST_TOLD = 4
"""Classes that a line names."""

ELSEWHERE = {
    "masks": "instances, each with .mask",
    "boxes": "instances, each with .box",
    "pred_instances": "instances, each with .mask and .box",
    "pred_sem_seg": "semantic",
    "pred_panoptic_seg": "panoptic",
    "seg_logits": "what Predictor.scores gives of a batch",
    "probs": "confidence, that of the class in semantic",
    "orig_img": "image",
    "orig_shape": "size",
    "names": "classes",
    "path": "source",
}
"""What results of other libraries are asked for -> what it is here."""

OFFERED = "a result has semantic, instances, panoptic, areas(), polygons(), overlay() and save()"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Segmentation(ImageResult):
    """What a Predictor returns for one image, always in the image's own size.

    `semantic`, `instances` and `panoptic` raise TaskError when the model cannot give them. What follows from them is
    made anew at each call and not kept.

    A result keeps its image, in the form to look at: 8 bits and three channels, three bytes a pixel (of 8-bit RGB it is
    the array that was predicted, not a copy). `without_image` gives the same without it.
    """

    def mask_image(self) -> np.ndarray:
        """Return (H, W, 3) uint8: each pixel in its class's colour."""
        return drawing.result_colors(self)

    def overlay(self, legend: bool = True, image: ImageLike | None = None, alpha: float = 0.5) -> np.ndarray:
        """Return the image tinted with class colours, and a legend beside it: (H', W', 3) uint8; without, (H, W, 3).

        Objects and segments have lines around them, and the legend counts them; "none" are the pixels of none. A
        result that does not keep its image, and is given none, is drawn in the colours alone.

        Args:
            legend: add it.
            image: what `predict` takes as an image, of the result's size, in place of its own.
            alpha: fraction of the class colour, 0..1.

        Raises:
            DataError: an image of another size, or one that cannot be read.
        """
        return drawing.result_overlay(self, self._view(image), legend=legend, alpha=alpha)

    def plot(self, axes: Any = None, image: ImageLike | None = None, alpha: float = 0.5) -> Any:
        """Return a `Figure` of matplotlib: the image, what was found, with names and scores of objects, and a legend.

        Where `confidence` was asked for it is a third panel. Axes count the image's pixels. Large images are drawn
        smaller; `overlay` has all pixels.

        Args:
            axes: draw what was found on these axes of yours instead.
            image: as of `overlay`.
            alpha: as of `overlay`.

        Raises:
            DataError: as of `overlay`.
        """
        return drawing.result_plot(self, self._view(image), axes=axes, alpha=alpha)

    def show(self) -> None:
        """Show the overlay: in a notebook below the cell, else in a window; UsageError where there is neither."""
        drawing.show(self, self.overlay, drawing.name_of(self) or "segmentation")

    def save(self, path: str | Path, kinds: str | Sequence[str] | None = None) -> list[Path]:
        """Write to a file whose name says the kind (`street_mask.png`, `street.png`, `street.json`), or into a folder.

        Kinds are those of `segatlas predict --save`. An image whose name ends with no kind is the overlay; a path
        without a suffix is a folder, which gets the usual kinds of the task, or `kinds`. See
        `segatlas.output.save_result`.

        Returns:
            What was written.

        Raises:
            UsageError: a name that says no kind of this task, all of which it lists; the file of the image itself.
            TaskError: what the kind shows is not kept: the image, the confidence.
            DataError: it cannot be written.
        """
        return save_result(self, path, kinds)

    def to_dict(self) -> dict[str, Any]:
        """Return what the kind "json" writes, as plain data: what was found, with areas, scores, boxes and masks."""
        return result_record(self)

    def __repr__(self) -> str:
        height, width = self.size
        name = f"{drawing.name_of(self)}, " if self.source else ""
        return f"Segmentation({name}{height}x{width}: {_told(self)})"

    def _repr_png_(self) -> bytes:
        return drawing.small_png(self)

    def _repr_html_(self) -> str:
        return drawing.result_html(self)

    def __getitem__(self, index: object) -> Never:
        raise TypeError(f"one image gives one result, not a list of them: use it without [{index!r}]; {OFFERED}")

    __iter__ = None  # without it, what has __getitem__ counts as a sequence

    if not TYPE_CHECKING:  # a checker would take every attribute for one that is there

        def __getattr__(self, name: str) -> Never:
            """Say where that is which a result of another library has; asked only for what is not there."""
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in ELSEWHERE:
                text += f"; here it is {ELSEWHERE[name]}; {OFFERED}"
            raise AttributeError(text, name=name, obj=self)

    def _view(self, image: ImageLike | None) -> np.ndarray | None:
        return None if image is None else as_view(image)


def _told(result: Segmentation) -> str:
    """Return on one line what was found: the largest classes, or how many objects of each class."""
    if result.segments is not None:
        kinds = "segments"
        found = [one.class_index for one in result.segments.segments]
    elif result.objects is not None and result.class_map is None:
        kinds = "objects"
        found = [one.class_index for one in result.objects]
    elif result.class_map is not None:
        pixels, total = result.class_pixels(), result.class_map.size
        order = sorted(pixels, key=lambda index: -pixels[index])
        return _shortened([f"{result.classes[index]} {drawing.percent(pixels[index] / total)}" for index in order])
    else:
        return "nothing"
    counts = {index: found.count(index) for index in dict.fromkeys(found)}
    order = sorted(counts, key=lambda index: -counts[index])
    named = _shortened([f"{result.classes[index]} {counts[index]}" for index in order])
    return f"{len(found)} {kinds if len(found) != 1 else kinds[:-1]}{f', {named}' if found else ''}"


def _shortened(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - MOST_TOLD} more" if len(texts) > MOST_TOLD else ""
    return f"{', '.join(texts[:MOST_TOLD])}{more}"
