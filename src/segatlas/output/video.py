"""Videos of results: each frame at the time of the frame that it was made of, the sound copied."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segatlas.data.video import FrameSource, VideoFrame
from segatlas.data.video.pyav import import_av
from segatlas.errors import DataError, UsageError
from segatlas.files import whole_file
from segatlas.output.sound import Sound
from segatlas.printable import printable

FORMATS = {".mp4": ("mp4", "libx264"), ".mov": ("mov", "libx264"), ".mkv": ("matroska", "libx264")}
FORMATS |= {".webm": ("webm", "libvpx-vp9")}
"""Ending of a video that can be written -> FFmpeg's name of the format, and the encoder used."""
CODEC_OPTIONS = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "libx265": {"crf": "20", "preset": "veryfast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6"},
    "mpeg4": {"flags": "+qscale", "global_quality": "354"},
    "mjpeg": {"flags": "+qscale", "global_quality": "354"},
}
PIXELS = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}
"""Encoders -> pixels: those with which ffv1 loses no colour, and those of JPEG; others get yuv420p where they can."""
BT709, LIMITED = 1, 1
"""Colours of the videos written, as files number them: the matrix, and the range 16..235."""
BT601, FULL = 5, 2
"""Likewise those of JPEG, which has no others: the range is 0..255."""
MILLISECOND = Fraction(1, 1000)
"""Time base of Matroska."""
MOST_TICKS = 65535
"""MPEG-4 part 2 has no finer time base than this."""


