"""What all sources of frames give: a frame with its place in time, and a word on what happened on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

DEFAULT_RATE = Fraction(25)
"""Frames per second of images that come without a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoFrame:
    """One frame of a video.

    number: from 0, without gaps. image: what a Predictor takes; of files and cameras (H, W, 3) uint8 RGB or, of grey
    video, (H, W, 1), upright. pts: when it is shown, a whole number of time_base, which is in seconds. duration: how
    long, likewise; 0 = not known. source: what messages and results call it.
    """

    number: int
    image: Any
    pts: int
    time_base: Fraction
    duration: int = 0
    source: str = ""

    @property
    def seconds(self) -> float:
        """When it is shown."""
        return float(self.pts * self.time_base)


class FrameSource(ABC):
    """Frames that are taken once, in order.

    name: for messages. count: of frames, None = not known. rate: frames per second on average, None = not known.
    path: the file, where it is one that can be read again. pixel_aspect: width of a pixel by its height, as shown.
    sound: codecs of its sound. origin: seconds that its time begins with, 0 where it begins before.
    overwritten: frames that came while earlier ones were worked on, and went. notes: what a user should know of all.
    """

    def __init__(
        self,
        name: str,
        *,
        count: int | None = None,
        rate: Fraction | None = None,
        path: Path | None = None,
        pixel_aspect: Fraction = Fraction(1),
        sound: tuple[str, ...] = (),
        origin: Fraction = Fraction(0),
    ):
        self.name = name
        self.count = count
        self.rate = rate
        self.path = path
        self.pixel_aspect = pixel_aspect
        self.sound = sound
        self.origin = origin
        self.overwritten = 0
        self.notes: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames.

        Raises:
            DataError: after the last frame, where the source ends early or frames of it were lost.
        """

    def report(self) -> list[str]:
        """Return what a user should know of the frames that were taken so far."""
        return list(self.notes)

    def called(self, number: int) -> str:
        """Return what a frame is called that has no name of its own."""
        return f"{self.name}#{number:06d}"

    def close(self) -> None:  # noqa: B027 (most sources hold nothing)
        """Let go of what the source holds; no frame is taken any more."""


def count_frames(number: int) -> str:
    """Return "1 frame", "3 frames"."""
    return "1 frame" if number == 1 else f"{number} frames"


class GivenFrames(FrameSource):
    """Images that the caller has, as frames of one length each."""

    def __init__(self, images: Iterable[Any], rate: Fraction):
        super().__init__("frames", rate=rate, count=len(images) if isinstance(images, Sized) else None)
        self._images = images

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the images as frames."""
        step = 1 / Fraction(self.rate or DEFAULT_RATE)
        for number, image in enumerate(self._images):
            yield VideoFrame(
                number=number, image=image, pts=number, time_base=step, duration=1, source=self.called(number)
            )
