"""A video through a model: videos of its results and files for each frame, and a summary of what became of it."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from segatlas import drawing
from segatlas.checkpoint.card import Card
from segatlas.data.video import FrameSource, VideoFrame
from segatlas.data.video.frames import count_frames
from segatlas.drawing.legend import overlay_colors
from segatlas.errors import DataError
from segatlas.files import whole_file
from segatlas.inference import Predictor, Segmentation
from segatlas.inference.streaming import StreamFacts
from segatlas.output import draw, ending_of, write
from segatlas.output.options import WriterOptions
from segatlas.output.video import VideoWriter, video_file
from segatlas.version import __version__


@dataclass(frozen=True, kw_only=True)
class VideoTargets:
    """Where results of a video go.

    videos: kind -> file, of the kinds `output.MOVING`. kinds: those with a file for each frame. folder: of these files,
    which are called by the frame's number. legend: image with the classes that occurred, None = none.
    """

    videos: Mapping[str, Path]
    kinds: tuple[str, ...] = ()
    folder: Path | None = None
    legend: Path | None = None

    def files(self) -> list[Path]:
        """Return the files and the folder."""
        return [*self.videos.values(), *(one for one in (self.folder, self.legend) if one is not None)]


@dataclass(kw_only=True)
class VideoSummary:
    """What became of a video.

    frames: that were read, predicted and written. overwritten: by the camera before they were taken. seconds: in all;
    read: of decoding and preparing or of waiting for frames, beside the network. network, written: of the network, and
    of drawing, encoding and files. cuts: where smoothing began anew. fault: why frames are missing, "" where none are.
    """

    source: str
    model: str
    frames: int = 0
    overwritten: int = 0
    seconds: float = 0.0
    read: float = 0.0
    network: float = 0.0
    written: float = 0.0
    smoothing: str = "none"
    cuts: int | None = None
    sound: str = "none"
    notes: list[str] = field(default_factory=list)
    fault: str = ""
    interrupted: bool = False

    @property
    def rate(self) -> float:
        """Frames per second from end to end."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def described_smoothing(smooth: float | None) -> str:
    """Return in words what smoothing is used."""
    return (
        "none" if smooth is None else f"temporal, exponential mean of probabilities, weight {smooth:g} of a new frame"
    )


def write_video(
    predictor: Predictor,
    source: FrameSource,
    targets: VideoTargets,
    options: WriterOptions,
    *,
    batch: int = 1,
    smooth: float | None = None,
    most: int | None = None,
    codec: str | None = None,
    tell: Callable[[VideoSummary], None] = lambda summary: None,
) -> VideoSummary:
    """Predict every frame of a source and write what `targets` says.

    Where the source ends early, or the user interrupts, what was read until then is written whole, and the summary says
    so.

    Args:
        predictor: the model.
        source: frames; it is closed at the end.
        targets: what to write, and where.
        options: what writers know besides.
        batch: frames per pass of the network.
        smooth: see `Predictor.stream`.
        most: so many frames, then the end.
        codec: encoder of the videos, None = that of their endings.
        tell: called after each frame.

    Raises:
        DataError: no frame at all, or a result cannot be written.
        UsageError: what `Predictor.stream` does not take, or an encoder that is not there.
    """
    start, facts, smoothing = time.perf_counter(), StreamFacts(), described_smoothing(smooth)
    summary = VideoSummary(source=source.name, model=options.model, smoothing=smoothing)
    with ExitStack() as stack:
        stack.enter_context(closing(source))
        files = _Files(stack, predictor.card, source, targets, options, codec, smoothing)
        sure = "confidence" in targets.videos
        stream = predictor.stream(source, batch=batch, confidence=sure, smooth=smooth, most=most, facts=facts)
        try:
            for frame, result in _until_the_end(stack.enter_context(closing(stream)), summary):
                begin = time.perf_counter()
                files.add(frame, result)
                now = time.perf_counter()
                summary.frames += 1
                summary.written += now - begin
                summary.seconds = now - start
                tell(summary)
        except KeyboardInterrupt:
            summary.interrupted = True
        if not summary.frames and summary.interrupted:
            raise KeyboardInterrupt
        if not summary.frames:
            raise DataError(summary.fault or f"{source.name}: no frame came")
        begin = time.perf_counter()
    files.draw_legend()
    summary.seconds, summary.written = (time.perf_counter() - at for at in (start, begin - summary.written))
    summary.read, summary.network = facts.read, facts.network
    summary.overwritten, summary.cuts = source.overwritten, None if smooth is None else facts.cuts
    summary.notes = [*source.report(), *_notes_of(files.writers)]
    summary.sound = _sound_of(source, [*files.writers.values()])
    if targets.folder is not None:
        _write_record(summary, targets.folder / "video.json")
    return summary


