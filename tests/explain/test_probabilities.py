from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fakes.explained import CLASSES, SIZE, finder, image, predictor
from torch.nn import functional as F

from segatlas import explain
from segatlas.errors import TaskError, UsageError
from segatlas.explain import probabilities
from segatlas.explain.seeing import SeenImage


def plain_softmax(one) -> torch.Tensor:
    """Return (K, H, W), the softmax of the upsampled logits."""
    seen = SeenImage.of(one, image())
    return one.scores(seen.inputs())[0].double().softmax(dim=0)


@pytest.mark.parametrize("chunk", [probabilities.CHUNK_VALUES, 1000])
def test_probabilities_are_the_softmax_of_the_upsampled_logits(monkeypatch, chunk):
    monkeypatch.setattr(probabilities, "CHUNK_VALUES", chunk)
    one = predictor("pspnet")
    expected = plain_softmax(one)
    found = explain.probability_maps(one, image(), ["tree", 0])
    assert found.names == ("tree", "sky")
    assert np.abs(found.maps - expected[[3, 0]].numpy()).max() < 1e-4
    assert np.abs(found.means - expected.mean(dim=(1, 2)).numpy()).max() < 1e-4
    entropy = explain.entropy_map(one, image())
    plain = -(expected * expected.log()).sum(dim=0) / math.log(len(CLASSES))
    assert np.abs(entropy - plain.numpy()).max() < 1e-4


def test_the_confidence_of_a_prediction_is_the_largest_probability():
    for name, task in (("pspnet", "semantic"), ("maskformer", "semantic")):
        one = predictor(name, task)
        result = one.predict(image(), confidence=True)
        maps = explain.probability_maps(one, image(), CLASSES).maps
        assert np.abs(maps.max(axis=0) - result.confidence).max() < 1e-4
        assert (maps.argmax(axis=0) == result.semantic).mean() > 0.999


def test_without_classes_those_of_the_highest_mean_are_given():
    found = explain.probability_maps(predictor("pspnet"), image(), most=2)
    assert list(found.classes) == np.argsort(-found.means)[:2].tolist()
    assert len(explain.probability_maps(predictor("pspnet"), image(), most=None).classes) == len(CLASSES)


def test_of_objects_the_surest_that_covers_a_pixel_counts():
    one = finder()
    mask = one.model.mask_logits(SeenImage.of(one, image()).inputs())[0].detach().sigmoid()
    found = explain.probability_maps(one, image(), ["car", "sky"])
    assert np.abs(found.maps[0] - (mask * one.model.score).numpy()).max() < 1e-5
    assert not found.maps[1].any()


def test_classes_that_are_0_everywhere_are_left_out_unless_all_or_they_are_asked_for():
    assert explain.probability_maps(finder(), image()).names == ("car",)
    assert len(explain.probability_maps(finder(), image(), most=None).names) == len(CLASSES)
    assert explain.probability_maps(finder(), image(), ["sky"]).names == ("sky",)


def test_of_queries_of_objects_the_largest_product_counts():
    one = predictor("mask2former", "instance")
    out = one.output(SeenImage.of(one, image()).inputs())
    masks = F.interpolate(out.mask_logits, size=out.canvas, mode="bilinear", align_corners=False)
    masks = masks[0, :, : SIZE[0], : SIZE[1]].sigmoid()
    expected = (out.class_logits[0].softmax(1)[:, 1, None, None] * masks).amax(dim=0)
    found = explain.probability_maps(one, image(), [1])
    assert np.abs(found.maps[0] - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize(("name", "task"), [("center", "instance"), ("eomt", "instance")])
def test_objects_have_no_entropy(name, task):
    with pytest.raises(TaskError, match="no distribution over classes"):
        explain.entropy_map(predictor(name, task), image())
    assert explain.probability_maps(predictor(name, task), image()).maps.max() <= 1


@pytest.mark.parametrize("name", ["panoptic_deeplab", "mask2former"])
def test_segments_have_entropy(name):
    entropy = explain.entropy_map(predictor(name, "panoptic"), image())
    assert entropy.shape == SIZE
    assert 0 <= entropy.min() < entropy.max() <= 1


def test_figures_hold_the_image_and_a_map_for_each_class():
    found = explain.probability_maps(predictor("pspnet"), image(), CLASSES)
    figure = explain.probability_figure(image(), found, predictor("pspnet").card.palette)
    smaller = explain.probability_figure(image(), explain.probability_maps(predictor("pspnet"), image(), [0]))
    assert figure.shape[0] * figure.shape[1] > smaller.shape[0] * smaller.shape[1]
    assert explain.entropy_figure(image(), explain.entropy_map(predictor("pspnet"), image())).dtype == np.uint8


def test_a_class_that_is_not_there_is_told():
    with pytest.raises(UsageError, match="did you mean 'road'"):
        explain.probability_maps(predictor("pspnet"), image(), ["roda"])
