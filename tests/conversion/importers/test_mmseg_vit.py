"""MMSegmentation's plain transformers under a UPerNet: what settings and weights tell, and what is refused."""

from __future__ import annotations

import pytest
import torch
from fakes.golden import hollow

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.upernet import IMPORTER, recognise
from segatlas.conversion.renaming import rename_to_theirs
from segatlas.encoders.vit import relations
from segatlas.errors import WeightsError

VIT = {"name": "vit_w32", "image_size": (64, 64), "final_norm": False, "position_antialias": False}


def file_of(settings=None, neck="resize", **options):
    """Return the file of a small network, with settings beside it."""
    fields = {"encoder": {**VIT, **options}, "neck": neck, "channels": 16, "aux": True, "aux_level": 1}
    architecture, config = make_config("upernet", {"num_classes": 3, **fields})
    theirs = rename_to_theirs(IMPORTER, config, hollow(build_empty(architecture, config).state_dict()))
    return ForeignWeights(tensors=theirs, settings={"model": settings} if settings else {})


def test_weights_tell_norms_biases_depth_and_grid_and_published_defaults_the_rest():
    file = file_of(patch_bias=False, final_norm=True, norm_last_only=True)
    fields = recognise(file)
    assert fields["encoder"] == "vit_w32"
    assert fields["encoder_options"] == {
        "image_size": (64, 64),
        "patch_bias": False,
        "norm_last_only": True,
        "position_antialias": False,
        "at": (0, 1, 2, 3),
    }
    assert (fields["neck"], fields["aux_level"], fields["levels"]) == ("resize", 1, 4)
    assert any("norm_eps" in note for note in file.notes)


def test_settings_tell_what_weights_do_not():
    backbone = {"num_heads": 2, "out_indices": [0, 1, 2, 3], "interpolate_mode": "bilinear", "drop_path_rate": 0.1}
    fields = recognise(file_of({"backbone": backbone, "auxiliary_head": {"in_index": 2}}, neck="none"))
    assert fields["encoder_options"]["position_resize"] == "bilinear"
    assert fields["encoder_options"]["drop_path"] == 0.1
    assert fields["encoder_options"]["norm_eps"] == 1e-5  # the library's, where a config states none
    assert fields["aux_level"] == 2


def test_mae_is_known_by_its_tables_and_gets_the_indices_back():
    file = file_of(neck="deconvolve", relative_positions=True, layer_scale=1.0)
    index = file.tensors["backbone.layers.3.attn.relative_position_index"]
    assert torch.equal(index, relations((4, 4), torch.device("cpu")))
    options = recognise(file)["encoder_options"]
    assert (options["relative_positions"], options["layer_scale"]) == (True, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": {"num_heads": 4}}, "a plain transformer of width 32 with 4 heads and 128 channels between"),
        ({"backbone": {"with_cls_token": False}}, "only transformers with a class token are supported"),
        ({"neck": {"scales": [2, 1, 0.5, 0.25]}}, r"model\.neck\.scales = .*: only \[4, 2, 1, 0\.5\] is supported"),
    ],
)
def test_forms_that_ours_does_not_have_are_refused(settings, message):
    with pytest.raises(WeightsError, match=message):
        recognise(file_of(settings))


def test_positions_of_no_square_grid_are_refused_unless_settings_tell_it():
    file = file_of(image_size=(64, 96), settings={"backbone": {"img_size": [64, 96], "out_indices": [0, 1, 2, 3]}})
    assert recognise(file)["encoder_options"]["image_size"] == (64, 96)
    with pytest.raises(WeightsError, match=r"backbone\.pos_embed has 25 rows: expected those of a square grid"):
        recognise(ForeignWeights(tensors=file.tensors))
