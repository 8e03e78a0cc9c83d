"""Videos of results: frames in and out are as many, at the same times, in the right size, with the sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from fakes.videos import TICK, UNEVEN, images, read_images, read_times, write_video

from segatlas.data.video import open_frames
from segatlas.errors import DataError, UsageError
from segatlas.output.video import VideoWriter, check_codec, video_file

av = pytest.importorskip("av", reason="PyAV is not installed; the extra [video] brings it")


def copied(source_path, path, codec=None, change=lambda image, number: image):
    """Write the frames of a video as they are, and return the writer."""
    source = open_frames(source_path)
    with video_file(path, source, codec=codec, comment="smoothing: none") as writer:
        for frame in source:
            writer.write(change(frame.image, frame.number), frame)
    return writer


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_uneven_times_are_carried_over_exactly(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    writer = copied(write_video(tmp_path / "clip.mp4", times=UNEVEN), path)
    assert read_times(path) == [time * TICK for time in UNEVEN]
    assert writer.frames == 10
    with av.open(str(path)) as container:
        assert container.duration / 1e6 >= UNEVEN[-1] / 90_000  # no player stops before the last frame


@pytest.mark.parametrize("ending", [".mkv", ".webm"])
def test_times_go_into_matroska_to_the_millisecond(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    copied(write_video(tmp_path / "clip.mp4", times=UNEVEN), path)
    assert [float(t) for t in read_times(path)] == pytest.approx([t / 90_000 for t in UNEVEN], abs=0.001)


def test_a_transport_stream_begins_at_0_and_sound_stays_beside_the_image(tmp_path):
    path = tmp_path / "out.mp4"
    source = write_video(tmp_path / "clip.ts", form="mpegts", sound="aac")
    copied(source, path)
    before, after = first_times(source), first_times(path)
    assert min(before.values()) > 0.01
    assert after["video"] - after["audio"] == pytest.approx(before["video"] - before["audio"], abs=0.001)
    assert min(after.values()) == pytest.approx(0, abs=0.001)


def first_times(path):
    with av.open(str(path)) as container:
        found = {}
        for packet in container.demux():
            if packet.pts is not None:
                found.setdefault(packet.stream.type, float(packet.pts * packet.time_base))
    return found


@pytest.mark.parametrize("size", [(25, 33), (24, 33), (25, 32)])
def test_odd_sides_get_one_row_or_column_more_and_lose_nothing(tmp_path, size):
    given = [np.repeat(image[..., :1], 3, axis=2) for image in images(3, size)]
    clip = write_video(tmp_path / "clip.mkv", given, codec="ffv1")
    writer = copied(clip, tmp_path / "out.mp4")
    assert writer.padded == (size[0] % 2, size[1] % 2)
    for image, written in zip(given, read_images(tmp_path / "out.mp4"), strict=True):
        assert written.shape[:2] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        expected = np.pad(image, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), "edge")
        assert np.abs(written.astype(int) - expected).mean() < 8  # noise of 0..59 shifted by a pixel: about 20


def test_colours_are_written_and_tagged_as_bt_709(tmp_path):
    given = np.zeros((24, 32, 3), np.uint8)
    given[:] = (200, 60, 30)
    copied(write_video(tmp_path / "clip.mkv", [given] * 2, codec="ffv1"), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - (200, 60, 30)).max() <= 3
        assert container.metadata["comment"] == "smoothing: none"


def test_frames_of_another_size_are_fitted_into_the_first_one_s(tmp_path):
    def change(image, number):
        return image if number < 4 else np.full((48, 32, 3), 200, np.uint8)

    writer = copied(write_video(tmp_path / "clip.mp4"), tmp_path / "out.mp4", change=change)
    last = read_images(tmp_path / "out.mp4")[-1]
    assert (writer.refitted, last.shape) == (6, (24, 32, 3))
    assert last[:, 12:20].mean() > 180
    assert last[:, :6].mean() < 30


def test_pixels_that_are_not_square_stay_so(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", tags={"sample_aspect_ratio": Fraction(4, 3)}, rotation=90)
    copied(clip, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 4)  # the frames are upright now
        assert next(container.decode(video=0)).rotation == 0


def test_sound_is_copied_packet_by_packet(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", images(25), sound="aac")
    writer = copied(clip, tmp_path / "out.mp4")
    assert writer.sound.copied == ("aac",)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(clip)


def test_sound_ends_where_the_frames_end(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", images(25), sound="aac")
    source = open_frames(clip)
    with video_file(tmp_path / "out.mp4", source, codec=None, comment="") as writer:
        for frame, _ in zip(source, range(5), strict=False):
            writer.write(frame.image, frame)
    whole, part = sound_packets(clip), sound_packets(tmp_path / "out.mp4")
    assert part == whole[: len(part)]
    assert 5 < len(part) < 15


def test_sound_that_a_format_has_no_place_for_is_named(tmp_path):
    writer = copied(write_video(tmp_path / "clip.mkv", sound="libopus"), tmp_path / "out.mov")
    assert (writer.sound.copied, writer.sound.left_out) == ((), ("opus",))
    assert len(read_times(tmp_path / "out.mov")) == 10


def sound_packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_encoders_that_are_not_there_are_told_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"no encoder 'libx26'; the nearest that there is: libx26[45]"):
        check_codec(".mp4", "libx26")
    with pytest.raises(UsageError, match="codec: aac is for audio"):
        check_codec(".mp4", "aac")
    with pytest.raises(UsageError, match=r"a file \.webm takes no libx264; libvpx-vp9 goes into it"):
        check_codec(".webm", "libx264")


def test_an_encoder_that_does_not_start_is_named(tmp_path):
    with pytest.raises(DataError, match=r"out\.mkv: the encoder mpeg2video does not start with this video"):
        copied(write_video(tmp_path / "clip.mp4", images(2)), tmp_path / "out.mkv", codec="mpeg2video")
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9", "mpeg4", "mjpeg"])
def test_colours_come_back_with_every_named_encoder(tmp_path, codec):
    ramp = np.linspace(40, 200, 96)[None].repeat(64, 0)
    given = np.stack([ramp, ramp[:, ::-1], np.full_like(ramp, 90)], -1).astype(np.uint8)
    clip = write_video(tmp_path / "clip.mkv", [given] * 3, codec="ffv1", pixels="bgr0")
    copied(clip, tmp_path / "out.mp4", codec=codec)
    found = [frame.image for frame in open_frames(tmp_path / "out.mp4")]
    assert len(found) == 3
    assert max(np.abs(image.astype(int) - given).mean() for image in found) < 2.5


@pytest.mark.parametrize("codec", ["mpeg4", "ffv1", "libx265", "mjpeg"])
def test_other_encoders_keep_frames_and_times(tmp_path, codec):
    copied(write_video(tmp_path / "clip.mp4", times=UNEVEN), tmp_path / "out.mkv", codec=codec)
    times = [float(time) for time in read_times(tmp_path / "out.mkv")]
    assert times == pytest.approx([time / 90_000 for time in UNEVEN], abs=0.001)


def test_ffv1_keeps_every_pixel_of_odd_sizes_too(tmp_path):
    clip = write_video(tmp_path / "clip.mkv", images(3, (25, 33)), codec="ffv1", pixels="bgr0")
    writer = copied(clip, tmp_path / "out.mkv", codec="ffv1")
    assert writer.padded == (0, 0)
    assert np.array_equal(read_images(tmp_path / "out.mkv"), images(3, (25, 33)))


def test_nothing_is_left_of_a_video_that_could_not_be_finished(tmp_path):
    with pytest.raises(RuntimeError, match="stop"):
        copied(write_video(tmp_path / "clip.mp4"), tmp_path / "out" / "x.mp4", change=stop_at_5)
    assert [*(tmp_path / "out").iterdir()] == []


def stop_at_5(image, number):
    if number == 5:
        raise RuntimeError("stop")
    return image


def test_frames_closer_than_a_tick_of_the_file_all_get_a_time_of_their_own(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", images(5), times=(0, 10, 20, 30, 9000))
    for name in ("out.mkv", "out.mp4"):
        copied(clip, tmp_path / name)
        times = read_times(tmp_path / name)
        assert times == sorted(set(times))
        assert len(times) == 5


def test_a_full_disk_is_told_by_the_file_s_name(tmp_path):
    source = open_frames(write_video(tmp_path / "clip.mp4", images(6, (96, 128))))
    writer = VideoWriter(Path("/dev/full"), source, name=tmp_path / "out.mkv")
    with pytest.raises((OSError, DataError), match=r"No space left|cannot be written"):
        write_all(writer, source)
    writer.close()


def write_all(writer, source):
    for frame in source:
        writer.write(frame.image, frame)
    writer.finish()


def test_sound_that_cannot_be_copied_ends_and_the_frames_go_on(tmp_path):
    source = open_frames(write_video(tmp_path / "clip.mp4", images(25), sound="aac"))
    with video_file(tmp_path / "out.mp4", source, codec=None, comment="") as writer:
        for frame in source:
            writer.write(frame.image, frame)
            if frame.number == 5:
                writer.sound._stop(ValueError("damaged"))
    assert writer.sound.fault == "damaged"
    assert len(read_times(tmp_path / "out.mp4")) == 25
    assert 2 < len(sound_packets(tmp_path / "out.mp4")) < len(sound_packets(tmp_path / "clip.mp4"))
