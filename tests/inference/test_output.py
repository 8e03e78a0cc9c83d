"""`Predictor.output`: the typed output of a network at its own stride, for class maps, objects and several inputs."""

from __future__ import annotations

import pytest
import torch

import segatlas as sa
from segatlas.build.saving import make_card
from segatlas.inference import Predictor
from segatlas.structures import CentersAndOffsets, Inputs, SemanticLogits, maps_of

SIZE = (37, 50)
"""No multiple of any stride: networks pad, and say so in the canvas."""


def images(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def predictor(name: str, fields: dict | None = None, **options) -> Predictor:
    torch.manual_seed(0)
    net = sa.create_model(name, num_classes=3, width=4, **(fields or {}))
    return Predictor(net, make_card(net, classes=("a", "b", "c")), device="cpu", **options)


OBJECTS = ("center", {"levels": 3})
CASES = {
    "semantic": ("unet", {}, SemanticLogits, images(1)),
    "objects": (*OBJECTS, CentersAndOffsets, images(1)),
    "sources": ("fc_siam", {}, SemanticLogits, Inputs(images(1), {"before": images(2)})),
}


@pytest.mark.parametrize("case", CASES)
def test_output_is_what_the_network_itself_gives_at_its_own_stride(case):
    name, fields, kind, inputs = CASES[case]
    ours = predictor(name, fields)
    output = ours.output(inputs)
    with torch.no_grad():
        expected = ours.model(inputs)
    assert type(output) is type(expected) is kind
    assert output.canvas == expected.canvas
    assert maps_of(output).keys() == maps_of(expected).keys()
    for key, found in maps_of(output).items():
        wanted = maps_of(expected)[key]
        assert (found.dtype, found.shape) == (torch.float32, wanted.shape)
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max())


def test_scores_are_the_output_upsampled_to_the_size_of_the_inputs():
    ours = predictor("unet")
    output, scores = ours.output(images(1)), ours.scores(images(1))
    upsampled = sa.ops.upsample_logits(output.logits, SIZE, canvas=output.canvas, crop=SIZE)
    assert scores.shape == (2, 3, *SIZE)
    assert torch.allclose(scores, upsampled, atol=1e-4 * scores.abs().max())


def test_scores_of_a_network_of_objects_are_refused():
    with pytest.raises(sa.errors.TaskError, match="gives CentersAndOffsets, no class scores for each pixel"):
        predictor(*OBJECTS).scores(images(1))


@pytest.mark.parametrize("options", [{"tta": "flips"}, {"window": 32, "tta": "flips"}])
def test_views_of_a_network_of_objects_are_wrong_usage(options):
    with pytest.raises(sa.errors.UsageError, match=r"^tta: test-time augmentation is for class maps"):
        predictor(*OBJECTS, **options)


def test_a_network_of_objects_takes_windows():
    result = predictor(*OBJECTS, window=32).predict(torch.zeros(3, 70, 90, dtype=torch.uint8))
    assert all(one.rle.size == (70, 90) for one in result.instances)
