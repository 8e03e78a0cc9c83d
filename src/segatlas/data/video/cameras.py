"""A camera as frames: always the newest one, and a count of those that nobody had time for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Protocol

import cv2
import numpy as np

from segatlas.data.video.frames import FrameSource, VideoFrame
from segatlas.errors import DataError, UsageError

TICK = Fraction(1, 90_000)
"""Time base of frames from a camera, whose times are those of their arrival."""
PATIENCE = 2.0
"""Seconds that closing waits for a camera that is being read."""


class Camera(Protocol):
    """What is asked of a camera, as OpenCV's `VideoCapture` has it."""

    def read(self) -> tuple[bool, Any]:
        """Wait for the next frame; return whether one came, and it as (H, W, 3) uint8 BGR."""
        ...

    def release(self) -> None:
        """Let go of it."""
        ...


class CameraFrames(FrameSource):
    """The frames of a camera. A thread of its own takes each one as it comes and keeps the newest.

    A frame that comes before the last one was taken takes its place: `overwritten` counts them, so that what the camera
    gave is what was yielded, what was overwritten and at most one that was not taken at the end.
    """

    def __init__(self, index: int, clock: Callable[[], float] = time.monotonic):
        """Open the camera.

        Args:
            index: 0 for the first.
            clock: gives seconds.

        Raises:
            UsageError: a negative index.
            DataError: no such camera.
        """
        if index < 0:
            raise UsageError(f"camera: got {index}, expected 0 for the first camera, 1 for the next")
        super().__init__(f"camera {index}")
        self._clock = clock
        self._camera = open_camera(index)
        self._news = threading.Condition()
        self._newest: tuple[np.ndarray, float] | None = None
        self._closed = self._ended = False
        self._thread = threading.Thread(target=self._take, name="segatlas-camera", daemon=True)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the newest frame, as soon as there is one that was not yielded yet.

        Raises:
            DataError: the camera gives no frame any more.
        """
        self._thread.start()  # not before: nothing is overwritten while a model is loaded
        number, last, start = 0, -1, None
        while True:
            with self._news:
                self._news.wait_for(lambda: self._newest is not None or self._ended or self._closed)
                taken, self._newest = self._newest, None
            if taken is None and self._closed:
                return
            if taken is None:
                after = f"no more frames after {number}, at {float(last * TICK):.2f} s" if number else "no frame"
                raise DataError(f"{self.name} gives {after}")
            image, moment = taken
            start = moment if start is None else start
            last = max(last + 1, round((moment - start) / TICK))
            yield VideoFrame(number=number, image=image, pts=last, time_base=TICK, source=self.called(number))
            number += 1

    def close(self) -> None:
        """Let go of the camera."""
        with self._news:
            is_first, self._closed = not self._closed, True
            self._news.notify_all()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
        elif is_first:
            self._camera.release()

    def _take(self) -> None:
        try:
            while not self._closed:
                try:
                    good, image = self._camera.read()
                except cv2.error:
                    good, image = False, None
                moment = self._clock()
                with self._news:
                    if good and image is not None:
                        self.overwritten += self._newest is not None
                        self._newest = np.ascontiguousarray(image[..., ::-1]), moment
                    else:
                        self._ended = True
                    self._news.notify_all()
                if self._ended:
                    return
        finally:
            self._camera.release()
            with self._news:
                self._ended = True
                self._news.notify_all()


def open_camera(index: int) -> Camera:
    """Return an open camera. DataError where there is none."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # it warns of each way that it tries; we say one sentence
    try:
        camera = cv2.VideoCapture(index)
    finally:
        logging.setLogLevel(level)
    if not camera.isOpened():
        raise DataError(f"there is no camera {index}, or it is in use")
    return camera
