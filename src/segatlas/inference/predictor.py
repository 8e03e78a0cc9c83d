"""The Predictor: images in, segmentations in the images' own size out."""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from segatlas.checkpoint.card import Card
from segatlas.config.plain import LARGEST_SCALE, SMALLEST_SCALE
from segatlas.errors import DataError, SegAtlasError, TaskError, UsageError
from segatlas.inference.current_form import CurrentForm, PlainForm
from segatlas.inference.images import (
    GivenImage,
    ImageBatch,
    ImageLike,
    PreparedImage,
    ScaledInputs,
    WithSources,
    prepare,
)
from segatlas.inference.segmentation import Segmentation
from segatlas.inference.sliding import (
    DEFAULT_OVERLAP,
    Tile,
    WindowRows,
    Windows,
    card_windows,
    make_windows,
    slide,
    slide_class_map,
)
from segatlas.inference.tta import View, mean_of_views, parse_views
from segatlas.models.listing import find_entry
from segatlas.ops import upsample_logits
from segatlas.ops.summed_map import best_of, chunk_rows
from segatlas.postprocess import find
from segatlas.postprocess.semantic_logits import semantic_results
from segatlas.structures import Inputs, Output, Result, SemanticLogits, changed, image_of, with_maps

Precision = Literal["fp32", "bf16"]
LOGGER = logging.getLogger("segatlas")

OnError = Callable[[GivenImage, Exception], None]


