"""Grad-CAM against a slow plain form: no gradients, two passes a channel, in double precision."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.explained import CLASSES, SIZE, Finder, finder, image, predictor
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas import explain
from segatlas.errors import DataError, UsageError
from segatlas.explain.seeing import SeenImage
from segatlas.structures import DetectedMasks

STEP = 1e-5


def summed(net: nn.Module, inputs: Tensor, kind: int, inside: np.ndarray) -> float:
    """Return the logits of a class over a region, upsampled to the image as semantic networks are."""
    out = net(inputs)
    mode, align = out.resample
    whole = F.interpolate(out.logits, size=out.canvas, mode=mode, align_corners=align)[0, kind, : SIZE[0], : SIZE[1]]
    return float(whole[torch.from_numpy(inside)].detach().sum())


@torch.no_grad()
def plain_heat(
    net: nn.Module, layer: str, inputs: Tensor, kind: int, inside: np.ndarray, stride: int, as_map, back
) -> np.ndarray:
    """Return Grad-CAM of a layer: the weight of a channel is how much the sum changes when all of it is a step larger.

    as_map: what the layer gives -> (C, h, w). back: (C, h, w) -> what the layer gives, of a change.
    """
    net, inputs = copy.deepcopy(net).double().eval(), inputs.double()
    given: list[Tensor] = []
    hook = net.get_submodule(layer).register_forward_hook(lambda module, args, out: given.append(out.clone()))
    net(inputs)
    hook.remove()
    maps = as_map(given[0])
    weights = []
    for channel in range(len(maps)):
        change = torch.zeros_like(maps)
        change[channel] = STEP
        sums = []
        for sign in (1, -1):
            changed = given[0] + back(sign * change, given[0])
            hook = net.get_submodule(layer).register_forward_hook(lambda module, args, out, new=changed: new)
            sums.append(summed(net, inputs, kind, inside))
            hook.remove()
        weights.append((sums[0] - sums[1]) / (2 * STEP) / maps[0].numel())
    heat = torch.zeros(maps.shape[1:], dtype=torch.float64)
    for weight, values in zip(weights, maps, strict=True):
        heat += weight * values
    heat = heat.clamp(min=0)
    covered = (heat.shape[0] * stride, heat.shape[1] * stride)
    whole = F.interpolate(heat[None, None], size=covered, mode="bilinear", align_corners=False)
    return whole[0, 0, : SIZE[0], : SIZE[1]].numpy()


FIRST = (lambda out: out[0], lambda change, out: change[None])
LAST = (lambda out: out[0].permute(2, 0, 1), lambda change, out: change.permute(1, 2, 0)[None])
CASES = {
    "channels first": ("pspnet", "encoder.layer2", 8, FIRST),
    "channels last": ("semask_fpn", "encoder.layers.0", 4, LAST),
}


@pytest.mark.parametrize("case", CASES)
def test_heat_is_that_of_the_slow_plain_form(case):
    name, layer, stride, (as_map, back) = CASES[case]
    one = predictor(name)
    inside = np.zeros(SIZE, bool)
    inside[10:40, 20:70] = True
    found = explain.heat_map(one, image(), "car", layer, inside)
    seen = SeenImage.of(one, image())
    expected = plain_heat(one.model, layer, seen.inputs(), 2, inside, stride, as_map, back)
    assert expected.max() > 0
    assert found.heat.max() == pytest.approx(1)
    assert found.strength == pytest.approx(expected.max(), rel=1e-3)
    assert np.abs(found.heat * found.strength - expected).max() < 1e-3 * expected.max()
    sums = summed(copy.deepcopy(one.model).double(), seen.inputs().double(), 2, inside)
    assert found.target == pytest.approx(sums, rel=1e-4, abs=1e-3)


def test_tokens_lie_where_their_patches_are():
    one, layer = predictor("segmenter"), "encoder.blocks.0"
    inside = np.ones(SIZE, bool)
    encoder = one.model.encoder
    seen = SeenImage.of(one, image())
    grid = tuple(-(-side // encoder.patch_size) for side in SIZE)
    prefix = encoder.prefix_tokens

    def as_map(out: Tensor) -> Tensor:
        return out[0, prefix:].T.reshape(-1, *grid)

    def back(change: Tensor, out: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(out[:, :prefix]), change.flatten(1).T[None]], dim=1)

    found = explain.heat_map(one, image(), 1, layer, "image")
    expected = plain_heat(one.model, layer, seen.inputs(), 1, inside, encoder.patch_size, as_map, back)
    assert np.abs(found.heat * found.strength - expected).max() < 1e-3 * max(expected.max(), 1e-9)


def test_the_networks_weights_and_gradients_are_left_as_they_were():
    one = predictor("pspnet")
    before = {name: (p.requires_grad, p.grad) for name, p in one.model.named_parameters()}
    explain.heat_maps(one, image(), None, ["car"], "image")
    assert {name: (p.requires_grad, p.grad) for name, p in one.model.named_parameters()} == before
    assert not any(module._forward_hooks for module in one.model.modules())


def test_without_classes_those_predicted_are_explained_largest_first():
    one = predictor("pspnet")
    result = one.predict(image())
    found = explain.heat_maps(one, image())
    areas = result.areas()
    assert [each.class_name for each in found] == sorted(areas, key=lambda name: -areas[name])
    assert all(each.region == "the pixels predicted as it" for each in found)


def test_a_box_an_array_and_a_mask_file_mean_the_same_pixels(tmp_path):
    one = predictor("pspnet")
    inside = np.zeros(SIZE, bool)
    inside[5:20, 30:50] = True
    from segatlas.drawing import save_image

    file = save_image(inside.astype(np.uint8) * 255, tmp_path / "mask.png")
    found = [explain.heat_map(one, image(), "car", region=region) for region in ((5, 30, 20, 50), inside, file)]
    assert found[0].target == found[1].target == found[2].target
    assert np.array_equal(found[0].heat, found[2].heat)


@pytest.mark.parametrize(
    ("name", "task"),
    [("center", "instance"), ("mask2former", "panoptic"), ("eomt", "instance"), ("maskformer", "semantic")],
)
def test_a_model_of_each_task_is_explained(name, task):
    found = explain.heat_maps(predictor(name, task), image(), None, [0, 3], "image")
    assert [one.class_name for one in found] == ["sky", "tree"]
    assert all(one.heat.shape == SIZE and np.isfinite(one.heat).all() for one in found)
    figure = explain.heat_map_figure(image(), found)
    assert figure.ndim == 3
    assert figure.dtype == np.uint8


def test_objects_are_explained_by_score_and_mask_inside_their_mask():
    one = finder()
    found = explain.heat_map(one, image(), "car", "encoder", "image")
    mask = one.model.mask_logits(SeenImage.of(one, image()).inputs())[0].detach()
    sure = torch.logit(torch.tensor(one.model.score))
    there = mask[mask > 0]
    assert found.target == pytest.approx(float((there + sure).sum()), rel=1e-4)
    assert found.heat.max() == pytest.approx(1)
    assert explain.heat_map(one, image(), "car", "encoder", (0, 0, 8, 8)).target == pytest.approx(
        float((mask[:8, :8] + sure)[mask[:8, :8] > 0].sum()), rel=1e-4
    )


def test_a_class_without_objects_has_a_note_in_place_of_heat():
    found = explain.heat_map(finder(), image(), "road", "encoder", "image")
    assert found.note == "no object of it is found there"
    assert not found.heat.any()


FAULTS = {
    "class": ({"class_name": "cra"}, UsageError, "class: got 'cra'.*did you mean 'car'"),
    "class number": ({"class_name": 4}, UsageError, "the model has 4 classes, 0..3"),
    "layer": ({"layer": "encoder.layer5"}, UsageError, "layer: got 'encoder.layer5'.*nearest: encoder.layer"),
    "several maps": ({"layer": "encoder"}, UsageError, "layer: encoder gives .* tensors, expected one map"),
    "unused": ({"layer": "aux_head"}, UsageError, "layer: aux_head does not run"),
    "box outside": ({"region": (0, 0, 61, 10)}, UsageError, r"box: got 0, 0, 61, 10 .*not inside.*83 x 60"),
    "box before": ({"region": (-1, 0, 6, 10)}, UsageError, "not inside the image"),
    "empty box": ({"region": (5, 5, 5, 9)}, UsageError, "has no pixels"),
    "mask size": ({"region": np.ones((3, 4), bool)}, DataError, "the mask is 4 x 3 pixels, the image 83 x 60"),
    "empty mask": ({"region": np.zeros(SIZE, bool)}, DataError, "the mask is empty"),
    "no region": ({"region": (1, 2)}, UsageError, "region: got"),
    "no file": ({"region": "nothing.png"}, DataError, "nothing.png"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_explained_is_told_in_a_sentence(fault):
    given, error, message = FAULTS[fault]
    with pytest.raises(error, match=message):
        explain.heat_map(predictor("pspnet", aux=True), image(), **{"class_name": "car", "region": "image", **given})


def test_a_class_that_is_predicted_nowhere_is_told_with_those_that_are():
    one = predictor("pspnet")
    shown = {explain.heat_maps(one, image())[0].class_name}
    lost = next(name for name in CLASSES if name not in one.predict(image()).areas())
    with pytest.raises(UsageError, match=f"'{lost}' is predicted nowhere.*it has.*{shown.pop()}"):
        explain.heat_map(one, image(), lost)


def test_values_that_are_no_numbers_are_told():
    one = predictor("pspnet")
    with pytest.raises(DataError, match=r"NaN|infinite|finite"):
        explain.heat_map(one, np.full((20, 20, 3), np.nan, np.float32), "car")
    broken = copy.deepcopy(one)
    with torch.no_grad():
        broken.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="no finite numbers"):
        explain.heat_map(broken, image(), "car", region="image")


def test_a_class_that_hangs_on_another_layer_has_a_note_beside_those_that_have_heat():
    class WithStuff(Finder):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Conv2d(3, 2, 1)

        def forward(self, inputs: Tensor) -> DetectedMasks:
            return super().forward(inputs)._replace(semantic=self.other(inputs))

    one = finder()
    one.model, one.card = WithStuff().eval(), replace(one.card, things=(True, True, True, False))
    found = explain.heat_maps(one, image(), "encoder", ["car", "tree"], "image")
    assert [each.note for each in found] == ["", "its logits do not depend on this layer"]
    assert found[0].strength > 0
    with pytest.raises(UsageError, match="logits of 'tree' have no gradient at encoder"):
        explain.heat_maps(one, image(), "encoder", ["tree"], "image")
    assert explain.heat_map(one, image(), "tree", "other", "image").note == ""


def test_a_network_without_gradients_is_told():
    class Rounded(nn.Module):
        def __init__(self, net: nn.Module):
            super().__init__()
            self.encoder, self.net = net.encoder, net

        def forward(self, inputs: Tensor):
            out = self.net(inputs)
            return out._replace(logits=out.logits.detach())

    one = copy.deepcopy(predictor("pspnet"))
    one.model = Rounded(one.model)
    with pytest.raises(UsageError, match="have no gradient at encoder"):
        explain.heat_map(one, image(), "car", region="image")
