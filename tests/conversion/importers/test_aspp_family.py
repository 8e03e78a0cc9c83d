"""FCN, PSPNet, DeepLabV3 and DeepLabV3+: what is recognised is what was written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.importers import importers
from segatlas.conversion.recognition import recognise
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import WeightsError

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fcn": ("mmseg", "fcn", {"encoder": "resnet18c", "channels": 32}),
    "fcn-mobilenet": ("mmseg", "fcn", {"encoder": "mobilenet_v2_320", "channels": 32}),
    "pspnet": ("mmseg", "pspnet", {"encoder": "resnet18", "channels": 24}),
    "deeplabv3": ("mmseg", "deeplabv3", {"encoder": "resnet18c", "channels": 16}),
    "deeplabv3plus": ("mmseg", "deeplabv3plus", {"encoder": "mobilenet_v2_320", "channels": 16, "low_channels": 12}),
    "deeplabv3plus-smp": ("smp", "deeplabv3plus_r34_smp", {"channels": 16, "low_channels": 12}),
}


def made(case: str, **fields: Any) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """Importer, config and their tensors of a network with random weights."""
    source, name, own = CASES[case]
    options = {"encoder_options": {"basic_conv2_dilated": False}} if own.get("encoder", "").startswith("res") else {}
    aux = {"aux": True, "aux_channels": 8} if source == "mmseg" else {}
    architecture, config = make_config(name, {"num_classes": 4, "in_channels": 2, **aux, **options, **own, **fields})
    [importer] = importers(source, architecture.name)
    generator = torch.Generator().manual_seed(0)
    state = build_empty(architecture, config).state_dict()
    ours = {key: torch.randn(tensor.shape, generator=generator) for key, tensor in state.items()}
    return importer, config, rename_to_theirs(importer, config, ours)


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_recognised_as_the_one_network_that_it_was_written_from(case):
    importer, config, theirs = made(case)
    [found] = recognise(theirs, {})
    assert found.importer is importer
    assert make_config(importer.architecture, found.fields)[1] == config


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_gives_the_same_tensors(case):
    importer, config, theirs = made(case)
    back = rename_to_theirs(importer, config, rename_to_ours(importer, config, theirs))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("case", ["deeplabv3", "deeplabv3plus"])
def test_mmsegmentation_has_the_pooled_map_first_among_what_the_aspp_fuses(case):
    importer, config, theirs = made(case)
    kernel = rename_to_ours(importer, config, theirs)["aspp.fuse.conv.weight"]
    first, *others = theirs["decode_head.bottleneck.conv.weight"].split(16, dim=1)
    assert torch.equal(kernel, torch.cat([*others, first], dim=1))


def settings(**decode_head: Any) -> dict[str, Any]:
    return {"model": {"decode_head": decode_head}}


def test_settings_tell_rates_scales_and_dilations():
    [found] = recognise(made("deeplabv3")[2], settings(dilations=[1, 6, 12, 18], align_corners=True))
    assert (found.fields["rates"], found.fields["align_corners"]) == ((6, 12, 18), True)
    [found] = recognise(made("pspnet")[2], settings(pool_scales=[1, 2, 4, 8]))
    assert found.fields["pool_scales"] == (1, 2, 4, 8)
    both = {"model": {"decode_head": {"dilation": 6}, "auxiliary_head": {"dilation": 6}}}
    [found] = recognise(made("fcn")[2], both)
    assert found.fields["dilation"] == 6


@pytest.mark.parametrize("dilations", [[1, 6, 12], [6, 12, 18, 24], [1, 1, 6, 12]])
def test_dilations_that_do_not_fit_the_branches_are_refused(dilations):
    with pytest.raises(WeightsError, match="ASPP of 4 branches"):
        recognise(made("deeplabv3")[2], settings(dilations=dilations))


def test_fcn_heads_of_different_dilation_are_refused():
    with pytest.raises(WeightsError, match="different dilation, 6 and 1"):
        recognise(made("fcn")[2], settings(dilation=6))


def test_segmentation_models_pytorchs_settings_are_read():
    theirs = made("deeplabv3plus-smp")[2]
    [found] = recognise(theirs, {"encoder_output_stride": 8, "decoder_atrous_rates": [6, 12, 18]})
    assert (found.fields["encoder"]["output_stride"], found.fields["rates"]) == (8, (6, 12, 18))
    assert found.notes == ()
