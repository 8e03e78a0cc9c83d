"""What the tool hands to the other implementation: logits at the image's size, and their sum over a region."""

import types

import numpy as np
import pytest
import torch
from fakes.explained import predictor

import beside_grad_cam
from segatlas import explain
from segatlas.explain.seeing import SeenImage


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_logits_are_at_the_size_of_the_image(image):
    unet = predictor("unet")
    logits = beside_grad_cam.Logits(unet.model)(SeenImage.of(unet, image).inputs())
    assert logits.shape == (1, 4, 64, 96)
    assert np.array_equal(logits[0].argmax(0).numpy(), unet.predict(image).semantic)


def test_a_region_is_summed():
    inside = np.array([[True, False], [True, True]])
    logits = torch.tensor([[[1.0, 2], [3, 4]], [[10.0, 20], [30, 40]]])
    assert float(beside_grad_cam.Summed(1, inside)(logits)) == 80


@pytest.mark.parametrize(("further", "apart"), [(0.0, 0.0), (0.25, 0.25)])
def test_heats_are_set_beside_one_another(image, monkeypatch, further, apart):
    unet = predictor("unet")
    ours = explain.heat_map(unet, image, "road", "decoder.1", "image")

    class Peer:
        def __init__(self, model, target_layers):
            assert target_layers == [explain.find_layer(unet.model, "decoder.1")]

        def __enter__(self):
            return lambda input_tensor, targets: [ours.heat + further]

        def __exit__(self, *error):
            return None

    monkeypatch.setitem(__import__("sys").modules, "pytorch_grad_cam", types.SimpleNamespace(GradCAM=Peer))
    monkeypatch.setattr(beside_grad_cam.explain, "heat_map", lambda *given: ours)
    layer, found = beside_grad_cam.differences(unet, image, "decoder.1", "road")
    assert layer == "decoder.1"
    assert found == pytest.approx(np.full((64, 96), apart), abs=1e-6)
