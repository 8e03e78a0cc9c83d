"""What is special in the importers of MMSegmentation's context networks, on tensors without memory."""

from __future__ import annotations

import pytest

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.importers import importers
from segatlas.conversion.recognition import recognise
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import WeightsError

FORMS = {
    "embedded_gaussian": ("nonlocal_net", {}, {}),
    "dot_product": ("nonlocal_net", {"mode": "dot_product", "reduction": 4}, {"mode": "dot_product"}),
    "gaussian": ("nonlocal_net", {"mode": "gaussian"}, {}),
    "concatenation": ("nonlocal_net", {"mode": "concatenation"}, {}),
    "unscaled": ("nonlocal_net", {"use_scale": False}, {"use_scale": False}),
    "dnl": ("dnlnet", {"use_scale": False, "temperature": 0.5}, {"use_scale": False, "temperature": 0.5}),
    "gcnet": ("gcnet", {"channel_add": False, "channel_mul": True, "ratio": 1 / 16}, {}),
    "gcnet-both": ("gcnet", {"channel_mul": True, "ratio": 0.1, "channels": 30}, {}),
    "isanet": ("isanet", {"attention_channels": 12, "tile": (4, 6)}, {"down_factor": [4, 6]}),
    "psanet": ("psanet", {"mask_size": (66, 66), "aux": True, "aux_channels": 16}, {}),
    "psanet-oblong": (
        "psanet",
        {"mask_size": (5, 7), "shrink_factor": 1, "softmax": False, "normalization_factor": None},
        {"mask_size": [5, 7], "shrink_factor": 1, "psa_softmax": False, "normalization_factor": None},
    ),
    "psanet-collect": ("psanet", {"distribute": False}, {"psa_type": "collect"}),
    "psanet-distribute": ("psanet", {"collect": False}, {"psa_type": "distribute"}),
}


def foreign(architecture, fields):
    """Return a network's config, its tensors, and these under MMSegmentation's names."""
    record, config = make_config(
        architecture, {"num_classes": 6, "encoder": "resnet18c", "channels": 32, "aux": False, **fields}
    )
    ours = build_empty(record, config).state_dict()
    [importer] = importers("mmseg", architecture)
    return config, ours, rename_to_theirs(importer, config, ours)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_recognised_with_its_fields_and_renamed_both_ways(form):
    architecture, fields, head = FORMS[form]
    config, ours, theirs = foreign(architecture, fields)
    [found] = recognise(theirs, {"model": {"decode_head": head}})
    assert found.importer.architecture == architecture
    _, recognised = make_config(architecture, found.fields)
    options = {"encoder": recognised.encoder, "aux_channels": recognised.aux_channels}
    assert recognised == type(config)(**{**vars(config), **options})
    assert list(rename_to_ours(found.importer, recognised, theirs)) == list(ours)


@pytest.mark.parametrize("form", ["embedded_gaussian", "psanet", "isanet"])
def test_without_settings_the_published_defaults_are_taken_and_named(form):
    architecture, fields, _ = FORMS[form]
    _, _, theirs = foreign(architecture, {name: value for name, value in fields.items() if name != "tile"})
    [found] = recognise(theirs, {})
    told = {"embedded_gaussian": "decode_head.mode", "psanet": "shrink_factor", "isanet": "down_factor"}[form]
    assert any(told in note for note in found.notes)
    assert make_config(architecture, found.fields)[1].num_classes == 6


def test_a_mask_that_is_not_square_must_be_told_by_a_config():
    _, _, theirs = foreign("psanet", {"mask_size": (5, 7)})
    with pytest.raises(WeightsError, match="35 weights a mask: its mask_size must be told"):
        recognise(theirs, {})


@pytest.mark.parametrize(
    ("architecture", "head", "message"),
    [
        ("psanet", {"compact": True}, "images of one size only"),
        ("dnlnet", {"mode": "dot_product"}, "compares by 'dot_product'"),
    ],
)
def test_forms_that_we_do_not_have_are_refused_by_name(architecture, head, message):
    _, _, theirs = foreign(architecture, {})
    with pytest.raises(WeightsError, match=message):
        recognise(theirs, {"model": {"decode_head": head}})


def test_average_pooling_is_not_taken_for_a_gcnet():
    _, _, theirs = foreign("gcnet", {})
    pooled = {name: tensor for name, tensor in theirs.items() if "conv_mask" not in name}
    assert recognise(pooled, {}) == []
