"""Frames of a video through a Predictor: each gets what it would get alone; smoothing is what its formula says."""

from __future__ import annotations

import threading
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from fakes.model import make_model
from fakes.videos import images

from segatlas.errors import DataError, UsageError
from segatlas.inference import load
from segatlas.inference.object_windows import WindowNotices
from segatlas.inference.smoothing import CUT, SmoothedRunner
from segatlas.inference.streaming import StreamFacts

CLIP = images(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "net")


@pytest.fixture(scope="module")
def model_with(folder):
    """Loads the model with options, once each: its fast form takes most of the time."""
    return cache(lambda **options: load(folder, device="cpu", **options))


@pytest.fixture(scope="module")
def predictor(model_with):
    return model_with()


@pytest.mark.parametrize("options", [{}, {"window": 24}, {"tta": "flips"}])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_frame_gets_the_labels_that_it_gets_alone(model_with, options, batch):
    model = model_with(**options)
    found = [*model.stream(CLIP, batch=batch, fps=10)]
    assert [frame.number for frame, _ in found] == [*range(6)]
    assert [result.source for _, result in found] == [f"frames#{number:06d}" for number in range(6)]
    for image, (_, result) in zip(CLIP, found, strict=True):
        assert np.array_equal(result.semantic, model.predict(image).semantic)


def test_few_frames_are_held_of_an_endless_video(predictor):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield CLIP[taken % 6]

    stream = predictor.stream(endless(), batch=2)
    for _ in range(4):
        next(stream)
    stream.close()
    assert taken <= 4 + 2 * 2 + 2
    assert not [one for one in threading.enumerate() if one.name == "segatlas-read" and one.is_alive()]


def test_so_many_frames_are_taken_and_no_more(predictor):
    coming = iter(CLIP)
    assert len([*predictor.stream(coming, most=4)]) == 4
    assert len([*coming]) == 2


def test_what_a_source_raises_at_its_end_comes_after_all_results(predictor):
    def broken():
        yield from CLIP
        raise DataError("ends early")

    stream = predictor.stream(broken())
    assert [next(stream)[0].number for _ in range(6)] == [*range(6)]
    with pytest.raises(DataError, match="ends early"):
        next(stream)


def test_a_frame_that_does_not_fit_the_model_is_named(predictor):
    with pytest.raises(DataError, match=r"frames#000001: the model expects 3 channels, the image has 2"):
        list(predictor.stream([CLIP[0], CLIP[0][..., :2]]))


def test_the_parts_of_the_time_are_counted(predictor):
    facts = StreamFacts()
    list(predictor.stream(CLIP, facts=facts))
    assert facts.read > 0
    assert facts.network > 0
    assert facts.cuts == 0


def logits_of(model, image):
    """Return the logits of an image, by the network's fast form."""
    return model.output(model._prepare(image).pixels[None])


def test_smoothing_is_the_mean_of_its_formula(predictor):
    weight, mean = 0.3, None
    for image, (_, result) in zip(CLIP, predictor.stream(CLIP, smooth=weight, confidence=True), strict=True):
        output = logits_of(predictor, image)
        now = output.logits.double().softmax(1)
        mean = now if mean is None else weight * now + (1 - weight) * mean
        expected = predictor._segmenter._postprocess(
            output._replace(logits=mean.log().float()), (24, 32), crop=(24, 32), confidence=True
        )[0]
        assert (result.semantic == expected.semantic).mean() > 0.99  # ties
        assert np.allclose(result.confidence, expected.confidence, atol=1e-4)


def test_smoothing_with_weight_1_changes_no_label(predictor):
    for image, (_, result) in zip(CLIP, predictor.stream(CLIP, smooth=1.0), strict=True):
        assert (result.semantic == predictor.predict(image).semantic).all()


def test_smoothing_steadies_labels_that_flicker(predictor):
    generator = np.random.default_rng(1)
    still = np.full((24, 32, 3), 110, np.uint8)
    noisy = [np.clip(still + generator.normal(0, 25, still.shape), 0, 255).astype(np.uint8) for _ in range(8)]

    def changes(**options):
        maps = [result.semantic for _, result in predictor.stream(noisy, **options)]
        return sum((one != other).sum() for one, other in pairwise(maps[2:]))

    assert changes(smooth=0.2) < changes()


@pytest.mark.parametrize("window", [None, 24])
def test_a_cut_and_a_change_of_size_begin_anew(model_with, window):
    model = model_with() if window is None else model_with(window=window)
    other = [255 - image for image in CLIP[:2]]
    larger = images(2, size=(40, 48))
    clip = [*CLIP[:3], *other, *larger]
    facts = StreamFacts()
    found = [result.semantic for _, result in model.stream(clip, smooth=0.2, facts=facts)]
    assert facts.cuts == 2
    for begin in (0, 3, 5):
        assert np.array_equal(found[begin], model.predict(clip[begin]).semantic)


def test_the_frames_of_a_moving_object_are_no_cut():
    thumbnails = [image.astype(np.float32).mean(2) for image in CLIP]
    assert max(np.abs(a - b).mean() for a, b in pairwise(thumbnails)) < CUT


def test_smoothing_with_windows_keeps_a_mean_of_each_window(model_with):
    model = model_with(window=24)
    smoothed = SmoothedRunner(model._runner, 0.5)
    for image in CLIP[:3]:
        prepared = model._prepare(image)
        smoothed.begin(prepared)
        model._segmenter.segment(smoothed, [prepared], False, WindowNotices())
    assert len(smoothed._means) == smoothed._passes
    assert sum(len(mean) for mean in smoothed._means) == 2  # windows, some of which share a pass


@pytest.mark.parametrize(
    ("loading", "options", "words"),
    [
        ({}, {"smooth": 0.0}, "smooth: got 0.0"),
        ({}, {"smooth": 1.5}, "smooth: got 1.5"),
        ({}, {"smooth": 0.5, "batch": 2}, "frame by frame; got a batch of 2"),
        ({"tta": "flips"}, {"smooth": 0.5}, "test-time augmentation do not go together"),
        ({}, {"smooth": "0.5"}, "smooth: got '0.5'"),
        ({}, {"most": 0}, "most: got 0"),
        ({}, {"most": 1.5}, "most: got 1.5"),
        ({}, {"batch": 0}, "batch: got 0"),
    ],
)
def test_what_does_not_go_is_refused(model_with, loading, options, words):
    with pytest.raises(UsageError, match=words):
        list(model_with(**loading).stream(CLIP, **options))


def test_smoothing_of_objects_is_refused_by_name(tmp_path):
    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained

    torch.manual_seed(0)
    net = create_model("center", num_classes=2, width=4)
    save_pretrained(net, tmp_path / "net", classes=("a", "b"), task="instance")
    with pytest.raises(UsageError, match=r"mean of class probabilities; center gives CentersAndOffsets"):
        load(tmp_path / "net", device="cpu").stream(CLIP, smooth=0.5)