class VideoWriter:
    """A video that grows frame by frame; its size is that of the first image, made even where the codec needs it.

    Images of another size are shrunk or enlarged to fit, on black. frames: how many are written. refitted: how many of
    them had another size. padded: rows and columns added at the bottom and at the right, copies of the last ones.
    sound: that of the source, None where it has none that can be copied.
    """

    def __init__(self, path: Path, source: FrameSource, *, name: Path, codec: str | None = None, comment: str = ""):
        """Prepare; the file is begun at the first frame.

        Args:
            path: where to, whatever its ending.
            name: what the file is called in the end; its ending is one of FORMATS.
            source: of the frames, for rate, form of pixels and sound.
            codec: an encoder of FFmpeg; None = that of the ending.
            comment: is written into the file.

        Raises:
            UsageError: an encoder that PyAV does not have, or that the format does not take.
        """
        self._av = import_av()
        self._path, self._name, self._source, self._comment = path, name, source, comment
        self._format = FORMATS[name.suffix.lower()][0]
        self._codec = check_codec(name.suffix.lower(), codec)
        self._container: Any = None
        self.sound: Sound | None = None
        self.frames = self.refitted = 0
        self.size, self.padded = (0, 0), (0, 0)
        self._end, self._last = Fraction(0), 0

    def write(self, image: np.ndarray, frame: VideoFrame) -> None:
        """Add an image (H, W, 3) uint8 RGB at the time of `frame`."""
        with self._naming():
            if self._container is None:
                self._begin(image, frame)
            moment, previous = frame.pts * frame.time_base, self._last
            if self.sound is not None:
                self.sound.copy(moment)
            drawn = self._av.VideoFrame.from_ndarray(self._fitted(image), format="rgb24")
            # one thread: with more, libswscale of PyAV 18.1 leaves places of chroma at 10 bits unset now and then
            drawn = self._reformatter.reformat(drawn, format=self._stream.pix_fmt, threads=1, **self._matrix)
            drawn.time_base = self._base
            self._last = round((moment - self._source.origin) / self._base)
            if self.frames:
                self._last = max(self._last, previous + 1)  # two frames within one tick of this file
            drawn.pts = self._last
            drawn.duration = round(frame.duration * frame.time_base / self._base)
            self._container.mux(self._stream.encode(drawn))
            self.frames += 1
            self._end = moment + frame.duration * frame.time_base

    def finish(self) -> None:
        """Write what the encoder holds back, the rest of the sound up to the end of the last frame, and the index."""
        if self._container is not None:
            with self._naming():
                if self.sound is not None:
                    self.sound.copy(self._end)
                self._container.mux(self._stream.encode(None))
                self._container.close()

    def close(self) -> None:
        """Let go of all files, whatever state they are in; what counts is said by `finish`."""
        for one in (self.sound, self._container):
            if one is not None:
                with suppress(self._av.error.FFmpegError, OSError, ValueError):
                    one.close()

    def _begin(self, image: np.ndarray, frame: VideoFrame) -> None:
        self.size = image.shape[0], image.shape[1]
        options = {"movflags": "+faststart"} if self._format in ("mp4", "mov") else {}
        self._container = self._av.open(str(self._path), "w", format=self._format, container_options=options)
        self._container.metadata["comment"] = self._comment
        rate = self._source.rate or Fraction(25)
        self._stream = stream = self._container.add_stream(self._codec, rate=rate.limit_denominator(MOST_TICKS))
        context = stream.codec_context
        names = [one.name for one in context.codec.video_formats or ()]
        wanted = PIXELS.get(self._codec, "yuv420p")
        stream.pix_fmt = wanted if wanted in names or not names else names[0]
        pixels = self._av.VideoFormat(stream.pix_fmt, 16, 16)
        steps = [16 // pixels.chroma_height(), 16 // pixels.chroma_width()]
        self.padded = -self.size[0] % steps[0], -self.size[1] % steps[1]
        stream.height, stream.width = self.size[0] + self.padded[0], self.size[1] + self.padded[1]
        self._base = frame.time_base
        if self._format in ("matroska", "webm"):
            self._base = MILLISECOND
        elif self._codec == "mpeg4" and self._base.denominator > MOST_TICKS:
            self._base = Fraction(1, MOST_TICKS)
        context.time_base = stream.time_base = self._base
        context.sample_aspect_ratio = self._source.pixel_aspect
        context.max_b_frames = 0  # the length of a file with them is short where times are uneven
        is_jpeg = stream.pix_fmt.startswith("yuvj")
        self._matrix: dict[str, str] = {}
        if not pixels.is_rgb:
            context.color_primaries = context.color_trc = BT709
            context.colorspace, context.color_range = (BT601, FULL) if is_jpeg else (BT709, LIMITED)
            matrix, values = ("ITU601", "JPEG") if is_jpeg else ("ITU709", "MPEG")
            self._matrix = {"dst_colorspace": matrix, "dst_color_range": values}
        context.options = CODEC_OPTIONS.get(self._codec, {})
        self._open_encoder(context)
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        if self._source.path is not None and self._source.sound:
            self.sound = Sound(self._source.path, self._container, self._source.origin)

    def _open_encoder(self, context: Any) -> None:
        """Open it. DataError where it does not start: it needs what this machine does not have, say."""
        try:
            context.open()
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            reason = printable(getattr(error, "strerror", None) or error)
            text = f"the encoder {self._codec} does not start with this video on this machine ({reason})"
            raise DataError(text, self._name) from error

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        """Return an image in the video's size."""
        (height, width), (rows, columns) = self.size, self.padded
        if image.shape[:2] != self.size:
            self.refitted += 1
            scale = min(height / image.shape[0], width / image.shape[1])
            inner = [max(1, min(most, round(side * scale))) for side, most in zip(image.shape, self.size, strict=False)]
            shrunk = cv2.resize(image, (inner[1], inner[0]), interpolation=cv2.INTER_AREA)
            image = np.zeros((height, width, 3), np.uint8)
            top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
            image[top : top + inner[0], left : left + inner[1]] = shrunk
        return np.pad(image, ((0, rows), (0, columns), (0, 0)), "edge") if rows or columns else image

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Say which file it is that cannot be written."""
        try:
            yield
        except (self._av.error.FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise OSError(error.errno, error.strerror) from error
            reason = printable(getattr(error, "strerror", None) or error)
            raise DataError(f"the video cannot be written with {self._codec} ({reason})", self._name) from error


@contextmanager
def video_file(path: Path, source: FrameSource, *, codec: str | None, comment: str) -> Iterator[VideoWriter]:
    """Yield a writer; the file appears under its name when the block has ended well. Its ending is one of FORMATS."""
    with whole_file(path, durable=False) as temporary:  # made again by the same command
        writer = VideoWriter(temporary, source, name=path, codec=codec, comment=comment)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


def check_codec(ending: str, codec: str | None) -> str:
    """Return the encoder for a video with this ending.

    Raises:
        UsageError: there is none of that name, or the format does not take it.
        MissingExtraError: PyAV is not installed.
    """
    av = import_av()
    wanted = codec or FORMATS[ending][1]
    try:
        found = av.codec.Codec(wanted, "w")
    except (av.error.FFmpegError, ValueError):
        known = [name for name in av.codecs_available if _is_encoder(av, name)]
        close = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; the nearest that there is: {close[0]}" if close else ""
        raise UsageError(f"codec: this PyAV has no encoder {printable(wanted)!r}{hint}") from None
    if found.type != "video":
        raise UsageError(f"codec: {wanted} is for {found.type}, expected one for video")
    if not _takes(av, FORMATS[ending][0], wanted):
        raise UsageError(f"codec: a file {ending} takes no {wanted}; {FORMATS[ending][1]} goes into it")
    return wanted


def _is_encoder(av: Any, name: str) -> bool:
    try:
        return bool(av.codec.Codec(name, "w").type == "video")
    except (av.error.FFmpegError, ValueError):
        return False


def _takes(av: Any, kind: str, codec: str) -> bool:
    import io

    try:
        with av.open(io.BytesIO(), "w", format=kind) as probe:
            probe.add_stream(codec, rate=25)
    except (av.error.FFmpegError, ValueError):
        return False
    return True
