from __future__ import annotations

import pytest
import torch

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.errors import WeightsError

TENSORS = {
    "layer1.0.conv.weight": torch.zeros(4, 3, 1, 1),
    "layer1.2.bn.bias": torch.zeros(4),
    "layer10.0.x": torch.ones(1),
}


def test_beginnings_end_at_a_dot():
    file = ForeignWeights(tensors=TENSORS)
    assert file.has("layer1", "layer1.0.conv.weight")
    assert not file.has("layer1", "layer")
    assert file.count("layer1.{i}") == 2
    assert file.count("layer{i}") == 2
    assert file.count("layer1.{i}.bn") == 1


def test_a_missing_tensor_is_named():
    assert ForeignWeights(tensors=TENSORS).shape("layer1.2.bn.bias") == (4,)
    with pytest.raises(WeightsError, match=r"head\.weight is missing"):
        ForeignWeights(tensors=TENSORS).shape("head.weight")


def test_settings_are_found_by_path_and_defaults_are_noted_once():
    file = ForeignWeights(tensors={}, settings={"model": {"heads": [{"align_corners": True}, {}]}})
    assert file.setting("model.heads.0.align_corners", False) is True
    assert file.stated("model.heads.5.x") is None
    assert file.stated("model.heads.x") is None
    assert not file.notes
    assert [file.setting("model.heads.1.align_corners", False) for _ in range(2)] == [False, False]
    [note] = file.notes
    assert "model.heads.1.align_corners = False" in note
