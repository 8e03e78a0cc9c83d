"""Video files, addresses and pipes as frames, read by PyAV: upright, 8 bits, each at its own time."""

from __future__ import annotations

import re
import stat
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from segatlas.data.video.frames import FrameSource, VideoFrame, count_frames
from segatlas.data.video.pyav import import_av
from segatlas.errors import DataError
from segatlas.printable import printable

NO_DATA_SECONDS = 20.0
"""An address that gives nothing for so long has ended."""
HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions of high dynamic range, by the number that files have for them."""
ONE = 65536
"""1 in a display matrix."""
PATIENCE = 1.0


class ContainerFrames(FrameSource):
    """The frames of the best video stream of a file, an address or a pipe.

    A frame is turned upright as the file's display matrix says, and has 8 bits: (H, W, 3) RGB, or (H, W, 1) of grey
    video. Colours follow the matrix and the range that the file names; where it names none, BT.601, as FFmpeg takes
    them. Time stamps and their base are the file's.
    """

    def __init__(self, source: str | Path | BinaryIO):
        """Open it and find the stream.

        Raises:
            DataError: missing, empty, no video, or a codec without a decoder.
            MissingExtraError: PyAV is not installed.
        """
        name = str(source) if isinstance(source, str | Path) else "standard input"
        self._av = import_av()
        self._reading = threading.Lock()
        path = Path(source) if isinstance(source, str | Path) and "://" not in str(source) else None
        if path is not None:
            _check_file(path)
        self._container = self._open(source, name)
        try:
            self._stream = self._video_stream(name)
        except BaseException:
            self._container.close()
            raise
        stream = self._stream
        super().__init__(
            name,
            count=stream.frames or None,
            rate=stream.average_rate or stream.guessed_rate,
            path=path if path is not None and path.is_file() else None,
            pixel_aspect=stream.sample_aspect_ratio or Fraction(1),
            sound=tuple(one.codec_context.name for one in self._container.streams.audio if one.codec_context),
            origin=max(Fraction(0), Fraction(self._container.start_time or 0, 1_000_000)),
        )
        left = [one for one in self._container.streams if one is not stream and one.type != "audio"]
        if left:
            named = ", ".join(f"{one.type} ({_codec(self._container, one)})" for one in left)
            self.notes.append(f"of its streams is left out: {named}")
        self._packets = self._last = self._damaged = self._moved = 0
        self._number, self._end = 0, Fraction(0)
        self._bad: list[str] = []
        self._stopped = ""
        self._told: set[str] = set()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames.

        Raises:
            DataError: after the last frame: the file ends early, or packets of it could not be decoded.
        """
        decoded = self._decoded()
        while True:
            with self._reading:
                found = next(decoded, None)
            if found is None:
                break
            yield found
        fault = self._fault()
        if fault:
            raise DataError(fault, self.name)

    def close(self) -> None:
        """Close the file, unless a thread waits in it for data: then it is closed when that thread ends."""
        if self._reading.acquire(timeout=PATIENCE):
            self._container.close()
            self._reading.release()

    def _open(self, source: str | Path | BinaryIO, name: str) -> Any:
        timeout = (NO_DATA_SECONDS, NO_DATA_SECONDS) if "://" in name else None
        try:
            return self._av.open(str(source) if isinstance(source, Path) else source, timeout=timeout)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            hint = ", is it truncated or damaged, or no video at all?" if isinstance(error, ValueError) else ""
            raise DataError(f"cannot be opened as a video{hint} ({self._why(error)})", name) from error

    def _video_stream(self, name: str) -> Any:
        """Return the best stream of moving images."""
        container = self._container
        kind = container.format.name
        if kind.endswith("_pipe") or kind == "image2":
            raise DataError(f"is a still image ({kind.removesuffix('_pipe')}), no video; give it its own ending", name)
        cover = self._av.stream.Disposition.attached_pic
        streams = [one for one in container.streams.video if not one.disposition & cover]
        if not streams:
            held = ", ".join(f"{one.type} ({_codec(container, one)})" for one in container.streams) or "nothing"
            raise DataError(f"has no video stream; it holds {held}", name)
        best = container.streams.best("video")
        stream = best if best in streams else streams[0]
        if stream.codec_context is None:
            raise DataError(f"no decoder for its video, {_codec(container, stream)}, in this PyAV", name)
        return stream

    def _decoded(self) -> Iterator[VideoFrame]:
        """Yield frames; note what cannot be decoded, and go on."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (self._av.error.FFmpegError, OSError, ValueError) as error:
                self._stopped = f": reading stops ({self._why(error)})"
                packet = None
            try:
                frames = self._stream.codec_context.decode(None) if packet is None else packet.decode()
            except EOFError:
                frames = []  # flushed already
            except (self._av.error.FFmpegError, ValueError) as error:
                self._bad.append(f"after {count_frames(self._number)} ({_reason(error)})")
                frames = []
            if packet is not None and packet.size:
                self._packets += 1
            for frame in frames:
                yield self._frame(frame)
            if packet is None:
                return

    def _frame(self, decoded: Any) -> VideoFrame:
        self._look(decoded)
        base = decoded.time_base or self._stream.time_base
        step = max(1, round(1 / (self.rate * base))) if self.rate else 1
        duration = int(decoded.duration or 0)
        pts = decoded.pts
        if pts is None or (self._number and pts <= self._last):
            pts = self._last + step if self._number else 0
            self._moved += 1
        pixels = decoded.format
        is_grey = len([one for one in pixels.components if not one.is_alpha]) == 1 and pixels.name[:3] != "pal"
        image = decoded.to_ndarray(format="gray" if is_grey else "rgb24")
        turned = turn(image.reshape(*image.shape[:2], -1), display_matrix(decoded))
        frame = VideoFrame(
            number=self._number,
            image=turned,
            pts=int(pts),
            time_base=Fraction(base),
            duration=duration,
            source=self.called(self._number),
        )
        self._number += 1
        self._last = int(pts)
        self._end = max(self._end, (self._last + (duration or step)) * Fraction(base))
        return frame

    def _look(self, decoded: Any) -> None:
        """Note, once each, what a user should know of the frames."""
        self._damaged += bool(decoded.is_corrupt)
        bits = max(one.bits for one in decoded.format.components)
        if bits > 8:
            self._tell("bits", f"frames of {bits} bits a channel are brought to 8")
        if (kind := HDR.get(int(decoded.color_trc))) is not None:
            self._tell("hdr", f"HDR ({kind}): colours are taken as they are stored, without tone mapping")
        if decoded.interlaced_frame:
            self._tell("interlaced", "interlaced: the lines of a frame are of two moments; they are taken as they are")
        matrix = display_matrix(decoded)
        if matrix is not None and not is_right_angle(matrix):
            self._tell("angle", "shown at an angle that is no multiple of 90 degrees: frames are taken as stored")
        if not self._number and matrix is not None and matrix[0][0] == 0:
            self.pixel_aspect = 1 / self.pixel_aspect  # as shown

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self.notes.append(text)

    def report(self) -> list[str]:
        """Return what a user should know of the frames that were taken so far."""
        told = super().report()
        if self._moved:
            behind = f"put {float(1 / self.rate):g} s behind it" if self.rate else "put behind it"
            told.append(f"{count_frames(self._moved)} with no time, or none after the frame before: {behind}")
        if self._damaged:
            told.append(f"{count_frames(self._damaged)} marked as damaged by the decoder")
        return told

    def _fault(self) -> str:
        """Return what is wrong with the file as far as it was read, "" for nothing."""
        start = (self._stream.start_time or 0) * self._stream.time_base
        got, whole = self._end - start, self._length()
        step = 1 / self.rate if self.rate else Fraction(1, 10)
        bad = ""
        if self._bad:
            packets = "1 packet" if len(self._bad) == 1 else f"{len(self._bad)} packets, the first of them"
            bad = f"{packets} cannot be decoded, {self._bad[0]}"
        if self._number == 0:
            return f"holds no frame that can be decoded{self._stopped}{bad and f': {bad}'}"
        if self.count is None:
            ends_early = whole is not None and got < whole - 2 * step
        else:  # a list of edits may leave packets out; then the time is whole
            ends_early = self._packets < self.count and (whole is None or got < whole - step / 2 or bool(bad))
        if ends_early or self._stopped:
            frames = f"{self._number} of {self.count} frames" if self.count else count_frames(self._number)
            of_time = f" of {float(whole):.2f}" if whole is not None and whole >= got else ""
            return f"ends early, after {frames}, at {float(got):.2f}{of_time} s{self._stopped or (bad and f': {bad}')}"
        return f"{bad}; what is there: {count_frames(self._number)}" if bad else ""

    def _why(self, error: BaseException) -> str:
        """Return why reading stopped."""
        is_silence = isinstance(error, self._av.error.ExitError)
        return f"no data for {NO_DATA_SECONDS:g} s" if is_silence else _reason(error)

    def _length(self) -> Fraction | None:
        """Return the seconds that the file says the stream has, None where it does not tell."""
        if self._stream.duration:
            return self._stream.duration * self._stream.time_base
        told = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", self._stream.metadata.get("DURATION", ""))
        if told:  # Matroska
            return int(told[1]) * 3600 + int(told[2]) * 60 + Fraction(told[3])
        if self._container.duration and len(self._container.streams) == 1:
            return Fraction(self._container.duration, 1_000_000)
        return None


def display_matrix(decoded: Any) -> list[list[float]] | None:
    """Return how a frame is shown: its x axis, then its y axis, as (right, down); None = as it is stored."""
    for one in decoded.side_data:
        if one.type.name == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(one), np.int32)
            return [[float(values[row * 3 + column]) / ONE for column in range(2)] for row in range(2)]
    return None


def is_right_angle(matrix: list[list[float]]) -> bool:
    """Whether a display matrix turns by a multiple of 90 degrees, mirrored or not."""
    (a, b), (c, d) = ([round(value, 2) for value in row] for row in matrix)
    return (a == d == 0 and b != 0 != c) or (b == c == 0 and a != 0 != d)


def turn(image: np.ndarray, matrix: list[list[float]] | None) -> np.ndarray:
    """Return an image (H, W, C) as a display matrix shows it; of other angles than right ones, as it is."""
    if matrix is not None and is_right_angle(matrix):
        (a, b), (c, d) = matrix
        if abs(b) > abs(a):
            image, a, d = image.transpose(1, 0, 2), c, b
        image = image[:, ::-1] if a < 0 else image
        image = image[::-1] if d < 0 else image
    return np.ascontiguousarray(image)


def _check_file(path: Path) -> None:
    """Raise DataError where there is nothing to read."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise DataError("no such file", path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise DataError("the file is empty (0 bytes)", path)


def _reason(error: BaseException) -> str:
    """Return what FFmpeg says of an error, without its number and the place in its code."""
    return printable(getattr(error, "strerror", None) or error)


def _codec(container: Any, stream: Any) -> str:
    """Return the name of a stream's codec, or what the file calls it where nobody knows it."""
    if stream.codec_context is not None:
        return str(stream.codec_context.name)
    from av import logging

    level = logging.get_level()
    logging.set_level(logging.INFO)  # else nothing is told
    try:
        text = container.dumps_format()
    finally:
        logging.set_level(level)
    told = re.search(rf"Stream #0:{stream.index}\b.*?: \w+: ([^,\n]+)", text)
    return printable(told[1].strip()) if told else "unknown"
