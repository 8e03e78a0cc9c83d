"""What files of PointRend for objects say: MMDetection's and Detectron2's settings, Detectron2's older names."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.importers.detectron2.pointrend_instance import IMPORTER as DETECTRON2
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmdet.pointrend_instance import IMPORTER as MMDET
from segatlas.conversion.importers.renames import to_ours
from segatlas.conversion.renaming import rename_to_theirs
from segatlas.errors import WeightsError
from segatlas.models.pointrend_instance import ARCHITECTURE

SETTINGS = {
    MMDET: {"model": {"test_cfg": {"rcnn": {"subdivision_steps": 3, "subdivision_num_points": 100}}}},
    DETECTRON2: {"MODEL": {"POINT_HEAD": {"SUBDIVISION_STEPS": 3, "SUBDIVISION_NUM_POINTS": 100}}},
}


def network(**fields):
    return make_config("pointrend_instance", {**ARCHITECTURE.tiny, "encoder": "resnet50", "num_classes": 5, **fields})


def written(importer, **fields) -> dict[str, torch.Tensor]:
    record, config = network(**fields)
    return rename_to_theirs(importer, config, build_empty(record, config).state_dict())


@pytest.mark.parametrize("importer", [MMDET, DETECTRON2], ids=["mmdet", "detectron2"])
def test_steps_and_points_of_prediction_are_read_and_else_those_that_are_published(importer):
    tensors = written(importer)
    fields = importer.recognise(ForeignWeights(tensors=tensors, settings=SETTINGS[importer]))
    assert (fields["subdivisions"], fields["subdivision_points"]) == (3, 100)
    fields = importer.recognise(ForeignWeights(tensors=tensors))
    assert "subdivisions" not in fields
    _, config = network()
    assert make_config("pointrend_instance", {"num_classes": 5})[1].subdivisions == 5
    assert (fields["mask_width"], fields["point_channels"]) == (config.mask_width, config.point_channels)


def test_detectron2s_older_names_are_read_and_the_newer_ones_written():
    older = {}
    for name, tensor in written(DETECTRON2).items():
        name = name.replace("mask_head.coarse_head.fc", "mask_coarse_head.coarse_mask_fc")
        name = name.replace("mask_head.coarse_head", "mask_coarse_head")
        older[name.replace("mask_head.point_head", "mask_point_head")] = tensor
    assert not any("mask_head." in name for name in older)
    fields = DETECTRON2.recognise(ForeignWeights(tensors=older))
    assert fields is not None
    record, config = network(**{key: value for key, value in fields.items() if key.startswith(("mask", "point"))})
    ours = build_empty(record, config).state_dict()
    assert {to_ours(name, DETECTRON2.renames(config)) for name in older} == set(ours)


def test_convolutions_before_the_halving_are_not_written_for_detectron2_which_has_none():
    with pytest.raises(WeightsError, match=r"stages\.mask_head\.convs"):
        written(DETECTRON2, mask_convs=1)
    assert any("mask_head.convs.0.conv" in name for name in written(MMDET, mask_convs=1))
