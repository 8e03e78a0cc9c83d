"""Sources of frames: every frame, once, upright, at its time; and one sentence where something is wrong."""

from __future__ import annotations

import io
import threading
from fractions import Fraction

import numpy as np
import pytest
from fakes.videos import TICK, UNEVEN, FakeCamera, images, write_sound_alone, write_video
from PIL import Image

from segatlas.data.video import cameras, is_video, open_frames, read_rate
from segatlas.data.video.containers import ContainerFrames
from segatlas.errors import DataError, MissingExtraError, UsageError

av = pytest.importorskip("av", reason="PyAV is not installed; the extra [video] brings it")


def everything(source):
    """Return the frames and the error after them, None where there is none."""
    found, coming = [], iter(source)
    try:
        for frame in coming:
            found.append(frame)
    except DataError as error:
        return found, str(error)
    return found, None


def cut(path, fraction):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def test_every_frame_is_read_also_those_that_the_decoder_holds_back(tmp_path):
    source = open_frames(write_video(tmp_path / "clip.mp4", images(23)))
    found, fault = everything(source)
    assert [frame.number for frame in found] == list(range(23))
    assert (fault, source.count, source.report()) == (None, 23, [])
    assert all(frame.image.shape == (24, 32, 3) and frame.image.dtype == np.uint8 for frame in found)


def test_frames_have_the_file_s_own_uneven_times(tmp_path):
    found, _ = everything(open_frames(write_video(tmp_path / "clip.mp4", times=UNEVEN)))
    assert [frame.pts * frame.time_base for frame in found] == [time * TICK for time in UNEVEN]


@pytest.mark.parametrize("codec", ["ffv1", "libx264"])
def test_frames_have_the_colours_that_were_written(tmp_path, codec):
    given = np.zeros((24, 32, 3), np.uint8)
    given[:, :16], given[:, 16:] = (200, 60, 30), (10, 120, 240)
    (frame, *_), _ = everything(open_frames(write_video(tmp_path / "clip.mkv", [given] * 2, codec=codec)))
    assert np.abs(frame.image[4, 4].astype(int) - (200, 60, 30)).max() <= 3
    assert np.abs(frame.image[4, 28].astype(int) - (10, 120, 240)).max() <= 3


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv444p12le", "gbrp10le", "bgra", "yuva420p", "bgr0", "rgb48le"])
def test_deep_and_transparent_pixels_are_read_as_8_bit_colours(tmp_path, pixels):
    given = np.zeros((25, 33, 3), np.uint8)
    given[:] = (200, 60, 30)
    source = open_frames(write_video(tmp_path / "clip.mkv", [given], codec="ffv1", pixels=pixels))
    (frame,), _ = everything(source)
    assert frame.image.shape == (25, 33, 3)
    assert np.abs(frame.image.astype(int) - (200, 60, 30)).max() <= 1
    assert bool(source.report()) == any(digits in pixels for digits in ("10", "12", "48"))


@pytest.mark.parametrize("pixels", ["gray", "gray10le", "gray16le"])
def test_grey_video_has_one_channel(tmp_path, pixels):
    given = np.full((24, 32, 3), 130, np.uint8)
    given[:12] = 0
    (frame,), _ = everything(open_frames(write_video(tmp_path / "c.mkv", [given], codec="ffv1", pixels=pixels)))
    assert frame.image.shape == (24, 32, 1)
    assert np.abs(frame.image[..., 0].astype(int) - given[..., 0]).max() <= 1


