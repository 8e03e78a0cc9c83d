"""Facts that hold for every loss; what it takes, and which keys suit small images, a loss says itself."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.logits import CANVAS, CLASSES, example
from pydantic import Field

import segatlas
from segatlas.config.losses import LossConfig
from segatlas.errors import ConfigError, UsageError
from segatlas.losses import LOSSES, Loss, losses_for
from segatlas.recipe import Config
from segatlas.structures import CentersAndOffsets, PointLogits

SRC = Path(segatlas.__file__).parent.parent
SEMANTIC = losses_for("SemanticLogits")
MAPS = [name for name, loss in SEMANTIC.items() if loss.fits is Loss.fits]
"""Losses on a map of logits."""
LIGHT = """
import sys
import segatlas.losses
from segatlas.errors import ConfigError
from segatlas.recipe import Config

stated = {"losses": [{"name": name, "weight": 0.5} for name in segatlas.losses.LOSSES], "train": {"lrr": 1}}
for recipe in ({"train": {"lrr": 1}}, stated, {"losses": [{"name": "dice", "smoth": 1}]}):
    try:
        Config.load(recipe)
    except ConfigError:
        continue
    raise SystemExit("no error")
assert not {"torch", "timm", "cv2"} & set(sys.modules), set(sys.modules)
"""


def own_keys(loss: type[Loss]) -> list[str]:
    return [key for key in loss.model_fields if key not in LossConfig.model_fields]


def other_value(loss: type[Loss], key: str) -> Any:
    """Return another value of a loss's key than its default, within its bounds."""
    default = loss.model_fields[key].default
    if isinstance(default, bool):
        return not default
    larger = default * 10 if isinstance(default, int) else default * 3 + 0.3
    for value in (larger, default / 3, default * 1.5, default / 1.5, default + 1):
        with suppress(ValueError):
            loss(**{key: value})
            return value
    raise AssertionError(f"no other value of {loss.__name__}.{key} is known here: add one")


def test_another_value_of_a_key_is_within_both_of_its_bounds():
    class Bounded(LOSSES["dice"]):
        power: float = Field(2.0, ge=1, le=4, description="made here")

    assert 1 <= other_value(Bounded, "power") <= 4
    assert other_value(Bounded, "power") != 2


OWN_KEYS = [(name, key) for name in MAPS for key in own_keys(LOSSES[name])]


def given(loss: Loss, labels: torch.Tensor) -> Any:
    return loss.example(labels, CLASSES, torch.Generator().manual_seed(0))


def test_a_loss_is_called_as_its_file_and_its_keys_have_a_meaning():
    for name, loss in LOSSES.items():
        assert loss.__module__ == f"segatlas.losses.{name}"
        assert loss().name == name
        assert all(loss.model_fields[key].description for key in own_keys(loss))
        assert getattr(segatlas.losses, loss.__name__) is loss


def test_neither_the_losses_nor_a_recipe_with_each_of_them_load_torch():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_else_has_the_name_of_a_loss():
    with pytest.raises(AttributeError, match="no attribute 'Dicee'"):
        _ = segatlas.losses.Dicee


@pytest.mark.parametrize("name", SEMANTIC)
def test_a_loss_takes_its_own_example_and_refuses_what_others_take(name):
    loss, labels = LOSSES[name](), example()[1]
    assert loss.fits(given(loss, labels))
    assert loss(given(loss, labels), labels).item() > 0
    strangers = (
        PointLogits(torch.zeros(2, 4, 6), torch.zeros(2, 6, 2)),
        torch.zeros(2, 4),
        torch.zeros(2, 5, 4, 4),
        None,
    )
    refused = [stranger for stranger in strangers if not loss.fits(stranger)]
    assert len(refused) >= 3
    for stranger in refused:
        with pytest.raises(UsageError, match=rf"loss {name} is on '{loss.on}', which gives .*; it takes ") as caught:
            loss(stranger, labels)
        assert loss.takes in str(caught.value)


def test_the_loss_of_centres_takes_its_own_example_and_no_logits():
    loss = LOSSES["centers_offsets"]()
    assert isinstance(given(loss, example()[1]), CentersAndOffsets)
    assert not any(loss.fits(given(LOSSES[name](), example()[1])) for name in SEMANTIC)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if not loss.weighted])
