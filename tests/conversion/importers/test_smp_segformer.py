"""SegFormer in files of segmentation-models-pytorch: what is read of it, and what is refused on both ways."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.converting import tensors_of
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.smp.segformer import recognise
from segatlas.errors import WeightsError

SMALL = {"num_classes": 3, "decoder_channels": 16, "logits_align_corners": True}


def state(**fields):
    architecture, config = make_config("segformer", {**SMALL, **fields})
    ours = {
        key: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for key, tensor in build_empty(architecture, config).state_dict().items()
    }
    return config, ours


def file_of(settings=None, **fields):
    config, ours = state(**fields)
    return ForeignWeights(tensors=tensors_of("smp", "segformer", config, ours), settings=settings or {})


@pytest.mark.parametrize(("classes", "channels"), [(1, 1), (3, 4)])
def test_classes_channels_and_width_are_read_from_shapes(classes, channels):
    found = recognise(file_of(num_classes=classes, in_channels=channels))
    assert (found["num_classes"], found["in_channels"], found["decoder_channels"]) == (classes, channels, 16)
    assert found["logits_align_corners"]


def test_a_depth_is_read_from_the_maps_that_the_decoder_takes():
    assert recognise(file_of(encoder={"name": "mit_b0", "levels": 4}))["encoder"] == {"name": "mit_b0", "levels": 4}


def test_the_head_for_the_whole_image_is_read_with_its_settings():
    found = recognise(file_of({"aux_params": {"pooling": "max"}}, presence_classes=4))
    assert (found["presence_classes"], found["presence_pooling"]) == (4, "max")


def test_another_factor_of_upsampling_is_refused():
    with pytest.raises(WeightsError, match="upsampling = 8: only 4 is supported"):
        recognise(file_of({"upsampling": 8}))


def test_an_encoder_with_a_map_at_stride_2_is_refused_by_name():
    tensors = {key: value for key, value in file_of().tensors.items() if not key.startswith("encoder.")}
    architecture, config = make_config("fpn", {"num_classes": 3, "encoder": "resnet18"})
    donor = {
        key: torch.zeros(value.shape, dtype=value.dtype)
        for key, value in build_empty(architecture, config).state_dict().items()
    }
    theirs = tensors_of("smp", "fpn", config, donor)
    tensors |= {key: value for key, value in theirs.items() if key.startswith("encoder.")}
    for index, width in enumerate((512, 256, 128, 64, 64)):
        tensors[f"decoder.mlp_stage.{index}.linear.weight"] = torch.zeros(16, width)
    with pytest.raises(WeightsError, match="takes all maps of 'resnet18', whose strides are 2, 4, 8, 16, 32"):
        recognise(ForeignWeights(tensors=tensors))


@pytest.mark.parametrize(
    ("library", "fields", "message"),
    [
        ("smp", {"logits_align_corners": False}, "no SegFormer with logits_align_corners=False"),
        ("smp", {"projection_norm": True}, "no SegFormer with batch norm in its projections"),
        ("nvlabs", {}, "no SegFormer with logits_align_corners=True"),
        ("mmseg", {"projection_norm": True}, "no SegFormer with logits_align_corners=True"),
        ("hf", {}, "no SegFormer with logits_align_corners=True"),
    ],
)
def test_forms_that_a_library_does_not_have_are_not_written_for_it(library, fields, message):
    config, ours = state(**fields)
    with pytest.raises(WeightsError, match=message):
        tensors_of(library, "segformer", config, ours)
