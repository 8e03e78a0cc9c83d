"""Attention between patches, of a region: against loops over pixels and patches."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from fakes.explained import CLASSES, SIZE, image, predictor
from PIL import Image
from typer.testing import CliRunner

from segatlas import explain
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.errors import TaskError, UsageError
from segatlas.explain.seeing import SeenImage

BOX = (10, 21, 19, 30)


def whole(kind: int) -> np.ndarray:
    """Return the attention of a class, (rows, columns, rows of the map, columns of the map)."""
    one = predictor("afma")
    with torch.no_grad():
        _, found = one.model.forward_with_attention(SeenImage.of(one, image()).inputs())
    values = (found.image[0, kind] @ found.features[0, kind].mT / found.side**2).numpy()
    assert (found.side, found.stride, found.cells) == (4, 8, (8, 11))
    return values.reshape(15, 21, 2, 3)  # a canvas of 60 x 83, patches of 4 pixels, and of 32 on the map


def test_a_region_attends_by_the_mean_of_its_pixels_patches_and_is_attended_to_likewise():
    found = explain.attention_map(predictor("afma"), image(), "car", BOX)
    top, left, bottom, right = BOX
    values = whole(2)
    places = [(y, x) for y in range(top, bottom) for x in range(left, right)]
    to = np.mean([values[y // 4, x // 4] for y, x in places], axis=0)
    by = np.mean([values[:, :, y // 32, x // 32] for y, x in places], axis=0)
    for y, x in ((0, 0), (31, 31), (32, 70), (59, 82)):
        assert found.to[y, x] == pytest.approx(to[y // 32, x // 32], rel=1e-4)
        assert found.by[y, x] == pytest.approx(by[y // 4, x // 4], rel=1e-4)
    assert found.to.shape == found.by.shape == SIZE
    assert (found.to_side, found.by_side, found.level) == (32, 4, 3)
    labels = predictor("afma").predict(image()).semantic
    assert found.on_class == pytest.approx(found.to[labels == 2].sum() / found.to.sum(), rel=1e-4)


def test_the_smallest_piece_is_taken_where_nothing_is_named():
    one = predictor("afma")
    labels = one.predict(image()).semantic
    found = explain.attention_map(one, image())
    assert (labels[found.region] == found.class_index).all()
    assert found.region.sum() >= 20
    same = explain.attention_map(one, image(), found.class_name)
    assert np.array_equal(same.region, found.region)
    assert explain.attention_figure(image(), found).shape[1] > 3 * 400


def test_the_class_of_most_pixels_of_a_box_is_taken_and_patches_that_are_left_out_are_not_known():
    one = predictor("afma", border="drop")
    labels = one.predict(image()).semantic
    found = explain.attention_map(one, image(), None, BOX)
    inside = labels[BOX[0] : BOX[2], BOX[1] : BOX[3]]
    assert found.class_index == np.bincount(inside.ravel()).argmax()
    assert np.isnan(found.to[:, 64:]).all()  # the map has two whole patches side by side
    assert np.isnan(found.by[:, 80:]).all()
    assert np.isfinite(found.to[:32, :64]).all()
    with pytest.raises(UsageError, match="no whole patch of the encoder's map lies there"):
        explain.attention_map(one, image(), None, (40, 70, 50, 80))


def test_what_cannot_be_is_told():
    with pytest.raises(TaskError, match="pspnet has no attention between patches; afma has"):
        explain.attention_map(predictor("pspnet"), image())
    one = predictor("afma", level=2)
    with torch.no_grad():
        one.model.classifier.bias[3] = -100
    for region in ("smallest", "predicted"):
        with pytest.raises(UsageError, match="class: 'tree' is not predicted"):
            explain.attention_map(one, image(), "tree", region)


def test_the_command_draws_a_sheet_and_tells_its_facts(tmp_path):
    save_pretrained(predictor("afma").model, tmp_path / "model", classes=CLASSES)
    Image.fromarray(image()).save(tmp_path / "street.png")
    words = ["explain", "attention", tmp_path / "model", tmp_path / "street.png", "--out", tmp_path / "a.png"]
    result = CliRunner().invoke(app, [*map(str, words), "--box", "10,21,19,30", "--class", "car", "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout.splitlines()[-1])
    assert (facts["class"], facts["region"], facts["pixels"]) == ("car", "box 10, 21, 19, 30", 81)
    assert 0 <= facts["on_class"] <= 1
    assert Image.open(tmp_path / "a.png").size[0] > 3 * 400
    result = CliRunner().invoke(app, [*map(str, words), "--region", "all"])
    assert "expected smallest or predicted or image" in " ".join(result.stderr.split())