class _Files:
    """What is written of a video while it runs."""

    def __init__(
        self,
        stack: ExitStack,
        card: Card,
        source: FrameSource,
        targets: VideoTargets,
        options: WriterOptions,
        codec: str | None,
        smoothing: str,
    ):
        self._card, self._targets, self._options = card, targets, options
        comment = f"by SegAtlas {__version__}: {options.model}; smoothing: {smoothing}"
        self.writers = {
            kind: stack.enter_context(video_file(path, source, codec=codec, comment=f"{kind} {comment}"))
            for kind, path in targets.videos.items()
        }
        self._table = stack.enter_context(_table_of_frames(targets.folder))
        self._pixels, self._total = Counter[int](), 0

    def add(self, frame: VideoFrame, result: Segmentation) -> None:
        """Write a frame."""
        task, folder = self._card.task, self._targets.folder
        for kind, writer in self.writers.items():
            writer.write(draw(task, kind, result), frame)
        for kind in self._targets.kinds:
            assert folder is not None, "there is one where there are such kinds"
            write(task, kind, result, folder / f"{frame.number:06d}{ending_of(kind)}", self._options)
        self._table(frame)
        if self._targets.legend is not None:
            self._pixels.update(_pixels_of_classes(result))
            self._total += result.size[0] * result.size[1]

    def draw_legend(self) -> None:
        """Write the legend of all frames."""
        if self._targets.legend is not None:
            palette = self._card.palette
            colors = palette if "color" in self._targets.videos else overlay_colors(palette)
            legend = drawing.legend_image(self._pixels, self._total, colors, self._card.classes)
            drawing.save_image(legend, self._targets.legend)


def _until_the_end(
    stream: Iterator[tuple[VideoFrame, Segmentation]], summary: VideoSummary
) -> Iterator[tuple[VideoFrame, Segmentation]]:
    """Yield what comes; what ends it early is noted in the summary."""
    try:
        yield from stream
    except DataError as error:
        summary.fault = str(error)


@contextmanager
def _table_of_frames(folder: Path | None) -> Iterator[Callable[[VideoFrame], None]]:
    """Yield what adds a frame to `frames.csv` in a folder: number, time stamp and its base, seconds, source."""
    if folder is None:
        yield lambda frame: None
        return
    with (
        whole_file(folder / "frames.csv", durable=False) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("frame", "pts", "time_base", "seconds", "source"))
        yield lambda frame: rows.writerow(
            (frame.number, frame.pts, frame.time_base, f"{frame.seconds:.6f}", frame.source)
        )


def _pixels_of_classes(result: Segmentation) -> dict[int, int]:
    """Return the pixels of each class, or of each class's objects where there is no class map."""
    if result.class_map is None:
        found = Counter[int]()
        for one in result.instances:
            found[one.class_index] += one.area
        return found
    counts = np.bincount(result.class_map.ravel().astype(np.int64))
    return {index: int(count) for index, count in enumerate(counts) if count}


def _notes_of(writers: Mapping[str, VideoWriter]) -> list[str]:
    """Return what became of sizes."""
    notes = []
    for writer in list(writers.values())[:1]:
        height, width = writer.size
        if any(writer.padded):
            rows, columns = writer.padded
            notes.append(
                f"{width} x {height} pixels are shown as {width + columns} x {height + rows}: the codec takes even "
                "sides only, the last column or row is repeated"
            )
        if writer.refitted:
            notes.append(
                f"{count_frames(writer.refitted)} of another size than the first, fitted into {width} x {height}"
            )
    return notes


def _sound_of(source: FrameSource, writers: list[VideoWriter]) -> str:
    """Return in words what became of the sound."""
    if not source.sound:
        return "none"
    names = ", ".join(source.sound)
    if not writers or writers[0].sound is None:
        return f"{names}, left out: {'a stream is read once' if writers else 'no video is written'}"
    sound = writers[0].sound
    parts = [f"{', '.join(sound.copied)}, copied"] if sound.copied else []
    parts += [f"{', '.join(sound.left_out)}, left out: the format has no place for it"] if sound.left_out else []
    parts += [f"it ends before the frames do ({sound.fault})"] if sound.fault else []
    return "; ".join(parts)


def _write_record(summary: VideoSummary, path: Path) -> None:
    text = json.dumps({**asdict(summary), "frames_per_second": round(summary.rate, 2)}, indent=2, ensure_ascii=False)
    drawing.write_bytes(f"{text}\n".encode(), path)
