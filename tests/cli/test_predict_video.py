"""`segatlas predict` of videos, cameras and folders of frames, through the real command line."""

from __future__ import annotations

import csv
import json
import re
import sys
from contextlib import contextmanager
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes.model import make_model
from fakes.videos import TICK, UNEVEN, FakeCamera, images, read_images, read_times, write_sound_alone, write_video
from PIL import Image
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.cli.predict_video import name_of
from segatlas.config.objects import ObjectRule
from segatlas.data.video import cameras, open_frames
from segatlas.inference import load
from segatlas.models import load_architecture
from segatlas.output.instance import instance_map
from segatlas.output.panoptic import id_colors

av = pytest.importorskip("av", reason="PyAV is not installed; the extra [video] brings it")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "net")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", times=UNEVEN, sound="aac")


@pytest.fixture(scope="module")
def predictor(model):
    return load(model, device="cpu")


@pytest.fixture(autouse=True)
def loaded_once(predictor, monkeypatch):
    """Commands that ask for the model as it is get one that is loaded: its fast form takes most of the time."""
    monkeypatch.setattr(
        "segatlas.inference.load", lambda path, **options: predictor if plain(options) else load(path, **options)
    )


def plain(options):
    return not (options["tta"] or options.get("window"))


def segatlas(*words):
    return CliRunner().invoke(app, ["predict", "--device", "cpu", *map(str, words)])


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def mask(path):
    return np.asarray(Image.open(path))


