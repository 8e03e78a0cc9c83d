"""From prepared images to segmentations: passes through the network, whole or by windows and views, then results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from segatlas.checkpoint.card import Card
from segatlas.config.objects import ObjectRule, asked_rule
from segatlas.errors import DataError, UsageError
from segatlas.inference.exponentials import ExponentialRows
from segatlas.inference.images import ImageBatch, PreparedImage, ScaledInputs
from segatlas.inference.object_windows import WindowNotices, results_by_windows
from segatlas.inference.runner import Runner
from segatlas.inference.segmentation import Segmentation
from segatlas.inference.sliding import Tile, WindowRows, Windows, card_windows, slide, slide_class_map
from segatlas.inference.smoothing import SmoothedRunner
from segatlas.inference.tta import View, mean_of_views
from segatlas.models import find_entry
from segatlas.ops import upsample_logits
from segatlas.ops.summed_map import best_of, chunk_rows
from segatlas.postprocess import find
from segatlas.postprocess.semantic_logits import semantic_results
from segatlas.structures import Inputs, QueryMasks, Result, SemanticLogits, image_of
from segatlas.tasks import TASKS


class Segmenter:
    """How a card's network makes results of images: by which windows and views, and by which postprocess."""

    def __init__(
        self,
        card: Card,
        *,
        windows: Windows | None,
        views: Sequence[View],
        window_batch: int | None,
        objects: Mapping[str, Any] | None = None,
        model: str = "",
    ):
        """Look up the postprocess of the card's task.

        Args:
            card: of the network.
            windows: those asked for in place of the card's mode.
            views: of test-time augmentation; none = the image as it is.
            window_batch: windows per pass; None = as many as keep the device busy.
            objects: what is asked of objects in place of the card's rule, see `asked_rule`.
            model: what results say they are of.

        Raises:
            TaskError: no result of the card's task can be made of the network's output.
            UsageError: views for a network of something else than class maps; a `window_batch` below 1.
        """
        output = find_entry(card.architecture)[0].output
        self._output = output
        self._postprocess = find(output, card.task)
        scored = output == QueryMasks.__name__ and TASKS[card.task].target == "SemanticTarget"
        self._of_objects = output != SemanticLogits.__name__ and not scored
        if output != SemanticLogits.__name__ and views:
            raise UsageError(f"tta: test-time augmentation is for class maps; {card.architecture} gives {output}")
        asked = {name: value for name, value in (objects or {}).items() if value is not None}
        if asked and "instances" not in TASKS[card.task].result:
            needs = "needs a window, or a model of objects" if [*asked] == ["overlap"] else "is for models of objects"
            raise UsageError(f"{', '.join(asked)}: {needs}; the task of this one is {card.task}")
        self.rule = asked_rule(card.objects, asked)
        if window_batch is not None and window_batch < 1:
            raise UsageError(f"window_batch: got {window_batch}, expected 1 or more")
        self.card, self._model = card, model
        self.windows = windows or card_windows(card.inference)
        self._views = tuple(views)
        self._window_batch = window_batch

    def smoothed(self, runner: Runner, weight: float, batch: int) -> SmoothedRunner:
        """Return a runner with temporal smoothing for one video. UsageError where there is none for it."""
        if self._output != SemanticLogits.__name__:
            raise UsageError(
                "smooth: temporal smoothing is the mean of class probabilities; "
                f"{self.card.architecture} gives {self._output}"
            )
        if self._views:
            raise UsageError("smooth: temporal smoothing and test-time augmentation do not go together")
        if batch != 1:
            raise UsageError(f"smooth: temporal smoothing goes frame by frame; got a batch of {batch}")
        return SmoothedRunner(runner, weight)

    @torch.inference_mode()
    def segment(
        self, runner: Runner, images: Sequence[PreparedImage], confidence: bool, notices: WindowNotices
    ) -> list[Segmentation | DataError]:
        """Segment images, those of one input size and one own size together; results in the order given.

        What is to be told of their windows is counted on in `notices`. An image that the memory does not suffice for
        has an error in place of its result.
        """
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault((image.input_size, image.size), []).append(index)
        results: dict[int, Segmentation | DataError] = {}
        for indices in groups.values():
            chosen = [images[index] for index in indices]
            results |= zip(indices, self._segmented(runner, chosen, confidence, notices), strict=True)
        return [results[index] for index in range(len(images))]

    def _segmented(
        self, runner: Runner, images: Sequence[PreparedImage], confidence: bool, notices: WindowNotices
    ) -> Sequence[Segmentation | DataError]:
        """Segment images of one size in one pass."""
        inputs = ImageBatch(images, runner.device)
        try:
            results = self._results(runner, inputs, images[0].size, confidence, notices)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            return [_too_large(image, len(images)) for image in images]
        return [self._named(result, image) for result, image in zip(results, images, strict=True)]

    def _named(self, result: Result, image: PreparedImage) -> Segmentation:
        """Return a result as users hold it."""
        return Segmentation(
            **vars(result),
            size=image.size,
            classes=self.card.classes,
            palette=self.card.palette,
            source=image.source,
            image=image.view,
            model=self._model,
        )

    def _results(
        self, runner: Runner, inputs: ImageBatch, size: tuple[int, int], confidence: bool, notices: WindowNotices
    ) -> list[Result]:
        """Return the results at `size` for a batch of network inputs."""
        if self._views:
            return semantic_results(*self._maps_of_views(runner, inputs, size, confidence))
        if self.windows is not None and self._of_objects:
            return results_by_windows(
                inputs,
                self.windows,
                partial(self._window_results, runner),
                size,
                rule=self.rule,
                things=self.card.things,
                most=self.card.config.get("top"),
                notices=notices,
            )
        if self.windows is not None:
            batch = self._window_batch
            maps = slide_class_map(inputs, self.windows, runner.logits, size, confidence=confidence, batch=batch)
            return semantic_results(*maps)
        output = runner.output(inputs.whole())
        return self._postprocess(
            output, size, crop=inputs.size, confidence=confidence, rule=self.rule, things=self.card.things
        )

    def _window_results(
        self, runner: Runner, part: Tensor | Inputs, size: tuple[int, int], rule: ObjectRule
    ) -> list[Result]:
        """Return the results of a window of the batch at `size`."""
        return self._postprocess(runner.output(part), size, crop=_size(part), rule=rule, things=self.card.things)

    def _maps_of_views(
        self, runner: Runner, inputs: ImageBatch, size: tuple[int, int], confidence: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return class maps (N, H, W) and confidences at `size` of the mean of the views' probabilities."""
        exponential = self._views[0].exponential
        views: Iterator[Tile | WindowRows | ExponentialRows] = (
            self._exponentials(runner, inputs, size)
            if exponential
            else (self._view_rows(runner, inputs, view, size) for view in self._views)
        )
        first = next(views)
        logits, held = first.sample(), not exponential
        if isinstance(first, Tile):
            held = len(self._views) * logits[0, 0].numel() <= size[0] * size[1]
        step, count = chunk_rows(logits, size[1]), len(self._views)
        chunks = mean_of_views(chain([first], views), count, size[0], step, held=held, exponential=exponential)
        best = [(best_of(chunk).cpu(), chunk.amax(dim=1).cpu() if confidence else None) for chunk in chunks]
        labels = torch.cat([classes for classes, _ in best], dim=1)
        return labels, torch.cat([sure for _, sure in best if sure is not None], dim=1) if confidence else None

    def _view_rows(self, runner: Runner, inputs: ImageBatch, view: View, size: tuple[int, int]) -> Tile | WindowRows:
        """Return a view's logits, to be taken row by row at `size`."""
        if self.windows is None:
            seen = view.seen(inputs.whole())
            return Tile(output=runner.logits(seen)._replace(aux={}), size=size, covered=_size(seen), view=view)
        pixels = inputs if view.scale == 1.0 else ScaledInputs(inputs, view.scale)
        return WindowRows(pixels, self.windows, runner.logits, size, view=view, batch=self._window_batch)

    def _exponentials(self, runner: Runner, inputs: ImageBatch, size: tuple[int, int]) -> Iterator[ExponentialRows]:
        """Yield the exponentials of each view; those above the image's size are seen in tiles of it."""
        largest: Tensor | None = None
        for view in self._views:
            pixels = inputs if view.scale == 1.0 else ScaledInputs(inputs, view.scale)
            side = inputs.size[::-1] if view.turns % 2 else inputs.size
            tiles = self.windows or Windows(crop=side, stride=side)
            found = ExponentialRows(
                pixels, tiles, runner.logits, size, view=view, largest=largest, batch=self._window_batch
            )
            largest = found.largest
            yield found


def scores(runner: Runner, inputs: Tensor | Inputs, windows: Windows | None) -> Tensor:
    """Return logits (N, K, H, W) float32 upsampled to the size of `inputs`, the plain way: all of them are held."""
    size = _size(inputs)
    if windows is None:
        output = runner.logits(inputs)
    else:
        output = SemanticLogits(slide(inputs, windows, lambda window: scores(runner, window, None)), canvas=size)
    mode, align_corners = output.resample
    return upsample_logits(output.logits, size, canvas=output.canvas, crop=size, align_corners=align_corners, mode=mode)


def _size(inputs: Tensor | Inputs) -> tuple[int, int]:
    image = image_of(inputs)
    return image.shape[-2], image.shape[-1]


def _too_large(image: PreparedImage, count: int) -> DataError:
    height, width = image.input_size
    return DataError(
        f"not enough memory for {count} image(s) of {height}x{width}; use a window (window=1024), "
        "a smaller batch or fewer scales",
        image.source or None,
    )
