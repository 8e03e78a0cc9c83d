"""Tiny videos, written by PyAV, and a camera that is none."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

UNEVEN = (0, 3600, 7300, 20000, 21000, 50000, 90000, 95001, 200000, 210001)
"""Times of ten frames, in ticks of 1/90000 s."""
TICK = Fraction(1, 90_000)


def images(count: int = 10, size: tuple[int, int] = (24, 32), seed: int = 0) -> list[np.ndarray]:
    """Return images of a bright square that moves over a dark, slightly noisy ground."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        image = generator.integers(0, 60, (*size, 3)).astype(np.uint8)
        left = 2 * number % (size[1] - 8)
        image[6:14, left : left + 8] = (230, 200, 40)
        found.append(image)
    return found


def write_video(
    path: Path,
    frames: Sequence[np.ndarray] | None = None,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    tick: Fraction = TICK,
    rotation: int = 0,
    sound: str = "",
    tags: dict[str, Any] | None = None,
    options: dict[str, str] | None = None,
    form: str | None = None,
    file_options: dict[str, str] | None = None,
) -> Path:
    """Write frames, with B-frames where the codec makes them; 25 a second unless times, in ticks, are given."""
    import av

    frames = images() if frames is None else frames
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=form, options=file_options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = stream.time_base = tick
        stream.codec_context.thread_count = 1  # the same bytes each time
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        stream.options = options or {}
        if rotation:
            stream.set_display_rotation(rotation)
        voice = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels, threads=1)
            frame.time_base = tick
            frame.pts = times[number] if times else round(number / (25 * tick))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            _write_sound(container, voice, len(frames) / 25)
    return path


def write_sound_alone(path: Path) -> Path:
    """Write a file with sound and no image."""
    import av

    with av.open(str(path), "w") as container:
        voice = container.add_stream("aac", rate=48000, layout="mono")
        _write_sound(container, voice, 0.2)
    return path


def _write_sound(container: Any, voice: Any, seconds: float) -> None:
    import av

    tone = (np.sin(np.arange(1000) * 0.1) * 8000).astype(np.int16)[None]
    for start in range(0, round(seconds * 48000), 1000):
        part = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = 48000, start, Fraction(1, 48000)
        container.mux(voice.encode(part))
    container.mux(voice.encode(None))


def read_times(path: Path) -> list[Fraction]:
    """Return when each frame of a video is shown, in seconds."""
    import av

    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def read_images(path: Path) -> list[np.ndarray]:
    """Return the frames of a video as they are stored."""
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


class FakeCamera:
    """Gives images as a camera does, BGR, and then nothing more. gate: called before each image, with its number."""

    def __init__(self, frames: Sequence[np.ndarray], gate: Any = None):
        self.frames = list(frames)
        self.gate = gate
        self.given = 0
        self.released = False

    def read(self) -> tuple[bool, Any]:
        if self.gate is not None:
            self.gate(self.given)
        if self.given == len(self.frames):
            return False, None
        self.given += 1
        return True, self.frames[self.given - 1][..., ::-1]

    def release(self) -> None:
        self.released = True
