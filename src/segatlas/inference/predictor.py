"""The Predictor: images in, segmentations in the images' own size out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import replace
from functools import partial
from io import IOBase
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from segatlas import drawing
from segatlas.checkpoint.card import Card
from segatlas.config.plain import LARGEST_SCALE, SMALLEST_SCALE
from segatlas.data.formats.addresses import is_address
from segatlas.data.formats.listing import images_of, is_several
from segatlas.data.video import VIDEO_ENDINGS, FrameSource, VideoFrame, VideoLike, open_frames
from segatlas.errors import DataError, UsageError
from segatlas.inference.describing import facts_of
from segatlas.inference.images import (
    GivenImage,
    ImageLike,
    PreparedImage,
    WithSources,
    check_inputs,
    prepare,
    with_own_sources,
)
from segatlas.inference.object_windows import WindowNotices
from segatlas.inference.reader import Key, in_groups, read_ahead, read_item
from segatlas.inference.runner import Runner
from segatlas.inference.segmentation import Segmentation
from segatlas.inference.segmentations import Segmentations, SegmentationStream
from segatlas.inference.segmenter import Segmenter, scores
from segatlas.inference.sliding import DEFAULT_OVERLAP, card_windows, make_windows
from segatlas.inference.smoothing import SmoothedRunner
from segatlas.inference.streaming import StreamFacts
from segatlas.inference.tta import parse_views
from segatlas.structures import Inputs, Output, image_of

LOGGER = logging.getLogger("segatlas")

MANY_IMAGES = 200
"""Of a folder or glob: more than these are better taken one at a time, which `predict` then says."""

OnError = Callable[[GivenImage, Exception], None]


class Predictor:
    """A network with its card, ready to segment images.

    Everything about the input (resize, mean, std, largest value, channels, whole image or windows) comes from the
    card. `model` is the network in eval mode, `card` its card, `device` where it runs, `rule` how objects are made.

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
        objects: Mapping[str, Any] | None = None,
        batch_stats: bool = False,
        offline: bool = False,
        name: str = "",
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
            objects: what is asked of objects in place of the card's `objects`: "score" (objects of a lower one go),
                "top" (so many of an image at most), "overlap" (of two of a class whose boxes have a higher IoU the
                worse one goes), "class_agnostic" (of two of any class). `load` also tells the network, whose own
                bounds came first otherwise.
            batch_stats: batch norm by the statistics of the images, or of the window, that the network sees in one
                pass, in place of its running averages; views pass one by one, and so do windows. The network itself
                is not changed.
            offline: images at addresses are not fetched, only copies of them are taken, see `fetch_image`.
            name: what results say they are of: what `load` was given.

        Raises:
            UsageError: an argument out of range, a device that is not there, windows or test-time augmentation for a
                network of something else than class maps, or batch statistics where there is no batch norm or several
                windows were to share a pass.
            TaskError: no result of the card's task can be made of the network's output.
        """
        if max_value is not None and not SMALLEST_SCALE <= max_value <= LARGEST_SCALE:
            expected = f"expected a number from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}"
            raise UsageError(f"max_value: got {max_value}, {expected}")
        windows = None if window is None else make_windows(window, overlap)
        if batch_stats and window_batch not in (None, 1):
            raise UsageError(f"window_batch: got {window_batch}; with batch_stats each window has a pass of its own: 1")
        window_batch = 1 if batch_stats else window_batch
        self._segmenter = Segmenter(
            card, windows=windows, views=parse_views(tta), window_batch=window_batch, objects=objects, model=name
        )
        self.objects = dict(objects or {})
        self.rule = self._segmenter.rule
        self.batch_stats = batch_stats
        self._runner = Runner(model, card.inputs, device, precision, self._segmenter.rule, batch_stats)
        self._prepare = partial(prepare, card=card, max_value=max_value, check_scale=check_scale, offline=offline)
        self.card = card
        self.model, self.device, self.precision = self._runner.model, self._runner.device, self._runner.precision

    def prepare(self, image: GivenImage) -> PreparedImage:
        """Read an image and bring it into the network's form, as `predict` does first.

        Raises:
            DataError: as `predict`.
            UsageError: as `predict`.
        """
        return self._prepare(image)

    @overload
    def predict(
        self, image: GivenImage, confidence: bool = False, sources: Mapping[str, ImageLike] | None = None
    ) -> Segmentation: ...

    @overload
    def predict(
        self, image: list[Any] | tuple[Any, ...], confidence: bool = False, sources: Mapping[str, Any] | None = None
    ) -> Segmentations: ...

    @overload
    def predict(self, image: Iterator[Any], confidence: bool = False, sources: None = None) -> SegmentationStream: ...

    def predict(
        self,
        image: Any,
        confidence: bool = False,
        sources: Mapping[str, Any] | None = None,
    ) -> Segmentation | Segmentations | SegmentationStream:
        """Segment one image, or several; calling the predictor does the same.

        Args:
            image: file (str or Path), address (http or https: fetched and kept for a day, see
                `segatlas.data.formats.addresses`), bytes of a file, PIL image, array (H, W, 3) uint8 RGB (also (H, W),
                N channels, uint16, or float in stored values), tensor (C, H, W) uint8 or float 0..1; a list of these;
                a folder or a glob, which are the list of the images in it; or what gives images one after the other,
                such as a generator.
            confidence: also give the probability of the chosen class, (H, W) float32.
            sources: further inputs of the model by the names of its card, on the same pixels, each what an image may
                be; for a list of images, a list of as many.

        Returns:
            One Segmentation in the image's own size; for a list, folder or glob a list of them, all in memory; for a
            generator an iterator that makes each when it is asked for.

        Raises:
            DataError: an image that cannot be read or does not fit the model; it names the file.
            UsageError: a source that the model needs is not given, or one that it does not take is; no image in a
                folder, or none that fits a glob; a video.
        """
        if isinstance(image, list | tuple) and not isinstance(image, Inputs):  # which is a tuple, too
            given = image if sources is None else with_own_sources(image, sources)
            return Segmentations(self.predict_iter(given, confidence=confidence))
        several = _stands_for_several(image)
        if isinstance(image, str | Path) and not several and Path(image).suffix.lower() in VIDEO_ENDINGS:
            raise UsageError(
                f"{image}: is a video; predictor.stream({str(image)!r}) gives its frames and their results"
            )
        if (several or _comes_bit_by_bit(image)) and sources is not None:
            raise UsageError(
                "sources: are for one image, or for a list of them; WithSources holds an image with its own"
            )
        if several:
            stream = self.predict_iter(image, confidence=confidence)
            if len(stream.names) > MANY_IMAGES:
                LOGGER.warning(
                    "%s: %d images, whose results are all held in memory; predict_iter gives one at a time",
                    image,
                    len(stream.names),
                )
            return Segmentations(stream, stream.names)
        if _comes_bit_by_bit(image):
            return self.predict_iter(image, confidence=confidence)
        if sources is not None:
            image = WithSources(image=image.image if isinstance(image, WithSources) else image, sources=sources)
        notices = WindowNotices()
        result = self._segmenter.segment(self._runner, [self._prepare(image)], confidence, notices)[0]
        notices.tell()
        if isinstance(result, Exception):
            raise result
        return result

    def __call__(self, image: Any, confidence: bool = False, sources: Mapping[str, Any] | None = None) -> Any:
        """Do as `predict`."""
        return self.predict(image, confidence, sources)

    def predict_stream(
        self, items: Iterable[tuple[Key, GivenImage | Exception]], batch: int = 1, confidence: bool = False
    ) -> Generator[tuple[Key, Segmentation | Exception], None, None]:
        """Segment many images in order, reading the next ones in a thread meanwhile.

        Args:
            items: pairs of a key of any kind and an image as for `predict`, or `WithSources`. They are taken one by one
                in the reading thread, at most two passes ahead, so they may be endless: the frames of a video. An
                error in an image's place is handed on.
            batch: images per pass of the network; only images of one size share a pass.
            confidence: as for `predict`.

        Yields:
            Each key with its result, or with what was wrong with its image (DataError, UsageError, OSError); the rest
            goes on. What `items` itself raises is raised after the results before it. Closing the iterator early ends
            the thread. What is to be told of windows is a warning at the end, one for all images.
        """

        def segment(images: Sequence[PreparedImage], notices: WindowNotices) -> list[Segmentation | DataError]:
            return self._segmenter.segment(self._runner, images, confidence, notices)

        yield from self._stream(items, batch, segment)

    def stream(
        self,
        source: VideoLike,
        batch: int = 1,
        confidence: bool = False,
        smooth: float | None = None,
        fps: float | None = None,
        most: int | None = None,
        facts: StreamFacts | None = None,
    ) -> Generator[tuple[VideoFrame, Segmentation], None, None]:
        """Segment the frames of a video or a camera, in order, reading the next ones in a thread meanwhile.

        Memory stays bounded: at most two passes' frames are held besides those that the caller keeps.

        Args:
            source: a video file, an address, a folder of numbered images, the index of a camera, or images in order;
                see `segatlas.data.video.open_frames`. It is opened now and closed with the iterator.
            batch: frames per pass of the network; only frames of one size share a pass.
            confidence: as for `predict`.
            smooth: temporal smoothing, off by default: the weight of a new frame in the mean of class probabilities,
                see `segatlas.inference.smoothing`. For networks that give class maps, frame by frame.
            fps: frames per second of a folder or of images.
            most: so many frames, then the end.
            facts: seconds and cuts are noted here.

        Returns:
            An iterator of each frame with its result. After the last one it raises DataError where the source ends
            early or frames of it were lost.

        Raises:
            DataError: the source cannot be opened.
            UsageError: an argument out of range, or smoothing for another network, with test-time augmentation or in
                batches.
            MissingExtraError: PyAV is needed and is not installed.
        """
        smoothed = None if smooth is None else self._segmenter.smoothed(self._runner, smooth, batch)
        if most is not None and (not isinstance(most, int) or most < 1):
            raise UsageError(f"most: got {most!r}, expected a whole number of frames, 1 or more")
        return self._frames(open_frames(source, fps), batch, confidence, smoothed, most, facts)

    def _frames(
        self,
        source: FrameSource,
        batch: int,
        confidence: bool,
        smoothed: SmoothedRunner | None,
        most: int | None,
        facts: StreamFacts | None,
    ) -> Generator[tuple[VideoFrame, Segmentation], None, None]:
        """Yield what `stream` returns."""
        facts = facts or StreamFacts()

        def segment(images: Sequence[PreparedImage], notices: WindowNotices) -> list[Segmentation | DataError]:
            if smoothed is None:
                return self._segmenter.segment(self._runner, images, confidence, notices)
            for image in images:  # one
                smoothed.begin(image)
                facts.cuts = smoothed.cuts
            return self._segmenter.segment(smoothed, images, confidence, notices)

        items = ((frame, frame.image) for frame in islice(source, most))
        with closing(source), closing(self._stream(items, batch, segment, facts)) as results:
            for frame, result in results:
                if isinstance(result, UsageError) or (isinstance(result, Exception) and frame.source in str(result)):
                    raise result
                if isinstance(result, Exception):
                    raise DataError(str(result), frame.source) from result
                yield frame, replace(result, source=frame.source)

    def _stream(
        self,
        items: Iterable[tuple[Key, GivenImage | Exception]],
        batch: int,
        segment: Callable[[list[PreparedImage], WindowNotices], list[Segmentation | DataError]],
        facts: StreamFacts | None = None,
    ) -> Generator[tuple[Key, Segmentation | Exception], None, None]:
        """Yield each key with its result or error, see `predict_stream`."""
        if not isinstance(batch, int) or batch < 1:
            raise UsageError(f"batch: got {batch!r}, expected a whole number, 1 or more")
        whole, numbered, facts = self._segmenter.windows is None, enumerate(items, 1), facts or StreamFacts()

        def read(given: tuple[int, tuple[Key, GivenImage | Exception]]) -> tuple[Key, PreparedImage | Exception]:
            number, item = given
            name = item[0].source if isinstance(item[0], VideoFrame) else f"image {number}"
            with facts.reading():
                return read_item(item, partial(self._prepare, name=name), whole=whole)

        notices = WindowNotices()
        try:
            with closing(read_ahead(facts.taken(numbered), read, ahead=2 * batch)) as coming:
                for group in in_groups(coming, batch):
                    good = [outcome for _, outcome in group if isinstance(outcome, PreparedImage)]
                    with facts.computing():
                        results = iter(segment(good, notices))
                    for key, outcome in group:
                        yield key, next(results) if isinstance(outcome, PreparedImage) else outcome
        finally:
            notices.tell()

    def predict_iter(
        self,
        images: Iterable[GivenImage] | str | Path,
        batch: int = 1,
        on_error: OnError | None = None,
        confidence: bool = False,
    ) -> SegmentationStream:
        """Segment many images in order, one at a time: `predict_stream` for images without keys.

        Args:
            images: as for `predict`, or `WithSources`; they may be endless. A folder or a glob are the images in it.
            batch: images per pass of the network; only images of one size share a pass.
            on_error: called with the image and its error (DataError, UsageError, OSError) in place of a result; the
                rest goes on. Without it the first error is raised.
            confidence: as for `predict`.

        Returns:
            An iterator of one Segmentation for each good image, in order; its `save` writes all that come.

        Raises:
            UsageError: no image in a folder, or none that fits a glob.
        """
        names: dict[str, str] = {}
        if isinstance(images, str | Path):
            found = images_of(images).images if _stands_for_several(images) else []
            names = {str(path): name for path, name in found}
            images = list(names) if found else [images]
        return SegmentationStream(self._results_of(images, batch, on_error, confidence), names)

    def _results_of(
        self, images: Iterable[GivenImage], batch: int, on_error: OnError | None, confidence: bool
    ) -> Generator[Segmentation, None, None]:
        """Yield what `predict_iter` gives."""
        with closing(self.predict_stream(((image, image) for image in images), batch, confidence)) as stream:
            for image, result in stream:
                if isinstance(result, Segmentation):
                    yield result
                elif on_error is None:
                    raise result
                else:
                    on_error(image, result)

    @torch.inference_mode()
    def output(self, inputs: Tensor | Inputs) -> Output:
        """Return the network's typed output at its own stride, nothing upsampled and nothing made of it.

        It is that of the fast form in the predictor's precision: logits of class maps, centres and offsets, queries,
        as the network gives them; every map float32.

        Args:
            inputs: image (N, C, H, W) float, normalised as the card says, or with the sources that the model takes.

        Raises:
            UsageError: inputs of another form than the card's.
        """
        check_inputs(inputs, self.card.inputs)
        return self._runner.output(inputs.to(self.device))

    @torch.inference_mode()
    def scores(self, inputs: Tensor | Inputs) -> Tensor:
        """Return logits at the input's size for a normalised batch, upsampled exactly as the published model does.

        The card's own inference mode is used (whole images, or windows of its crop and stride); `tta` and `window`
        play no part. This is the slow path, for inspection: it holds every logit and runs the plain network in fp32.

        Args:
            inputs: image (N, C, H, W) float, normalised as the card says, or with the sources that the model takes.

        Returns:
            (N, K, H, W) float32 on the device of `inputs`; of queries the sum of each class's probability times the
            mask's.

        Raises:
            TaskError: the network gives no class scores for each pixel.
            UsageError: inputs of another form than the card's.
        """
        check_inputs(inputs, self.card.inputs)
        windows = card_windows(self.card.inference)
        return scores(self._runner.plain(), inputs.to(self.device), windows).to(image_of(inputs).device)

    def with_precision(self, precision: str) -> Predictor:
        """Return the same predictor, of the same network, in another precision."""
        other = copy.copy(self)
        other._runner = self._runner.with_precision(precision)
        other.precision = other._runner.precision
        return other

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(len(name) for name, _ in facts)
        return "\n".join(["Predictor", *(f"  {name:<{width}}  {text}" for name, text in facts)])

    def _repr_html_(self) -> str:
        colors = [*zip(self.card.classes, self.card.palette, strict=True)]
        return drawing.facts_html("Predictor", self._facts(), colors)

    def _facts(self) -> list[tuple[str, str]]:
        return facts_of(self.card, self.model, f"{self.device}, {self.precision}")


def _stands_for_several(image: object) -> bool:
    """Tell whether a word is a folder or a glob."""
    return isinstance(image, str | Path) and not is_address(image) and is_several(image)


def _comes_bit_by_bit(image: object) -> bool:
    """Tell whether something gives images one after the other, and is none itself, nor a file that is open."""
    if isinstance(image, str | bytes | np.ndarray | Tensor | Inputs | Mapping | Set | IOBase):
        return False
    return isinstance(image, Iterable)