def test_class_weights_without_a_meaning_are_refused_by_the_recipe_and_by_the_loss(name):
    model = {
        "centers_offsets": {"name": "center"},
        **{loss: {"name": "panoptic_deeplab"} for loss in ("hard_pixels", "center_mse", "offset_l1")},
        "two_stage": {"name": "mask_rcnn"},
        "semantic_branch": {"name": "panoptic_fpn"},
        "mask_points": {"name": "pointrend_instance"},
        "dynamic_masks": {"name": "condinst"},
        "box_masks": {"name": "condinst"},
        "query_points": {"name": "mask2former"},
        "query_maps": {"name": "maskformer"},
        "query_boxes": {"name": "mask2former"},
    }.get(name, {})
    with pytest.raises(ConfigError, match=rf"losses\.0\.class_weights.*{name} takes none"):
        Config.load({"model": model, "losses": [{"name": name, "class_weights": [1, 2]}]})
    loss = LOSSES[name]()
    with pytest.raises(UsageError, match="class_weights has no meaning"):
        loss(given(loss, example()[1]), None, class_weights=torch.ones(4))


@pytest.mark.parametrize(("name", "key"), OWN_KEYS)
def test_every_key_of_a_loss_changes_it(name, key):
    logits, labels = example()
    kind = LOSSES[name]
    plain, changed = kind(**kind.tiny), kind(**{**kind.tiny, key: other_value(kind, key)})
    weights = torch.tensor([0.5, 2.0, 1.5, 3.0]) if key == "by_count" else None  # which says what these divide
    values = [loss(logits, labels, CANVAS, class_weights=weights).item() for loss in (plain, changed)]
    assert values[0] != pytest.approx(values[1], rel=1e-3)


def build(name: str) -> Loss:
    return LOSSES[name](**LOSSES[name].tiny)


@pytest.mark.parametrize("name", MAPS)
def test_class_weights_change_the_loss_and_equal_ones_do_not(name):
    logits, labels = example()
    loss = build(name)
    plain = loss(logits, labels, CANVAS).item()
    equal, uneven = torch.full((4,), 2.0), torch.tensor([0.1, 1.0, 3.0, 1.0])
    assert loss(logits, labels, CANVAS, class_weights=equal).item() == pytest.approx(plain, rel=1e-5)
    assert loss(logits, labels, CANVAS, class_weights=uneven).item() != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_a_wrong_number_of_class_weights_is_named(name):
    with pytest.raises(UsageError, match="class_weights has 3 numbers, but the network has 4 classes"):
        build(name)(*example(), CANVAS, class_weights=torch.ones(3))


@pytest.mark.parametrize("name", MAPS)
def test_logits_that_reach_only_ignored_pixels_change_nothing(name):
    logits, labels = example()
    labels[0, :, 8:] = 255  # samples from column 3 on lie at pixel 13.5 and reach down to 9.5
    loss = build(name)
    before = loss(logits, labels, CANVAS)
    gradient = torch.autograd.grad(before, logits)[0]
    assert (gradient[0, :, :, 3:] == 0).all()
    assert (gradient[0, :, :, :2] != 0).any()
    assert (gradient[1, :, :, 3:] != 0).any()
    changed = logits.detach().clone()
    changed[0, :, :, 3:] += torch.randn(4, 4, 2, generator=torch.Generator().manual_seed(0)) * 10
    torch.testing.assert_close(loss(changed, labels, CANVAS), before.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", MAPS)
def test_a_batch_without_labels_costs_nothing_and_has_zero_gradients(name):
    logits, labels = example()
    value = build(name)(logits, torch.full_like(labels, 255), CANVAS)
    assert value.item() == 0
    assert (torch.autograd.grad(value, logits)[0] == 0).all()


@pytest.mark.parametrize("name", MAPS)
def test_labels_may_be_uint8_or_int64(name):
    logits, labels = example()
    loss = build(name)
    assert torch.equal(loss(logits, labels, CANVAS), loss(logits, labels.long(), CANVAS))


@pytest.mark.parametrize("name", MAPS)
def test_half_precision_logits_are_computed_in_float32(name):
    logits, labels = example(torch.bfloat16)
    loss = build(name)
    value = loss(logits, labels, CANVAS)
    assert value.dtype == torch.float32
    assert value.ndim == 0
    torch.testing.assert_close(value, loss(logits.float(), labels, CANVAS))
    assert torch.autograd.grad(value, logits)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("align_corners", [False, True])
def test_gradients_are_those_of_finite_differences(name, align_corners):
    logits, labels = example(torch.float64)
    logits = logits.detach()[:, :, :3, :3].clone().requires_grad_()
    loss, weights = build(name), torch.tensor([0.5, 2.0, 1.5, 3.0])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels[:, :7, :9], (9, 10), align_corners, weights), logits)
