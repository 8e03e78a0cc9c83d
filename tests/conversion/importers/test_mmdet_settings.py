"""What MMDetection's configurations say of a network of two stages is in its config; without one, what is published."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmdet.panoptic_fpn import IMPORTER
from segatlas.conversion.renaming import rename_to_theirs
from segatlas.models.panoptic_fpn import ARCHITECTURE


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    fields = {**ARCHITECTURE.tiny, "encoder": "resnet50", "num_classes": 5, "stuff": 2, "other": "last"}
    record, config = make_config("panoptic_fpn", fields)
    return rename_to_theirs(IMPORTER, config, build_empty(record, config).state_dict())


def test_bounds_of_detections_are_read_and_else_those_that_are_published(tensors):
    rcnn = {"score_thr": 0.3, "nms": {"type": "nms", "iou_threshold": 0.4}, "max_per_img": 50}
    for nms, agnostic in (({}, None), ({"class_agnostic": True}, True), ({"class_agnostic": False}, False)):
        stated = {"model": {"test_cfg": {"rcnn": {**rcnn, "nms": {**rcnn["nms"], **nms}}}}}
        fields = IMPORTER.recognise(ForeignWeights(tensors=tensors, settings=stated))
        assert fields is not None
        assert (fields["score_threshold"], fields["nms_iou"], fields["top"]) == (0.3, 0.4, 50)
        assert fields.get("class_agnostic") is agnostic
    fields = IMPORTER.recognise(ForeignWeights(tensors=tensors))
    assert fields is not None
    assert (fields["score_threshold"], fields["class_agnostic"]) == (0.6, True)
    assert (fields["num_classes"], fields["stuff"], fields["other"]) == (5, 2, "last")
