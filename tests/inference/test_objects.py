"""What is asked of objects reaches the results, and networks' own bounds."""

import numpy as np
import pytest
import torch

from segatlas.build.network import create_model
from segatlas.build.saving import make_card, save_pretrained
from segatlas.errors import UsageError
from segatlas.hub.loading import with_bounds
from segatlas.inference import Predictor, load, segmenter

IMAGE = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network that takes every second pixel for the centre of an object."""
    torch.manual_seed(0)
    net = create_model("center", num_classes=3, width=4, levels=3)
    net.centers.begin_with(3.0)
    torch.nn.init.constant_(net.classifier.bias, 3.0)
    place = tmp_path_factory.mktemp("center") / "model"
    save_pretrained(net, place, classes=["a", "b", "c"])
    return place


def scores(folder, **asked):
    return [one.score for one in load(folder, objects=asked).predict(IMAGE).instances]


def test_score_top_and_overlap_leave_the_best_objects(folder):
    everything = scores(folder)
    assert len(everything) > 3
    assert everything == sorted(everything, reverse=True)
    assert scores(folder, top=2) == everything[:2]
    assert scores(folder, top=None, score=None) == everything
    middle = everything[len(everything) // 2]
    assert scores(folder, score=middle) == [one for one in everything if one >= middle]
    assert len(scores(folder, overlap=0.0, class_agnostic=True)) <= len(everything)


def test_bounds_that_do_not_fit_the_model_are_wrong_usage(folder):
    with pytest.raises(UsageError, match="overlap: got 2"):
        load(folder, objects={"overlap": 2})
    unet = create_model("unet", encoder="resnet18_w8", num_classes=2)
    card = make_card(unet, classes=["a", "b"])
    with pytest.raises(UsageError, match="top: is for models of objects; the task of this one is semantic"):
        Predictor(unet, card, objects={"top": 3})
    assert with_bounds(card, {"top": 3, "score": None}) == card


def test_what_windows_leave_out_is_told_once_of_all_images(folder, monkeypatch):
    joined = segmenter.results_by_windows

    def leaving_two_out(*given, notices, **more):
        notices.left_out, notices.best = notices.left_out + 2, max(notices.best, 0.25)
        return joined(*given, notices=notices, **more)

    monkeypatch.setattr(segmenter, "results_by_windows", leaving_two_out)
    with pytest.warns(UserWarning, match="^6 pieces .* with a score of 0.25") as caught:
        found = list(load(folder, window=48).predict_iter([IMAGE] * 3))
    assert (len(caught), len(found)) == (1, 3)
