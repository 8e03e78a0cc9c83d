"""The tool that times `predict` of a video beside a plain loop runs, and finds the same labels."""

from __future__ import annotations

import json

import pytest
from fakes.model import make_model
from fakes.videos import images, write_video

pytest.importorskip("av", reason="PyAV is not installed; the extra [video] brings it")


def test_both_ways_are_timed_and_no_label_differs(tmp_path, capsys):
    import video_speed

    model, clip = make_model(tmp_path / "net"), write_video(tmp_path / "clip.mp4", images(4))
    assert video_speed.main([str(model), str(clip), "--rounds", "1", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["frames"], found["labels_that_differ"]) == (4, 0)
    assert found["ratio"] > 0
