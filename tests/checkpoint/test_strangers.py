"""Files of programs whose networks are not read are told by their program, without advice that leads nowhere."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import segatlas as sa
from segatlas.checkpoint.reading import read_state_dict
from segatlas.checkpoint.strangers import stranger_by_class, stranger_by_tensors
from segatlas.errors import WeightsError


def refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError) as error:
        read_state_dict(tmp_path / "w.pt")
    return str(error.value).removeprefix(f"{tmp_path / 'w.pt'}: ")


def test_a_checkpoint_of_ultralytics_is_told(tmp_path, monkeypatch):
    module = ModuleType("ultralytics")
    module.SegmentationModel = type("SegmentationModel", (nn.Module,), {"__module__": "ultralytics"})
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    told = refused(tmp_path, {"epoch": -1, "model": module.SegmentationModel()})
    assert told.startswith("a whole pickled network (ultralytics.SegmentationModel), below 'model', not its weights; ")
    assert "Ultralytics' networks (YOLO and others) are not read" in told
    assert "state_dict" not in told


def test_a_checkpoint_of_nnunet_is_told_and_so_are_its_weights_alone(tmp_path):
    weights = {"encoder.stages.0.0.convs.0.all_modules.0.weight": torch.zeros(2)}
    told = refused(tmp_path, {"network_weights": weights, "trainer_name": "nnUNetTrainer", "init_args": {}})
    assert told.startswith("a checkpoint of nnU-Net (nnUNetTrainer); nnU-Net's networks are not read")
    assert "save one of these alone" in refused(tmp_path, {"network_weights": weights})
    torch.save(weights, tmp_path / "alone.pth")
    with pytest.raises(
        WeightsError, match="not recognised; by the names of its tensors: nnU-Net's networks are not read"
    ):
        sa.convert(tmp_path / "alone.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_names_are_of_nobody():
    assert not stranger_by_class("ultralytics_like.Net")
    assert not stranger_by_class("")
    assert not stranger_by_tensors(["backbone.layer1.0.conv1.weight", "decode_head.conv_seg.weight"])
