"""UPerNets on Swin and ConvNeXt of MMSegmentation and Hugging Face: what weights and settings tell, what is refused."""

from __future__ import annotations

import pytest
import torch
from fakes.golden import hollow

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf import upernet as hf
from segatlas.conversion.importers.hf import upernet_before_5 as hf4
from segatlas.conversion.importers.mmseg import fcn, upernet
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.encoders.swin import distances
from segatlas.errors import WeightsError

SWIN = {"encoder": {"name": "swin_w8", "window": 12}}
CONVNEXT = {"encoder": {"name": "convnext_tiny"}, "norm_maps": True}


def file_of(importer, fields, settings=None):
    """Return the file of a small network, with settings beside it."""
    architecture, config = make_config("upernet", {"num_classes": 3, "channels": 16, "aux": True, **fields})
    theirs = rename_to_theirs(importer, config, hollow(build_empty(architecture, config).state_dict()))
    return ForeignWeights(tensors=theirs, settings=settings or {})


def test_the_table_tells_the_window_and_indices_are_written_for_mmsegmentation():
    file = file_of(upernet.IMPORTER, SWIN)
    fields = upernet.recognise(file)
    assert (fields["encoder"], fields["encoder_options"]) == ("swin_w8", {"window": 12})
    index = file.tensors["backbone.stages.3.blocks.0.attn.w_msa.relative_position_index"]
    assert torch.equal(index, distances(12, torch.device("cpu")))


@pytest.mark.parametrize("importer", [upernet.IMPORTER, hf.IMPORTER, hf4.IMPORTER])
def test_swin_goes_there_and_back(importer):
    architecture, config = make_config("upernet", {"num_classes": 3, "channels": 16, "aux": True, **SWIN})
    torch.manual_seed(0)
    ours = {name: torch.randn(t.shape) for name, t in build_empty(architecture, config).state_dict().items()}
    theirs = rename_to_theirs(importer, config, ours)
    again = rename_to_ours(importer, config, theirs)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], ours[name]) for name in ours)
    assert importer.recognise(ForeignWeights(tensors=theirs))["encoder_options"] == {"window": 12}


def test_convnext_is_read_with_the_norms_of_its_maps():
    for importer in (upernet.IMPORTER, hf.IMPORTER):
        fields = importer.recognise(file_of(importer, CONVNEXT))
        assert (fields["encoder"], fields["norm_maps"], fields["encoder_options"]) == ("convnext_tiny", True, {})
    settings = {"model": {"backbone": {"drop_path_rate": 0.4}}}
    assert upernet.recognise(file_of(upernet.IMPORTER, CONVNEXT, settings))["encoder_options"] == {"drop_path": 0.4}


@pytest.mark.parametrize(
    ("fields", "backbone", "message"),
    [
        (SWIN, {"mlp_ratio": 2}, r"model\.backbone\.mlp_ratio = 2: only 4 is supported"),
        (SWIN, {"use_abs_pos_embed": True}, r"model\.backbone\.use_abs_pos_embed = True: only False is supported"),
        (CONVNEXT, {"use_grn": True}, r"model\.backbone\.use_grn = True: only False is supported"),
    ],
)
def test_forms_of_mmsegmentation_that_ours_does_not_have_are_refused(fields, backbone, message):
    with pytest.raises(WeightsError, match=message):
        upernet.recognise(file_of(upernet.IMPORTER, fields, {"model": {"backbone": backbone}}))


@pytest.mark.parametrize(
    ("fields", "settings", "message"),
    [
        (SWIN, {"backbone_config": {"qkv_bias": False}}, r"backbone_config\.qkv_bias = False: only True is supported"),
        (CONVNEXT, {"backbone_config": {"patch_size": 2}}, r"backbone_config\.patch_size = 2: only 4 is supported"),
        (CONVNEXT, {"auxiliary_in_index": 1}, "auxiliary_in_index = 1: only 2 is supported"),
    ],
)
def test_forms_of_hugging_face_that_ours_does_not_have_are_refused(fields, settings, message):
    with pytest.raises(WeightsError, match=message):
        hf.IMPORTER.recognise(file_of(hf.IMPORTER, fields, settings))


def test_sizes_that_are_not_published_are_told_with_what_was_found():
    file = file_of(upernet.IMPORTER, SWIN)
    tensors = {name: t for name, t in file.tensors.items() if not name.startswith("backbone.stages.0.blocks.1.")}
    with pytest.raises(WeightsError, match=r"a Swin Transformer of width 8 with \[1, 1, 1, 1\] blocks is none"):
        upernet.recognise(ForeignWeights(tensors=tensors))
    file = file_of(hf.IMPORTER, CONVNEXT)
    tensors = {name: t for name, t in file.tensors.items() if ".stages.2.layers.8." not in name}
    with pytest.raises(WeightsError, match=r"a ConvNeXt of width 96 with \[3, 3, 8, 3\] blocks is none"):
        hf.IMPORTER.recognise(ForeignWeights(tensors=tensors))


def test_encoders_that_a_library_does_not_have_are_refused_by_name():
    architecture, config = make_config("upernet", {"num_classes": 3, "encoder": "resnet18_w8", "channels": 8})
    with pytest.raises(WeightsError, match="Hugging Face has no UPerNet on 'resnet18_w8'"):
        rename_to_theirs(hf.IMPORTER, config, hollow(build_empty(architecture, config).state_dict()))
    architecture, config = make_config("upernet", {"num_classes": 3, "encoder": "timm/resnet10t", "channels": 8})
    with pytest.raises(WeightsError, match="MMSegmentation has no backbone 'timm/resnet10t'"):
        rename_to_theirs(upernet.IMPORTER, config, hollow(build_empty(architecture, config).state_dict()))


def test_other_heads_on_swin_are_written_in_the_librarys_layout_too():
    architecture, config = make_config(
        "fcn", {"num_classes": 3, "channels": 8, "encoder": "swin_w8", "output_stride": None}
    )
    ours = {name: torch.randn(t.shape) for name, t in build_empty(architecture, config).state_dict().items()}
    theirs = rename_to_theirs(fcn.IMPORTER, config, ours)
    mine, other = (
        name.format("encoder.layers.1", "backbone.stages.0")
        for name in ("{0}.downsample.norm.weight", "{1}.downsample.norm.weight")
    )
    assert not torch.equal(ours[mine], theirs[other])
    assert torch.equal(ours[mine].sort().values, theirs[other].sort().values)
