from __future__ import annotations

import pytest

from segatlas.data.statistics import automatic_weights, count_occurrences, median_frequency_weights
from segatlas.errors import ConfigError
from segatlas.training.building import build_parts
from segatlas.training.dry import dry_run

UNET = {"name": "unet", "width": 4}
OCRNET = {"name": "ocrnet", "encoder": "resnet18_w8", "levels": 1, "channels": 8, "key_channels": 8}
POINTREND = {"name": "pointrend", "encoder": "resnet18_w8", "channels": 8, "neck_channels": 8, "train_points": 24}


@pytest.mark.parametrize(
    ("model", "on", "has"),
    [
        (UNET, "aux.fcn", "the network has no auxiliary head; set model.aux=true"),
        ({**UNET, "aux": True}, "aux.regions", "the network has: aux.fcn"),
        (OCRNET, "aux.fcn", "the network has: aux.regions"),
    ],
)
def test_a_loss_on_auxiliary_logits_that_the_network_does_not_give_is_refused_with_those_it_gives(
    recipe, model, on, has
):
    losses = f"losses=[cross_entropy, {{name: cross_entropy, on: {on}}}]"
    with pytest.raises(ConfigError) as caught:
        build_parts(recipe(losses, model=model), dry=True)
    assert [(p.key, p.got, p.message) for p in caught.value.problems] == [("losses.1.on", f'"{on}"', has)]


def test_a_dry_run_trains_a_network_on_points_and_tells_how_many(recipe):
    losses = "losses=[cross_entropy, {name: point_cross_entropy, on: aux.points}]"
    run = dry_run(recipe(losses, model=POINTREND))
    assert run.aux_shapes == {"points": (2, len(run.classes), 24)}
    assert run.loss > 0


def test_weights_that_the_masks_give_reach_the_losses_that_ask_for_them(recipe):
    terms = "{name: cross_entropy, class_weights: median_frequency}, {name: dice, class_weights: auto}, cross_entropy"
    parts = build_parts(recipe(f"losses=[{terms}]", model=UNET), dry=True)
    counts, around = count_occurrences(parts.train)
    expected = [median_frequency_weights(counts, around), automatic_weights(counts)]
    found = list(parts.criterion.buffers())
    assert len(found) == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.tolist() == pytest.approx(theirs)
    assert found[0].tolist() != found[1].tolist()
