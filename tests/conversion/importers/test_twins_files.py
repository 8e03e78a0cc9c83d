"""UPerNet and Semantic FPN on Twins of MMSegmentation: what weights and settings tell, and what is refused."""

from __future__ import annotations

import pytest
import torch
from fakes.golden import hollow

import segatlas as sa
from segatlas.build.network import build_empty, create_model, make_config
from segatlas.conversion.converting import tensors_of
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg import semantic_fpn, upernet
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import WeightsError

FPN = ("semantic_fpn", {"encoder": "twins_pcpvt_w8", "neck_channels": 8, "channels": 8})
UPERNET = ("upernet", {"encoder": "twins_svt_w8", "channels": 8, "aux": True, "aux_channels": 8})
IMPORTERS = {"semantic_fpn": semantic_fpn.IMPORTER, "upernet": upernet.IMPORTER}
EACH = pytest.mark.parametrize(("name", "fields"), [FPN, UPERNET])


def file_of(name, fields, backbone=None):
    """Return the file of a small network, with settings of its backbone beside it."""
    architecture, config = make_config(name, {"num_classes": 3, **fields})
    theirs = rename_to_theirs(IMPORTERS[name], config, hollow(build_empty(architecture, config).state_dict()))
    return ForeignWeights(tensors=theirs, settings={"model": {"backbone": backbone}} if backbone else {})


@EACH
def test_twins_goes_there_and_back(name, fields):
    architecture, config = make_config(name, {"num_classes": 3, **fields})
    torch.manual_seed(0)
    ours = {key: torch.randn(t.shape) for key, t in build_empty(architecture, config).state_dict().items()}
    theirs = rename_to_theirs(IMPORTERS[name], config, ours)
    again = rename_to_ours(IMPORTERS[name], config, theirs)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[key], ours[key]) for key in ours)


def test_weights_tell_the_kind_of_attention_and_norms_of_stages():
    found = semantic_fpn.recognise(file_of(*FPN))
    assert (found["encoder"], found["encoder_options"]) == ("twins_pcpvt_w8", {})
    found = upernet.recognise(file_of(*UPERNET))
    assert (found["encoder"], found["encoder_options"], found["aux_channels"]) == ("twins_svt_w8", {}, 8)
    name, fields = FPN
    encoder = {"name": "twins_pcpvt_w8", "stage_norms": True}
    assert semantic_fpn.recognise(file_of(name, {**fields, "encoder": encoder}))["encoder_options"] == {
        "stage_norms": True
    }


def test_settings_tell_windows_drop_path_and_epsilon():
    backbone = {"windiow_sizes": [5, 5, 5, 5], "drop_path_rate": 0.3, "norm_cfg": {"type": "LN", "eps": 1e-6}}
    options = upernet.recognise(file_of(*UPERNET, backbone))["encoder_options"]
    assert options == {"window": 5, "drop_path": 0.3, "norm_eps": 1e-6}


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"windiow_sizes": [7, 7, 7, 4]}, r"windiow_sizes = \[7, 7, 7, 4\]: only windows of one size are supported"),
        ({"num_heads": [2, 2, 2, 4]}, r"twins_svt_w8 with num_heads \[2, 2, 2, 4\]: only \[1, 2, 2, 4\] is supported"),
        ({"sr_ratios": [4, 2, 1, 1]}, r"twins_svt_w8 with sr_ratios \[4, 2, 1, 1\]: only \[8, 4, 2, 1\] is supported"),
    ],
)
def test_forms_that_ours_does_not_have_are_refused(backbone, message):
    with pytest.raises(WeightsError, match=message):
        upernet.recognise(file_of(*UPERNET, backbone))


def test_sizes_that_are_not_published_are_told_with_what_was_found():
    file = file_of(*FPN)
    tensors = {key: t for key, t in file.tensors.items() if not key.startswith("backbone.layers.2.")}
    with pytest.raises(WeightsError, match=r"a Twins-PCPVT of widths \[8, 16, 32, 64\] with \[1, 1, 0, 1\] blocks"):
        semantic_fpn.recognise(ForeignWeights(tensors=tensors))
    tensors = {key: t for key, t in file.tensors.items() if not key.endswith("in_proj_bias")}
    with pytest.raises(WeightsError, match="without biases of queries, keys and values"):
        semantic_fpn.recognise(ForeignWeights(tensors=tensors))


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_key_too_few_or_too_many_is_named(tmp_path, change):
    name, fields = UPERNET
    net = create_model(name, num_classes=3, **fields)
    theirs = tensors_of("mmseg", name, net.config, net.state_dict())
    if change == "missing":
        del theirs["backbone.norm_list.1.bias"]
    else:
        theirs["backbone.norm_list.4.bias"] = torch.zeros(8)
    torch.save({"state_dict": theirs}, tmp_path / "twins.pth")
    with pytest.raises(
        WeightsError, match=r"1 (not in the network|missing in the file): encoder\.stage_norms\.(4|1)\.bias"
    ):
        sa.convert(tmp_path / "twins.pth", out=tmp_path / "ours")