@pytest.mark.parametrize(("trc", "kind"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_said(tmp_path, trc, kind):
    tags = {"color_trc": trc, "color_primaries": 9, "colorspace": 9}
    source = open_frames(
        write_video(
            tmp_path / "c.mp4",
            codec="libx265",
            pixels="yuv420p10le",
            tags=tags,
            options={"x265-params": "log-level=none"},
        )
    )
    everything(source)
    assert [note for note in source.report() if f"HDR ({kind})" in note]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_are_turned_upright(tmp_path, rotation):
    given = np.zeros((24, 32, 3), np.uint8)
    given[:8, :16] = 255
    path = write_video(tmp_path / "clip.mp4", [given] * 2, rotation=rotation)
    found, _ = everything(open_frames(path))
    upright = np.rot90(given, rotation // 90)  # counter-clockwise, as the file says it
    for frame in found:
        assert frame.image.shape == upright.shape
        assert ((frame.image > 128) == (upright > 128)).all()


def test_an_odd_angle_leaves_frames_as_stored_and_is_said(tmp_path):
    source = open_frames(write_video(tmp_path / "clip.mp4", images(2), rotation=30))
    found, fault = everything(source)
    assert (len(found), fault) == (2, None)
    assert [note for note in source.report() if "multiple of 90" in note]


@pytest.mark.parametrize(
    ("name", "codec", "fraction"),
    [
        ("clip.mp4", "libx264", 0.7),
        ("clip.mkv", "libx264", 0.7),
        ("clip.webm", "libvpx-vp9", 0.7),
        ("clip.avi", "mpeg4", 0.9),
    ],
)
def test_a_file_that_ends_early_gives_what_is_there_and_says_where_it_ends(tmp_path, name, codec, fraction):
    tick = Fraction(1, 25) if codec == "mpeg4" else TICK
    index_first = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = cut(write_video(tmp_path / name, images(50), codec=codec, tick=tick, file_options=index_first), fraction)
    source = open_frames(path)
    found, fault = everything(source)
    assert 5 < len(found) < 50
    assert [frame.number for frame in found] == list(range(len(found)))
    assert f"ends early, after {len(found)}" in fault
    assert codec == "mpeg4" or "of 2.00 s" in fault


def test_damage_in_the_middle_is_told_after_the_other_frames(tmp_path):
    path = write_video(tmp_path / "clip.mp4", images(50), codec="mpeg4", tick=Fraction(1, 25))
    with av.open(str(path)) as container:
        place, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][30]
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    found, fault = everything(open_frames(path))
    assert len(found) == 49
    assert fault.startswith(f"{path}: 1 packet cannot be decoded, after 30 frames (")
    assert fault.endswith("; what is there: 49 frames")


def test_frames_that_change_their_size_keep_it(tmp_path):
    first, then = images(3), images(3, size=(40, 48))
    path = tmp_path / "clip.h264"
    parts = [
        write_video(tmp_path / f"{n}.h264", part, form="h264").read_bytes() for n, part in enumerate((first, then))
    ]
    path.write_bytes(b"".join(parts))
    found, _ = everything(open_frames(path))
    assert [frame.image.shape[:2] for frame in found] == [(24, 32)] * 3 + [(40, 48)] * 3
    assert [frame.pts for frame in found] == sorted({frame.pts for frame in found})


def test_an_animated_gif_is_a_video_with_its_own_delays(tmp_path):
    stills = [Image.fromarray(image) for image in images(3)]
    stills[0].save(tmp_path / "clip.gif", save_all=True, append_images=stills[1:], duration=[40, 200, 100])
    found, fault = everything(open_frames(tmp_path / "clip.gif"))
    assert [frame.seconds for frame in found] == pytest.approx([0, 0.04, 0.24])
    assert fault is None


def test_a_pipe_is_read(tmp_path):
    path = write_video(tmp_path / "clip.mkv")
    found, fault = everything(ContainerFrames(io.BytesIO(path.read_bytes())))
    assert (len(found), fault) == (10, None)


def still_called_video(folder):
    Image.new("RGB", (32, 24)).save(folder / "x.mp4", format="PNG")


def without_decoder(folder):
    path = write_video(folder / "x.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))


def without_index(folder):
    cut(write_video(folder / "x.mp4", images(30)), 0.5)


FAULTS = {
    "no such file": lambda folder: None,
    "the file is empty (0 bytes)": lambda folder: (folder / "x.mp4").write_bytes(b""),
    "cannot be opened as a video, is it truncated": lambda folder: (folder / "x.mp4").write_text("text " * 99),
    "is a still image (png)": still_called_video,
    "has no video stream; it holds audio (aac)": lambda folder: write_sound_alone(folder / "x.mp4"),
    "no decoder for its video, none (zzz1": without_decoder,
    "truncated or damaged": without_index,
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_what_is_no_video_is_told_in_one_sentence(tmp_path, sentence):
    FAULTS[sentence](tmp_path)
    with pytest.raises(DataError) as caught:
        open_frames(tmp_path / "x.mp4")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "x.mp4"))
    assert "\n" not in str(caught.value)


def test_a_missing_pyav_names_the_extra(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install .segatlas\[video\]"):
        open_frames(path)


def numbered(folder, numbers, size=(6, 8)):
    folder.mkdir()
    for number in numbers:
        Image.fromarray(np.full((*size, 3), number, np.uint8)).save(folder / f"frame_{number}.png")
    return folder


def test_numbered_images_come_in_the_order_of_their_numbers(tmp_path):
    source = open_frames(numbered(tmp_path / "frames", [10, 2, 1, 9]), fps="30000/1001")
    found, fault = everything(source)
    assert [int(frame.image[0, 0, 0]) for frame in found] == [1, 2, 9, 10]
    assert [frame.pts * frame.time_base for frame in found] == [n * Fraction(1001, 30000) for n in range(4)]
    assert (fault, source.report()) == (None, ["6 numbers are missing between 1 and 10, the first after 2"])


def test_an_image_that_cannot_be_read_is_told_after_the_others(tmp_path):
    folder = numbered(tmp_path / "frames", range(1, 6))
    (folder / "frame_3.png").write_bytes(b"nothing")
    found, fault = everything(open_frames(folder))
    assert [frame.number for frame in found] == [0, 1, 2, 3]
    assert fault.startswith("1 of 5 frames cannot be read")
    assert "frame_3.png" in fault


@pytest.mark.parametrize(
    ("name", "words"), [("last.png", "no number"), ("other_1.png", "one sequence"), ("frame_01.png", "same number")]
)
def test_names_that_are_no_sequence_are_refused(tmp_path, name, words):
    folder = numbered(tmp_path / "frames", [1, 2])
    Image.new("RGB", (8, 6)).save(folder / name)
    with pytest.raises(DataError, match=words):
        open_frames(folder)


def test_images_of_the_caller_are_frames():
    found, fault = everything(open_frames(iter(images(3)), fps=10))
    assert [frame.seconds for frame in found] == pytest.approx([0, 0.1, 0.2])
    assert fault is None


@pytest.fixture
def camera(monkeypatch):
    def plug(fake):
        monkeypatch.setattr(cameras, "open_camera", lambda index: fake)
        return fake

    return plug


def test_a_camera_gives_rgb_and_says_when_it_gives_no_more(camera):
    given, turn = images(3), threading.Semaphore(1)
    fake = camera(FakeCamera(given, gate=lambda number: turn.acquire()))
    coming, found = iter(open_frames(0)), []
    for _ in given:
        found.append(next(coming))
        turn.release()
    with pytest.raises(DataError, match=r"camera 0 gives no more frames after 3, at "):
        next(coming)
    assert all((frame.image == image).all() for frame, image in zip(found, given, strict=True))
    assert [frame.pts for frame in found] == sorted({frame.pts for frame in found})
    assert fake.released


def test_frames_that_a_camera_overwrote_are_counted(camera):
    done = threading.Event()
    camera(FakeCamera(images(7), gate=lambda number: number == 7 and done.set()))
    source = open_frames(0)
    coming = iter(source)
    first = next(coming)
    assert done.wait(10)
    found, _ = everything(coming)
    assert first.number == 0
    assert 1 + len(found) + source.overwritten == 7


def test_a_camera_that_is_closed_ends_without_a_fault(camera):
    fake = camera(FakeCamera(images(2), gate=lambda number: None))
    source = open_frames(0)
    next(iter(source))
    source.close()
    assert fake.released


def test_a_camera_without_a_frame_is_told(camera):
    camera(FakeCamera([]))
    with pytest.raises(DataError, match="camera 1 gives no frame"):
        next(iter(open_frames(1)))


def test_a_missing_camera_and_a_negative_one_are_refused(capfd):
    with pytest.raises(DataError, match="there is no camera 63"):
        open_frames(63)
    with pytest.raises(UsageError, match="camera: got -1"):
        open_frames(-1)
    assert capfd.readouterr().err == ""


def test_rates_are_fractions_and_belong_to_folders_alone(tmp_path):
    assert [read_rate(25), read_rate("30000/1001"), read_rate(29.97)] == [
        25,
        Fraction(30000, 1001),
        Fraction(2997, 100),
    ]
    for bad in ("0", "fast", "-3", "1/0"):
        with pytest.raises(UsageError, match="fps: got"):
            read_rate(bad)
    with pytest.raises(UsageError, match="time stamps of its own"):
        open_frames(write_video(tmp_path / "clip.mp4"), fps=25)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("", "an empty name"),
        (3.5, "float"),
        (None, "NoneType"),
        (True, "bool"),
        (b"clip.mp4", "bytes"),
        (np.zeros((24, 32, 3), np.uint8), r"an array of shape \(24, 32, 3\)"),
        (np.zeros((24, 32), np.uint8), r"an array of shape \(24, 32\)"),
    ],
)
def test_what_is_no_source_is_refused(source, found):
    with pytest.raises(UsageError, match=f"source: got {found}, expected a video file"):
        open_frames(source)


@pytest.mark.parametrize("shape", [(3, 24, 32, 3), (3, 24, 32)])
def test_a_stack_of_images_is_a_video(shape):
    assert [frame.image.shape for frame in open_frames(np.zeros(shape, np.uint8))] == [shape[1:]] * 3


def test_frames_without_times_follow_each_other_and_it_is_said(tmp_path):
    source = open_frames(write_video(tmp_path / "clip.h264", images(12), form="h264"))
    found, fault = everything(source)
    assert [frame.pts * frame.time_base for frame in found] == [Fraction(number, 25) for number in range(12)]
    assert (fault, source.report()) == (
        None,
        ["12 frames with no time, or none after the frame before: put 0.04 s behind it"],
    )


def test_one_is_not_called_many(tmp_path):
    clip = write_video(tmp_path / "clip.mkv", images(5), codec="mjpeg", pixels="yuvj420p", tick=Fraction(1, 1000))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 45 // 100])
    found, fault = everything(open_frames(clip))
    assert len(found) == 1
    assert fault.startswith(f"{clip}: ends early, after 1 frame, at 0.04 of ")


def test_words_that_mean_a_video(tmp_path):
    assert [
        is_video(word) for word in ("a.mp4", "A.MOV", "-", "rtsp://host/live", "a.gif", "a.png", "a.tif", "dir")
    ] == [
        *(True, True, True, True, True),
        *(False, False, False),
    ]


def test_a_camera_that_nobody_asked_for_a_frame_overwrites_none_and_is_let_go(camera):
    fake = camera(FakeCamera(images(5)))
    source = open_frames(0)
    assert (source.overwritten, fake.given) == (0, 0)
    source.close()
    source.close()
    assert fake.released


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/clip.mp4", "rtsp://127.0.0.1:9/door"])
def test_an_address_where_nobody_answers_is_told(address):
    with pytest.raises(DataError, match=rf"{address}: cannot be opened as a video \(.*refused"):
        open_frames(address)
