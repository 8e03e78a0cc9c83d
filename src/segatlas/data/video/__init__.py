"""Frames in order: of a video file, an address, a pipe, a camera, a folder of numbered images, or an iterable.

`open_frames` says what a source is; the files beside this one read one kind each. A source gives every frame once, says
what happened on the way (`notes`), and raises DataError after the last frame it could give where others were lost.
PyAV, which reads files, is imported when it is needed: the extra "video" brings it.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

from segatlas.data.video.frames import DEFAULT_RATE, FrameSource, GivenFrames, VideoFrame
from segatlas.errors import UsageError

__all__ = ["VIDEO_ENDINGS", "FrameSource", "VideoFrame", "VideoLike", "is_video", "open_frames", "read_rate"]

VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"),
    *(".3gp", ".mxf", ".y4m", ".h264", ".264", ".h265", ".hevc", ".mjpeg", ".mjpg", ".gif"),
)
"""Endings by which `predict` takes a file for a video."""

VideoLike: TypeAlias = str | Path | int | FrameSource | Iterable[Any]

HIGHEST_RATE = 1_000_000


def is_video(source: str) -> bool:
    """Whether a word of the command line means a video: an ending, an address, a pipe, or "-" for standard input."""
    if source == "-" or "://" in source:
        return True
    path = Path(source)
    if path.suffix.lower() in VIDEO_ENDINGS:
        return not path.is_dir()
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def open_frames(source: VideoLike, fps: float | Fraction | str | None = None) -> FrameSource:
    """Open a source of frames.

    Args:
        source: a video file, an address such as rtsp://..., a named pipe, "-" for standard input; a folder of numbered
            images; the index of a camera, 0 for the first; images in order, each what a Predictor takes.
        fps: frames per second of a folder or of images, by default 25. Files and cameras have time stamps of their own.

    Raises:
        DataError: nothing there, no camera, or nothing in it that is a video.
        UsageError: what is no source, such as one image; a negative index of a camera; an `fps` that is no rate or
            that the source has no use for.
        MissingExtraError: PyAV is needed and is not installed.
    """
    if isinstance(source, FrameSource):
        return source
    rate = None if fps is None else read_rate(fps)
    _check_source(source)
    if isinstance(source, int):
        from segatlas.data.video.cameras import CameraFrames

        _refuse_rate(rate, f"camera {source}")
        return CameraFrames(source)
    if not isinstance(source, str | Path):
        return GivenFrames(source, rate or DEFAULT_RATE)
    if Path(source).is_dir():
        from segatlas.data.video.numbered import NumberedFrames

        return NumberedFrames(Path(source), rate or DEFAULT_RATE)
    from segatlas.data.video.containers import ContainerFrames

    _refuse_rate(rate, str(source))
    return ContainerFrames(sys.stdin.buffer if str(source) == "-" else source)


def _check_source(source: object) -> None:
    """Raise UsageError for what is no source of frames."""
    shape: tuple[int, ...] | None = getattr(source, "shape", None)
    if shape is not None and (len(shape) < 3 or (len(shape) == 3 and shape[-1] <= 4)):
        found = f"an array of shape {tuple(shape)}"
    elif isinstance(source, str) and not source:
        found = "an empty name"
    elif isinstance(source, bool | bytes | bytearray) or not isinstance(source, str | Path | int | Iterable):
        found = type(source).__name__
    else:
        return
    raise UsageError(f"source: got {found}, expected a video file, a folder, the index of a camera or images in order")


def read_rate(fps: float | Fraction | str) -> Fraction:
    """Return frames per second as a fraction: of 25, 29.97 or "30000/1001". UsageError where it is no rate."""
    try:
        rate = Fraction(str(fps)).limit_denominator(1001)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= HIGHEST_RATE:
        raise UsageError(f"fps: got {fps!r}, expected frames per second, such as 25, 29.97 or 30000/1001")
    return rate


def _refuse_rate(rate: Fraction | None, name: str) -> None:
    if rate is not None:
        raise UsageError(f"fps: {name} has time stamps of its own; fps is for a folder of numbered images")
