"""The sound of a video file, copied into the videos that are made of it."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

from segatlas.data.video.pyav import import_av
from segatlas.printable import printable


class Sound:
    """The sound streams of a file, on their way into another file; packets are copied, nothing is coded anew.

    copied: their codecs. left_out: those that the other file's format has no place for. fault: why they end before the
    frames do, "" where they do not.
    """

    def __init__(self, path: Path, output: Any, origin: Fraction):
        """Open the file and make streams in `output`, a container that is not begun.

        Args:
            path: of the video file.
            output: of PyAV.
            origin: seconds of the file's time that are 0 in `output`.
        """
        self._av = import_av()
        self._output, self._origin = output, origin
        self._input = self._av.open(str(path))
        streams = [one for one in self._input.streams.audio if one.codec_context is not None]
        fitting = [one for one in streams if self._fits(one)]
        self.copied = tuple(one.codec_context.name for one in fitting)
        self.left_out = tuple(one.codec_context.name for one in streams if one not in fitting)
        self._targets = {one.index: output.add_stream_from_template(one) for one in fitting}
        self._packets = self._input.demux(*fitting) if fitting else iter(())
        self._next: Any = None
        self.fault = ""

    def copy(self, until: Fraction | None) -> None:
        """Copy what sounds before `until`, in seconds of the file's time; None: all that is left."""
        while True:
            packet = self._next if self._next is not None else self._take()
            self._next = packet
            if packet is None:
                return
            if until is not None and _time(packet) >= until:
                return
            self._next = None
            shift = round(self._origin / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = packet.dts - shift
            packet.stream = self._targets[packet.stream.index]
            try:
                self._output.mux(packet)
            except (self._av.error.FFmpegError, ValueError) as error:  # the frames are worth more
                self._stop(error)

    def close(self) -> None:
        """Close the file."""
        self._packets = iter(())
        self._input.close()

    def _take(self) -> Any:
        """Return the next packet with content, None at the end."""
        try:
            return next((packet for packet in self._packets if packet.dts is not None and packet.size), None)
        except (self._av.error.FFmpegError, ValueError) as error:
            self._stop(error)
            return None

    def _stop(self, error: Exception) -> None:
        self.fault = printable(getattr(error, "strerror", None) or error)
        self._packets = iter(())

    def _fits(self, stream: Any) -> bool:
        """Whether the output's format takes a stream: a file of it alone is begun in memory."""
        try:
            with self._av.open(io.BytesIO(), "w", format=self._output.format.name) as probe:
                probe.add_stream_from_template(stream)
                probe.start_encoding()
        except (self._av.error.FFmpegError, ValueError):
            return False
        return True


def _time(packet: Any) -> Fraction:
    time: Fraction = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
    return time
