"""The part of `segatlas predict` that takes videos, addresses, pipes, cameras and folders of numbered images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.cli.common import human, print_json_line
from segatlas.cli.predict_options import Asked, required
from segatlas.errors import DataError, UsageError
from segatlas.files import require_writable, sweep_leftovers
from segatlas.output import MOVING, kinds_of
from segatlas.printable import printable
from segatlas.safe_console import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from segatlas.data.video import FrameSource
    from segatlas.video import VideoSummary, VideoTargets

CameraOption = Annotated[int | None, typer.Option(metavar="INDEX", help="A camera in place of SOURCE: 0, the first.")]
FpsOption = Annotated[
    str | None,
    typer.Option(metavar="RATE", help="SOURCE is a folder of numbered images: a video of so many a second."),
]
FramesOption = Annotated[
    int | None, typer.Option("--frames", min=1, help="Of a video or camera: so many frames, then the end.")
]
SmoothOption = Annotated[
    float | None,
    typer.Option(
        metavar="WEIGHT",
        help="Temporal smoothing of a video: the weight of a new frame in the mean of class probabilities.",
    ),
]
CodecOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Encoder of videos, such as libx265; default: libx264 (.mp4).")
]


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """The words of a call that are about videos, as given. most: frames."""

    camera: int | None
    fps: str | None
    most: int | None
    smooth: float | None
    codec: str | None

    def are_meant(self, sources: Sequence[str]) -> bool:
        """Whether a call with these words and sources is about videos.

        Raises:
            UsageError: some sources are videos and others are not, or words about videos stand with images.
        """
        from segatlas.data.video import is_video

        if self.camera is not None:
            return True
        moving = [source for source in sources if self.fps is not None or is_video(source)]
        if moving and len(moving) < len(sources):
            other = next(source for source in sources if source not in moving)
            raise UsageError(f"{moving[0]} is a video and {other} is not: predict them in two calls")
        given = [f"--{name}" for name, value in asdict(self).items() if value is not None]
        if given and not moving:
            words = ", ".join(given).replace("--most", "--frames")
            raise UsageError(f"{words}: for a video or a camera; SOURCE is none (a folder of frames needs --fps)")
        return bool(moving)


@dataclass(frozen=True, kw_only=True)
class VideoJob:
    """One video: what to open, and the name of its results, without ending."""

    source: str | int
    name: str


def predict_videos(asked: Asked, sources: Sequence[str], options: VideoOptions) -> None:
    """Predict each video; one that cannot be opened is told, and the rest goes on."""
    asked.check_words()
    wanted = asked.check() or ("overlay",)
    jobs = plan_videos(sources, options)
    _check(jobs, wanted, asked, options)
    console, failed = human(json_line=asked.json_line), list[dict[str, str]]()
    opened = _opened(jobs, options, failed, console)
    try:
        predictor = asked.load()
        kinds = kinds_of(predictor.card.task, wanted)
        writing = asked.writing(predictor.card, kinds)
        summaries = []
        for job, source in opened.items():
            from segatlas.video import write_video

            targets = targets_of(job, kinds, required(asked.out))
            total = source.count if options.most is None else min(options.most, source.count or options.most)
            with progress_bar(total=total, shown=not asked.quiet, text_last=True, console=console) as bar:
                try:
                    summary = write_video(
                        predictor,
                        source,
                        targets,
                        writing,
                        batch=asked.batch,
                        smooth=options.smooth,
                        most=options.most,
                        codec=options.codec,
                        tell=lambda so_far, bar=bar: bar.step(f"{so_far.rate:.1f} frames/s"),  # type: ignore[misc]
                    )
                except DataError as error:
                    _tell_failed(job, str(error), failed, console)
                    continue
            summaries.append(summary)
            if not asked.quiet:
                _tell(summary, targets, console)
            if summary.fault:
                _tell_failed(job, summary.fault, failed, console)
            if summary.interrupted:
                break
    finally:
        for source in opened.values():
            source.close()
    if asked.json_line:
        print_json_line(_facts(asked, summaries, failed))
    if any(one.interrupted for one in summaries):
        raise KeyboardInterrupt
    if failed:
        raise typer.Exit(1)


def plan_videos(sources: Sequence[str], options: VideoOptions) -> list[VideoJob]:
    """Return the videos of a call. UsageError: nothing there, or two whose results would have one name."""
    if options.camera is not None:
        if sources:
            raise UsageError(f"give SOURCE or --camera, not both (got {sources[0]} and {options.camera})")
        if options.camera < 0:
            raise UsageError(f"--camera: got {options.camera}, expected 0 for the first camera, 1 for the next")
        return [VideoJob(source=options.camera, name=f"camera{options.camera}")]
    found: dict[str, VideoJob] = {}
    for source in sources:
        paths = sorted(glob.glob(source, recursive=True)) if _is_pattern(source) else [source]
        if not paths:
            raise UsageError(f"no such file: {source}")
        for path in paths:
            job = VideoJob(source=path, name=name_of(path))
            if (other := found.setdefault(job.name, job)).source != path:
                raise UsageError(f"{other.source} and {path} would both be written to {job.name}_*; use two folders")
    return [*found.values()]


def name_of(source: str) -> str:
    """Return what results of a video are called: its file's stem, the last word of an address."""
    if source == "-":
        return "stdin"
    if "://" in source:
        words = re.findall(r"[\w-]+", source.partition("://")[2].partition("?")[0])
        last = [word for word in words if word.lower() not in ("mp4", "mkv", "webm", "m3u8", "mov", "ts", "mjpg")]
        return last[-1] if last else "stream"
    path = Path(os.path.realpath(source)) if Path(source).name in ("", ".", "..") else Path(source)
    return path.name if path.is_dir() else path.stem


