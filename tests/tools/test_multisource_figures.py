"""The figures of a second source: how far it is moved, and a line of tiles an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import multisource_figures
from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.data.prior_scenes import make_pairs
from segatlas.models.multisource import ARCHITECTURE


def test_the_middle_of_the_largest_class_lies_on_it():
    mask = np.zeros((9, 9), np.uint8)
    mask[1:8, 1:8] = 2
    mask[3:6, 3:6] = 0  # its middle is not its own
    mask[0, 0] = 3
    row, column = multisource_figures.middle_of_largest(mask)
    assert mask[row, column] == 2
    assert max(abs(row - 4), abs(column - 4)) == 2


def test_a_network_as_it_begins_moves_nothing_and_has_its_sheet(tmp_path, capsys):
    make_pairs(tmp_path / "pairs", train=1, val=1, test=2, size=(32, 32))
    torch.manual_seed(0)
    classes = ("ground", "disc", "square", "triangle")
    net = create_model("multisource", **{"num_classes": len(classes), **ARCHITECTURE.tiny})
    save_pretrained(net, tmp_path / "model", classes=classes)
    assert (
        multisource_figures.main(
            [str(tmp_path / "model"), str(tmp_path / "pairs"), str(tmp_path / "out"), "--images", "0000,0001"]
        )
        == 0
    )
    told = capsys.readouterr().out
    assert "moved by 0.0" in told
    as_given, as_laid = (float(part.split("%")[0]) for part in told.split("the size:")[1].split(","))
    assert as_given == pytest.approx(as_laid, abs=1.0)
    sheet = np.array(Image.open(tmp_path / "out/warps.webp"))
    assert sheet.shape == (2 * 36, 7 * 32 + 6 * 4, 3)