class Predictor:
    """A network with its card, ready to segment images.

    Everything about the input (resize, mean, std, largest value, channels, whole image or windows) comes from the
    card. `model` is the network in eval mode, `card` its card, `device` where it runs.

    Images are predicted by a fast form of the network, see `segatlas.inference.fast_form`, made at the first of them
    and again when weights of `model` have changed. `model` itself stays plain, with its published parameters.

    Several threads may predict with one Predictor at the same time, from the first image on; each gets what it would
    get alone. Weights must not change meanwhile.
    """

    def __init__(
        self,
        model: nn.Module,
        card: Card,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        tta: str | Sequence[str] = (),
        window: int | tuple[int, int] | None = None,
        overlap: float = DEFAULT_OVERLAP,
        window_batch: int | None = None,
        max_value: float | None = None,
        check_scale: bool = True,
    ):
        """Move the network to the device and set it to eval mode.

        Args:
            model: a network of the card's architecture.
            card: its card.
            device: "auto" (CUDA, else MPS, else processor), "cpu", "cuda", "cuda:1", "mps".
            precision: "bf16" runs the network in mixed precision; where the device or processor has no instructions
                for it, a warning says so and fp32 is used.
            tta: test-time augmentation, see `parse_views`.
            window: predict by windows of N x N or (h, w) pixels of the network's input instead of the card's mode.
            overlap: fraction that neighbouring windows of `window` have in common.
            window_batch: windows per pass of the network; default: as many as keep the device busy.
            max_value: the stored value that is full scale in the images to come (1 for floats of 0..1, 4095 for 12
                bits), where it is not the one that the card expects.
            check_scale: refuse images whose values cannot be meant on the card's scale. Off for images of a data
                set, which is looked at as a whole.

        Raises:
            UsageError: an argument out of range, or a device that is not there.
            TaskError: no result of the card's task can be made of the network's output, or not with windows or
                test-time augmentation.
        """
        output = find_entry(card.architecture)[0].output
        self._postprocess = find(output, card.task)
        self.card = card
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.model = model.to(self.device).eval()
        self._form = CurrentForm(self.model, card.inputs, self.precision)
        self._views = parse_views(tta)
        self._card_windows = card_windows(card.inference)
        self._windows = self._card_windows if window is None else make_windows(window, overlap)
        if output != SemanticLogits.__name__ and (self._views or self._windows is not None):
            raise TaskError(
                f"windows and test-time augmentation are for class maps; {card.architecture} gives {output}"
            )
        if window_batch is not None and window_batch < 1:
            raise UsageError(f"window_batch: got {window_batch}, expected 1 or more")
        self._window_batch = window_batch
        if max_value is not None and not SMALLEST_SCALE <= max_value <= LARGEST_SCALE:
            expected = f"expected a number from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}"
            raise UsageError(f"max_value: got {max_value}, {expected}")
        self._prepare = partial(prepare, card=card, max_value=max_value, check_scale=check_scale)

    @overload
    def predict(
        self, image: GivenImage, confidence: bool = False, sources: Mapping[str, ImageLike] | None = None
    ) -> Segmentation: ...

    @overload
    def predict(
        self, image: list[Any] | tuple[Any, ...], confidence: bool = False, sources: Mapping[str, Any] | None = None
    ) -> list[Segmentation]: ...

    def predict(
        self,
        image: GivenImage | list[Any] | tuple[Any, ...],
        confidence: bool = False,
        sources: Mapping[str, Any] | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segment one image, or each of a list.

        Args:
            image: file (str or Path), PIL image, array (H, W, 3) uint8 RGB (also (H, W), N channels, uint16, or
                float in stored values), tensor (C, H, W) uint8 or float 0..1, or a list of these.
            confidence: also give the probability of the chosen class, (H, W) float32.
            sources: further inputs of the model by the names of its card, on the same pixels, each what an image may
                be; for a list of images, a list of as many.

        Returns:
            One Segmentation in the image's own size for each image, a list for a list.

        Raises:
            DataError: an image that cannot be read or does not fit the model; it names the file.
            UsageError: a source that the model needs is not given, or one that it does not take is.
        """
        if isinstance(image, list | tuple):
            given = image if sources is None else _zipped(image, sources)
            return list(self.predict_iter(given, confidence=confidence))
        if sources is not None:
            image = WithSources(image=image.image if isinstance(image, WithSources) else image, sources=sources)
        return self._segment([self._prepare(image)], confidence)[0]

    def predict_iter(
        self,
        images: Iterable[GivenImage],
        batch: int = 1,
        on_error: OnError | None = None,
        confidence: bool = False,
    ) -> Iterator[Segmentation]:
        """Segment many images in order, reading the next ones in a thread meanwhile.

        Args:
            images: as for `predict`, or `WithSources`; taken one by one in the reading thread, so it may be endless.
            batch: images per pass of the network; only images of one size share a pass.
            on_error: called with the image and its error (DataError, OSError) in place of a result; the rest goes on.
                Without it the first error is raised.
            confidence: as for `predict`.

        Yields:
            One Segmentation for each good image, in order.
        """
        if batch < 1:
            raise UsageError(f"batch: got {batch}, expected 1 or more")
        for group in _read_ahead(images, self._prepare, batch, whole=self._windows is None):
            good: list[tuple[GivenImage, PreparedImage]] = []
            for read in group:
                if read.prepared is not None:
                    good.append((read.image, read.prepared))
                    continue
                # What came before it in this group is given out first, so that order is kept.
                yield from self._guarded(good, confidence, on_error)
                good = []
                assert read.error is not None
                _report(read.image, read.error, on_error)
            yield from self._guarded(good, confidence, on_error)

    @torch.inference_mode()
    def scores(self, inputs: Tensor | Inputs) -> Tensor:
        """Return logits at the input's size for a normalised batch, upsampled exactly as the published model does.

        The card's own inference mode is used (whole images, or windows of its crop and stride); `tta` and `window`
        play no part. This is the slow path, for inspection: it holds every logit and runs the plain network in fp32.

        Args:
            inputs: image (N, C, H, W) float, normalised as the card says, or with the sources that the model takes.

        Returns:
            (N, K, H, W) float32 on the device of `inputs`.
        """
        plain = self.with_precision("fp32")
        plain._form = PlainForm(self.model, self.card.inputs, "fp32")
        return plain._logits(inputs.to(self.device), _size(inputs), self._card_windows).to(image_of(inputs).device)

    def with_precision(self, precision: str) -> Predictor:
        """Return the same predictor, of the same network, in another precision."""
        other = copy.copy(self)
        other.precision = resolve_precision(precision, self.device)
        other._form = CurrentForm(self.model, self.card.inputs, other.precision)
        return other

    @torch.inference_mode()
    def output(self, inputs: Tensor | Inputs) -> Output:
        """Return the network's output at its own stride, in the predictor's precision; its maps are float32.

        Args:
            inputs: image (N, C, H, W) float on the predictor's device, normalised as the card says, or with the
                sources that the model takes.
        """
        return self._forward(inputs)

    def _guarded(
        self, images: Sequence[tuple[GivenImage, PreparedImage]], confidence: bool, on_error: OnError | None
    ) -> Iterator[Segmentation]:
        """Segment a group; where memory does not suffice, each image of it is reported."""
        if not images:
            return
        try:
            yield from self._segment([prepared for _, prepared in images], confidence)
        except DataError as error:
            for image, _ in images:
                _report(image, error, on_error)

    @torch.inference_mode()
    def _segment(self, images: Sequence[PreparedImage], confidence: bool) -> list[Segmentation]:
        """Segment images, those of one input size and one own size together; results in the order given."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault((image.input_size, image.size), []).append(index)
        results: dict[int, Segmentation] = {}
        for indices in groups.values():
            chosen = [images[index] for index in indices]
            for index, result in zip(indices, self._results_or_advice(chosen, confidence), strict=True):
                results[index] = self._named(result, images[index])
        return [results[index] for index in range(len(images))]

    def _named(self, result: Result, prepared: PreparedImage) -> Segmentation:
        """Return a result as users hold it."""
        return Segmentation(
            **vars(result),
            size=prepared.size,
            classes=self.card.classes,
            palette=self.card.palette,
            source=prepared.source,
            image=prepared.view,
        )

    def _results_or_advice(self, images: Sequence[PreparedImage], confidence: bool) -> list[Result]:
        inputs = ImageBatch(images, self.device)
        try:
            return self._results(inputs, images[0].size, confidence)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            height, width = inputs.size
            raise DataError(
                f"not enough memory for {len(images)} image(s) of {height}x{width}; use a window (window=1024), "
                "a smaller batch or fewer scales",
                images[0].source or None,
            ) from error

    def _results(self, inputs: ImageBatch, size: tuple[int, int], confidence: bool) -> list[Result]:
        """Return the results at `size` for a batch of network inputs."""
        if self._views:
            return semantic_results(*self._maps_of_views(inputs, size, confidence))
        if self._windows is not None:
            batch = self._window_batch
            maps = slide_class_map(inputs, self._windows, self._logits_of, size, confidence=confidence, batch=batch)
            return semantic_results(*maps)
        return self._postprocess(self._forward(inputs.whole()), size, crop=inputs.size, confidence=confidence)

    def _maps_of_views(
        self, inputs: ImageBatch, size: tuple[int, int], confidence: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return class maps (N, H, W) and confidences at `size` of the mean of the views' probabilities."""
        views = (self._view_rows(inputs, view, size) for view in self._views)
        first = next(views)
        logits, held = first.sample(), True
        if isinstance(first, Tile):
            held = len(self._views) * logits[0, 0].numel() <= size[0] * size[1]
        chunks = mean_of_views(chain([first], views), len(self._views), size[0], chunk_rows(logits, size[1]), held=held)
        best = [(best_of(chunk).cpu(), chunk.amax(dim=1).cpu() if confidence else None) for chunk in chunks]
        labels = torch.cat([classes for classes, _ in best], dim=1)
        return labels, torch.cat([sure for _, sure in best if sure is not None], dim=1) if confidence else None

    def _view_rows(self, inputs: ImageBatch, view: View, size: tuple[int, int]) -> Tile | WindowRows:
        """Return a view's logits, to be taken row by row at `size`."""
        if self._windows is None:
            seen = view.seen(inputs.whole())
            return Tile(output=self._logits_of(seen)._replace(aux={}), size=size, covered=_size(seen), view=view)
        pixels = inputs if view.scale == 1.0 else ScaledInputs(inputs, view.scale)
        return WindowRows(pixels, self._windows, self._logits_of, size, view=view, batch=self._window_batch)

    def _logits(self, inputs: Tensor | Inputs, size: tuple[int, int], windows: Windows | None) -> Tensor:
        """Return logits (N, K, H, W) float32 upsampled to `size`, the plain way."""
        covered = _size(inputs)
        if windows is None:
            output = self._logits_of(inputs)
        else:
            output = SemanticLogits(slide(inputs, windows, self._window_logits), canvas=covered)
        return _upsampled(output, covered, size)

    def _window_logits(self, inputs: Tensor | Inputs) -> Tensor:
        """Return one window's logits at the window's size."""
        return _upsampled(self._logits_of(inputs), _size(inputs), _size(inputs))

    def _logits_of(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Run the fast form of a network of class maps. TaskError where it gives something else."""
        output = self._forward(inputs)
        if not isinstance(output, SemanticLogits):
            raise TaskError(f"{self.card.architecture} gives {type(output).__name__}, no class scores for each pixel")
        return output

    def _forward(self, inputs: Tensor | Inputs) -> Output:
        """Run the fast form of the network; its maps come back as float32."""
        network = self._form.get()
        if self.precision == "bf16":
            inputs = changed(inputs, _as_bf16)
        elif self.device.type == "cpu" and network is not self.model:
            inputs = changed(inputs, _channels_last)  # the plain network keeps its order of sums
        with self._autocast():
            output: Output = network(inputs)
        return with_maps(output, Tensor.float)

    def _autocast(self) -> AbstractContextManager[object]:
        """Return the predictor's own precision: that of an autocast around it, as in training, plays no part."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return torch.autocast(self.device.type, enabled=False)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device meant; "auto" is CUDA, else MPS, else the processor. UsageError where it is not there."""
    fault = device_fault(device)
    if fault:
        raise UsageError(f"device: got {device!r}: {fault}")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    return torch.device(device)


def device_fault(device: str | torch.device) -> str:
    """Return in words why a device cannot be used on this machine, "" where it can."""
    try:
        found = torch.device("cpu" if device == "auto" else device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        return f"torch sees {torch.cuda.device_count()} CUDA devices"
    if found.type == "mps" and not torch.backends.mps.is_available():
        return "this machine has no MPS device"
    return "" if found.type in ("cpu", "cuda", "mps") else "expected auto, cpu, cuda, cuda:N or mps"


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Return the precision to run in: bf16 falls back to fp32, with a warning, where the device has none."""
    if precision not in ("fp32", "bf16"):
        raise UsageError(f"precision: got {precision!r}, expected fp32 or bf16")
    if precision == "fp32":
        return "fp32"
    if device.type == "cpu":
        able, whose = processor_has_bf16(), "this processor has no instructions for it"
    else:
        able, whose = device.type == "cuda" and torch.cuda.is_bf16_supported(), f"not with {device}"
    if not able:
        LOGGER.warning("bf16 is not supported here: %s; predicting in fp32", whose)
        return "fp32"
    return "bf16"


def processor_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether this processor multiplies bf16 numbers; without, torch emulates them, slower than fp32.

    Args:
        cpuinfo: Linux's description of the processor, asked where torch does not tell.
    """
    known = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's
    if hasattr(torch.cpu, "get_capabilities"):
        return any(torch.cpu.get_capabilities().get(name) for name in known)
    try:
        words = cpuinfo.read_text().split()
    except OSError:
        return False
    return not known.isdisjoint(words)


def _size(inputs: Tensor | Inputs) -> tuple[int, int]:
    image = image_of(inputs)
    return image.shape[-2], image.shape[-1]


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last) if maps.ndim == 4 else maps


def _as_bf16(maps: Tensor) -> Tensor:
    return maps.to(torch.bfloat16, memory_format=torch.channels_last) if maps.ndim == 4 else maps


def _zipped(images: Sequence[ImageLike], sources: Mapping[str, Any]) -> list[WithSources]:
    """Return each image of a list with its own sources. UsageError where there are not as many."""
    for name, given in sources.items():
        if not isinstance(given, list | tuple) or len(given) != len(images):
            found = f"{len(given)}" if isinstance(given, list | tuple) else type(given).__name__
            raise UsageError(f"sources[{name!r}]: got {found}, expected a list of {len(images)}, one for each image")
    return [
        WithSources(image=image, sources={name: given[index] for name, given in sources.items()})
        for index, image in enumerate(images)
    ]


def _upsampled(output: SemanticLogits, covered: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Upsample logits from their stride to `size`; `covered` is the part of the canvas that is image, not padding."""
    mode, align_corners = output.resample
    return upsample_logits(
        output.logits, size, canvas=output.canvas, crop=covered, align_corners=align_corners, mode=mode
    )


def _report(image: GivenImage, error: Exception, on_error: OnError | None) -> None:
    if on_error is None:
        raise error
    on_error(image, error)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Read:
    """One image as the reading thread leaves it: prepared, or with its error."""

    image: GivenImage
    prepared: PreparedImage | None = None
    error: Exception | None = None


def _read_ahead(
    images: Iterable[GivenImage], prepare: Callable[..., PreparedImage], batch: int, *, whole: bool
) -> Iterator[list[_Read]]:
    """Yield groups of `batch` images while a thread reads up to two groups ahead; `whole`: and normalises them.

    `images` is iterated in that thread, so that what a dataset does to give its next image runs ahead, too.
    """
    coming, numbers = iter(images), count(1)

    def read() -> _Read | None:
        for image in coming:
            try:
                prepared = prepare(image, name=f"image {next(numbers)}")
                if whole:
                    prepared.make_pixels()
                return _Read(image=image, prepared=prepared)
            except (SegAtlasError, OSError) as error:
                return _Read(image=image, error=error)
        return None

    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="segatlas-read")
    try:
        waiting = deque([reader.submit(read)])
        group: list[_Read] = []
        while (done := waiting.popleft().result()) is not None:
            # Two more for each one read, up to two groups: no more are asked for than there are, whatever `batch`.
            waiting.extend(reader.submit(read) for _ in range(min(2, 2 * batch - len(waiting))))
            group.append(done)
            if len(group) == batch:
                yield group
                group = []
        if group:
            yield group
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