def targets_of(job: VideoJob, kinds: Sequence[str], out: Path) -> VideoTargets:
    """Return where a video's results go: videos NAME_KIND.mp4, and a folder NAME for the files of each frame.

    Raises:
        UsageError: `out` is a video file, and more than one video is to be written.
    """
    from segatlas.video import VideoTargets

    moving = [kind for kind in kinds if kind in MOVING]
    single = tuple(kind for kind in kinds if kind not in MOVING)
    with_legend = {"overlay", "color"} & set(moving)
    if _is_file(out):
        if single or len(moving) > 1:
            raise UsageError(f"--out {out} is one video; --save {','.join(kinds)} needs a folder")
        legend = out.with_name(f"{out.stem}_legend.png") if with_legend else None
        return VideoTargets(videos={moving[0]: out}, legend=legend)
    return VideoTargets(
        videos={kind: out / f"{job.name}_{kind}.mp4" for kind in moving},
        kinds=single,
        folder=out / job.name if single else None,
        legend=out / f"{job.name}_legend.png" if with_legend else None,
    )


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and "://" not in source and not os.path.lexists(source)


def _is_file(out: Path) -> bool:
    """Whether --out names a video file. UsageError for an ending that is not written."""
    from segatlas.data.video import VIDEO_ENDINGS
    from segatlas.output.video import FORMATS

    ending = out.suffix.lower()
    if ending not in VIDEO_ENDINGS or out.is_dir():
        return False
    if ending not in FORMATS:
        raise UsageError(f"--out {out}: videos are written as {' '.join(FORMATS)}")
    return True


def _check(jobs: Sequence[VideoJob], kinds: Sequence[str], asked: Asked, options: VideoOptions) -> None:
    """Try the places of all results, and the encoder, before any work."""
    from segatlas.output.video import check_codec

    out = required(asked.out)
    if _is_file(out) and len(jobs) > 1:
        raise UsageError(f"--out {out} is one video; {len(jobs)} videos need a folder")
    sources = {os.path.realpath(job.source) for job in jobs if isinstance(job.source, str)}
    for job in jobs:
        targets = targets_of(job, kinds, out)
        for path in targets.videos.values():
            check_codec(path.suffix.lower(), options.codec)
        for path in targets.files():
            if os.path.realpath(path) in sources:
                raise UsageError(f"{path} is one of the videos and would be overwritten; choose another --out")
            if path == targets.folder:
                if path.exists() and (not path.is_dir() or any(path.iterdir())):
                    raise UsageError(f"{path} is there already; choose another --out, so that no old file stays in it")
            elif path.is_dir():
                raise UsageError(f"{path} is a folder, where a file is to be written; choose another --out")
            require_writable(path.parent, error=UsageError)
            sweep_leftovers(path.parent)


def _opened(
    jobs: Sequence[VideoJob], options: VideoOptions, failed: list[dict[str, str]], console: Console
) -> dict[VideoJob, FrameSource]:
    """Open the videos; what cannot be opened is told, and raised where it is the only one."""
    from segatlas.data.video import open_frames

    opened: dict[VideoJob, FrameSource] = {}
    for job in jobs:
        try:
            opened[job] = open_frames(job.source, options.fps)
        except DataError as error:
            if len(jobs) == 1:
                raise
            _tell_failed(job, str(error), failed, console)
    return opened


def _tell_failed(job: VideoJob, error: str, failed: list[dict[str, str]], console: Console) -> None:
    failed.append({"source": str(job.source), "error": error})
    console.print(f"failed: {printable(error)}", style="red", markup=False)


def _tell(summary: VideoSummary, targets: VideoTargets, console: Console) -> None:
    """Print what became of a video."""
    from segatlas.data.video.frames import count_frames

    frames = count_frames(summary.frames)
    parts = f"network {summary.network:.2f} s, drawing and writing {summary.written:.2f} s"
    places = ", ".join(printable(path) for path in targets.files())
    console.print(
        f"{frames} of {printable(summary.source)} in {summary.seconds:.1f} s, {summary.rate:.1f} frames/s "
        f"({parts}; reading, beside them, {summary.read:.2f} s) -> {places}"
    )
    if summary.overwritten:
        console.print(f"{count_frames(summary.overwritten)} left out, which came while earlier ones were predicted")
    if summary.cuts is not None:
        again = f", begun anew {summary.cuts} times" if summary.cuts else ""
        console.print(f"smoothing: {summary.smoothing}{again}")
    if summary.sound != "none":
        console.print(f"sound: {summary.sound}")
    for note in summary.notes:
        console.print(f"note: {printable(note)}")


def _facts(asked: Asked, summaries: Sequence[VideoSummary], failed: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Return what --json prints."""
    videos = [{**asdict(one), "frames_per_second": round(one.rate, 2)} for one in summaries]
    return {"model": asked.model, "out": str(asked.out), "videos": videos, "failed": list(failed)}