def test_a_video_becomes_a_video_with_as_many_frames_at_the_same_times(model, clip, tmp_path):
    result = segatlas(model, clip, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert files(tmp_path) == ["clip_legend.png", "clip_overlay.mp4"]
    assert read_times(tmp_path / "clip_overlay.mp4") == [time * TICK for time in UNEVEN]
    first, *others = result.stdout.splitlines()
    assert first.startswith(f"10 frames of {clip} in ")
    assert "frames/s (network " in first
    assert others == ["sound: aac, copied"]


def test_labels_are_those_of_each_frame_alone(model, predictor, clip, tmp_path):
    result = segatlas(model, clip, "--out", tmp_path, "--save", "mask,json")
    assert result.exit_code == 0, result.output
    frames = [*open_frames(clip)]
    assert len(frames) == 10
    for frame in frames:
        labels = predictor.predict(frame.image).semantic
        assert np.array_equal(mask(tmp_path / "clip" / f"{frame.number:06d}_mask.png"), labels)
    record = json.loads((tmp_path / "clip" / "000003.json").read_text())
    assert record["source"] == f"{clip}#000003"
    rows = [*csv.DictReader((tmp_path / "clip" / "frames.csv").open())]
    assert [int(row["pts"]) * Fraction(row["time_base"]) for row in rows] == [time * TICK for time in UNEVEN]
    assert files(tmp_path) == sorted(
        f"clip/{name}"
        for name in (
            "frames.csv",
            "video.json",
            *(f"{n:06d}{end}" for n in range(10) for end in ("_mask.png", ".json")),
        )
    )


@pytest.mark.parametrize("options", [("--window", "24"), ("--batch", "3"), ("--tta", "flips")])
def test_windows_batches_and_views_change_nothing_but_what_they_say(model, clip, tmp_path, options):
    result = segatlas(model, clip, "--out", tmp_path, "--save", "mask", "--frames", "4", *options)
    assert result.exit_code == 0, result.output
    words = {"--window": {"window": 24}, "--tta": {"tta": "flips"}}.get(options[0], {})
    alone = load(model, device="cpu", **words)
    for frame, _ in zip(open_frames(clip), range(4), strict=False):
        labels = alone.predict(frame.image).semantic
        assert np.array_equal(mask(tmp_path / "clip" / f"{frame.number:06d}_mask.png"), labels)


def test_each_kind_of_image_is_a_video_that_shows_it(model, predictor, clip, tmp_path):
    result = segatlas(model, clip, "--out", tmp_path, "--save", "color,boundary,confidence")
    assert result.exit_code == 0, result.output
    assert files(tmp_path) == ["clip_boundary.mp4", "clip_color.mp4", "clip_confidence.mp4", "clip_legend.png"]
    for kind in ("boundary", "color", "confidence"):
        assert len(read_times(tmp_path / f"clip_{kind}.mp4")) == 10
    segatlas(model, clip, "--out", tmp_path / "exact.mkv", "--save", "color", "--codec", "ffv1")
    for frame, image in zip(open_frames(clip), read_images(tmp_path / "exact.mkv"), strict=True):
        assert np.array_equal(image, predictor.predict(frame.image).mask_image())  # ffv1 loses nothing


def test_out_may_be_a_file_and_says_its_smoothing(model, clip, tmp_path):
    path = tmp_path / "shown.mkv"
    result = segatlas(model, clip, "--out", path, "--smooth", "0.5", "--codec", "ffv1")
    assert result.exit_code == 0, result.output
    assert files(tmp_path) == ["shown.mkv", "shown_legend.png"]
    assert "smoothing: temporal, exponential mean of probabilities, weight 0.5 of a new frame" in result.stdout
    with av.open(str(path)) as container:
        comment = {name.lower(): text for name, text in container.metadata.items()}["comment"]
    assert "smoothing: temporal, exponential mean of probabilities, weight 0.5" in comment


def test_a_turned_video_is_predicted_and_written_upright(model, predictor, tmp_path):
    path = write_video(tmp_path / "turned.mp4", images(3), rotation=90)
    segatlas(model, path, "--out", tmp_path / "out", "--save", "overlay,mask")
    frames, written = [*open_frames(path)], read_images(tmp_path / "out" / "turned_overlay.mp4")
    assert [image.shape for image in written] == [(32, 24, 3)] * 3
    for frame in frames:
        labels = predictor.predict(frame.image).semantic
        assert np.array_equal(mask(tmp_path / "out" / "turned" / f"{frame.number:06d}_mask.png"), labels)


def test_a_file_that_ends_early_is_written_as_far_as_it_goes_and_exits_1(model, tmp_path):
    path = write_video(tmp_path / "half.mp4", images(30), file_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    result = segatlas(model, path, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1
    count = len(read_times(tmp_path / "out" / "half_overlay.mp4"))
    assert 5 < count < 30
    facts = json.loads(result.stdout)
    assert (facts["videos"][0]["frames"], facts["videos"][0]["source"]) == (count, str(path))
    assert f"ends early, after {count} of 30 frames, at " in facts["failed"][0]["error"]
    assert result.stderr.splitlines()[-1].startswith(f"failed: {path}: ends early")


def test_a_folder_of_numbered_frames_is_a_video_with_fps(model, predictor, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, image in enumerate(images(4)):
        Image.fromarray(image).save(folder / f"f{number + 8}.png")
    result = segatlas(model, folder, "--fps", "12.5", "--out", tmp_path / "out", "--save", "overlay,mask")
    assert result.exit_code == 0, result.output
    assert read_times(tmp_path / "out" / "frames_overlay.mp4") == [Fraction(2 * n, 25) for n in range(4)]
    for number, image in enumerate(images(4)):
        labels = predictor.predict(image).semantic
        assert np.array_equal(mask(tmp_path / "out" / "frames" / f"{number:06d}_mask.png"), labels)


def test_frames_that_cannot_be_read_are_told_and_the_exit_code_is_1(model, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, image in enumerate(images(4)):
        Image.fromarray(image).save(folder / f"f{number}.png")
    (folder / "f2.png").write_bytes(b"")
    result = segatlas(model, folder, "--fps", "10", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert [float(time) for time in read_times(tmp_path / "out" / "frames_overlay.mp4")] == [0, 0.1, 0.3]
    assert "failed: 1 of 4 frames cannot be read, the first: " in result.output


def test_a_camera_is_a_video_and_what_it_overwrote_is_said(model, tmp_path, monkeypatch):
    fake = FakeCamera(images(12))
    monkeypatch.setattr(cameras, "open_camera", lambda index: fake)
    result = segatlas(model, "--camera", "1", "--out", tmp_path, "--json")
    assert result.exit_code == 1  # it gives no more frames
    facts = json.loads(result.stdout)
    (video,) = facts["videos"]
    assert video["frames"] + video["overwritten"] == 12
    assert len(read_times(tmp_path / "camera1_overlay.mp4")) == video["frames"]
    assert "camera 1 gives no more frames" in facts["failed"][0]["error"]
    assert not video["overwritten"] or "left out, which came while earlier ones were predicted" in result.stderr


def test_so_many_frames_of_a_camera_end_well(model, tmp_path, monkeypatch):
    fake = FakeCamera(images(400))
    monkeypatch.setattr(cameras, "open_camera", lambda index: fake)
    result = segatlas(model, "--camera", "0", "--frames", "1", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 frame of camera 0 in ")
    assert fake.released


def test_an_interruption_keeps_what_was_read(model, clip, tmp_path, monkeypatch):
    from segatlas import video

    draw, drawn = video.draw, []

    def until_the_user_stops(*given):
        drawn.append(given)
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return draw(*given)

    monkeypatch.setattr(video, "draw", until_the_user_stops)
    result = segatlas(model, clip, "--out", tmp_path)
    assert result.exit_code == 130
    assert len(read_times(tmp_path / "clip_overlay.mp4")) == 4
    assert result.stdout.startswith("4 frames of ")


def test_a_bad_video_does_not_stop_the_others(model, clip, tmp_path):
    bad = write_sound_alone(tmp_path / "voice.mp4")
    result = segatlas(model, bad, clip, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "voice.mp4: has no video stream; it holds audio (aac)" in result.output
    assert files(tmp_path / "out") == ["clip_legend.png", "clip_overlay.mp4"]


def test_globs_of_videos_are_videos(model, tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", images(2))
    result = segatlas(model, tmp_path / "*.mp4", "--out", tmp_path / "out", "--save", "overlay")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == [f"{name}_{kind}" for name in "ab" for kind in ("legend.png", "overlay.mp4")]


def test_frames_alone_need_no_pyav_and_a_video_names_the_extra(model, clip, tmp_path, monkeypatch):
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.fromarray(images(1)[0]).save(folder / "1.png")
    monkeypatch.setitem(sys.modules, "av", None)
    result = segatlas(model, folder, "--fps", "5", "--out", tmp_path / "masks", "--save", "mask")
    assert result.exit_code == 0, result.output
    for words in ((folder, "--fps", "5"), (clip, "--save", "mask")):
        result = segatlas(model, *words, "--out", tmp_path / "out")
        assert result.exit_code == 3
        assert result.stderr == 'error: video needs PyAV - install it with: pip install "segatlas[video]"\n'


REFUSED = {
    "is a video and photo.png is not": ("CLIP", "photo.png", "--out", "out"),
    "--smooth: for a video or a camera": ("photo.png", "--smooth", "0.5", "--out", "out"),
    "--fps, --codec: for a video": ("--fps", "5", "--codec", "mpeg4", "--out", "out"),
    "--aux is for images": ("CLIP", "--aux", "a=b.png", "--out", "out"),
    "--zip is for images": ("CLIP", "--zip", "a.zip", "--out", "out"),
    "give SOURCE or --camera, not both": ("CLIP", "--camera", "0", "--out", "out"),
    "--camera: got -1": ("--camera", "-1", "--out", "out"),
    "where to? give --out DIR": ("CLIP",),
    "time stamps of its own": ("CLIP", "--fps", "5", "--out", "out"),
    "--save: got 'instances'": ("CLIP", "--save", "instances", "--out", "out"),
    "is one video; --save overlay,mask needs a folder": ("CLIP", "--save", "overlay,mask", "--out", "out.mp4"),
    "videos are written as .mp4 .mov .mkv .webm": ("CLIP", "--out", "out.avi"),
    "no encoder 'h265x'": ("CLIP", "--codec", "h265x", "--out", "out"),
    "smooth: got 0.0": ("CLIP", "--smooth", "0", "--out", "out"),
    "is one of the videos and would be overwritten": ("CLIP", "--out", "CLIP"),
    "taken is there already": ("CLIP", "--out", "taken_by", "--save", "mask"),
    "photo.png": ("CLIP", "--out", "photo.png/inside"),
    "no such file": ("none.mp4", "--out", "out"),
    "there is no camera 63": ("--camera", "63", "--out", "out"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_go_is_one_sentence_and_leaves_nothing(model, clip, tmp_path, monkeypatch, sentence):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    (tmp_path / "taken_by" / "clip").mkdir(parents=True)
    (tmp_path / "taken_by" / "clip" / "000000_mask.png").touch()
    before, content = files(tmp_path), clip.read_bytes()
    words = [str(clip) if word == "CLIP" else word for word in REFUSED[sentence]]
    result = segatlas(model, *words)
    assert result.exit_code == (1 if sentence in ("no such file", "there is no camera 63") else 2), result.output
    told = sentence.replace("taken is", "clip is")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert (files(tmp_path), clip.read_bytes()) == (before, content)


def test_names_of_results():
    assert [name_of(word) for word in ("a/b.mp4", "-", "rtsp://host:554/live/door.mp4?x=1", "http://host/")] == [
        *("b", "stdin", "door", "host")
    ]


@pytest.mark.parametrize("task", ["instance", pytest.param("panoptic", marks=pytest.mark.slow)])
def test_objects_and_segments_of_frames_are_those_of_each_frame_alone(tmp_path, monkeypatch, clip, task):
    objects = load(save_objects(tmp_path / "net", task), device="cpu")
    monkeypatch.setattr("segatlas.inference.load", lambda path, **options: objects)
    kind = {"instance": "instances", "panoptic": "panoptic"}[task]
    result = segatlas(tmp_path / "net", clip, "--out", tmp_path / "out", "--save", f"overlay,{kind}", "--frames", "3")
    assert result.exit_code == 0, result.output
    assert len(read_times(tmp_path / "out" / "clip_overlay.mp4")) == 3
    for frame, _ in zip(open_frames(clip), range(3), strict=False):
        alone = objects.predict(frame.image)
        expected = instance_map(alone) if task == "instance" else id_colors(alone.panoptic.ids)
        assert np.array_equal(mask(tmp_path / "out" / "clip" / f"{frame.number:06d}_{kind}.png"), expected)
    result = segatlas(tmp_path / "net", clip, "--out", tmp_path / "smooth", "--smooth", "0.5")
    assert result.exit_code == 2
    assert {"instance": "center gives CentersAndOffsets", "panoptic": "panoptic_fpn gives "}[task] in result.stderr


def save_objects(folder, task):
    """Save a tiny network of objects, or of segments, whose scores are not bounded."""
    torch.manual_seed(0)
    if task == "instance":
        net = create_model("center", num_classes=3, width=4)
        return save_pretrained(net, folder, classes=tuple("abc"), task=task)
    fields = {**load_architecture("panoptic_fpn").tiny, "stuff": 2, "score_threshold": 0.0}
    net = create_model("panoptic_fpn", num_classes=4, **fields)
    rule = ObjectRule(things_score=0.0, stuff_area=1)
    return save_pretrained(net, folder, classes=tuple("abcd"), things=[True, True, False, False], objects=rule)


def test_frames_per_second_are_shown_after_each_frame(model, clip, tmp_path, monkeypatch):
    from segatlas.cli import predict_video

    shown, given = [], {}

    @contextmanager
    def bar(**options):
        given.update(options)
        yield SimpleNamespace(step=shown.append)

    monkeypatch.setattr(predict_video, "progress_bar", bar)
    segatlas(model, clip, "--out", tmp_path, "--frames", "4")
    assert given["total"] == 4
    assert len(shown) == 4
    assert all(re.fullmatch(r"\d+\.\d frames/s", text) for text in shown)
