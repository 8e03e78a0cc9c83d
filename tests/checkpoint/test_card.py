from __future__ import annotations

import json

import pytest

from segatlas.checkpoint.card import Card, InputSpec
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing, default_preprocessing
from segatlas.errors import WeightsError

CARD = Card(
    architecture="unet",
    config={"num_classes": 2, "width": 8},
    classes=("sky", "道路"),
    palette=((0, 0, 0), (255, 128, 0)),
    inputs=(InputSpec(channels=1),),
    preprocessing=Preprocessing(mean=(0.5,), std=(0.25,), max_value=65535.0, resize="short:512"),
    inference=InferenceMode(mode="slide", crop=(64, 64), stride=(32, 32)),
    metric={"miou": 0.5},
)


def test_a_card_comes_back_equal_from_json(tmp_path):
    assert CARD.write(tmp_path) == tmp_path / "card.json"
    assert Card.read(tmp_path) == CARD
    assert Card.read(tmp_path / "card.json") == CARD
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_keys_of_older_cards_that_nothing_ever_read_are_left_out():
    old = {"resample": ["nearest", False], "postprocess": {"threshold": 0.5}, "surgery": [{"module": "encoder"}]}
    assert Card.from_dict({**CARD.to_dict(), **old}) == CARD
    assert not set(old) & set(CARD.to_dict())


def test_a_newer_version_is_refused_before_anything_else():
    with pytest.raises(WeightsError, match=r"card version 2; this SegAtlas reads version 1"):
        Card.from_dict({"version": 2, "shape": "unknown"})


def test_all_faults_of_keys_and_types_are_named_at_once():
    data = CARD.to_dict()
    data["clases"] = data.pop("classes")
    data["preprocessing"]["maen"] = 1
    data["palette"] = "red"
    with pytest.raises(WeightsError) as error:
        Card.from_dict(data, where="x/card.json")
    message = str(error.value)
    for part in (
        "x/card.json",
        "clases",
        "did you mean 'classes'",
        "classes: this key",
        "preprocessing.maen",
        "palette",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"classes": ["a", "b", "c"]}, "3 names, but config.num_classes is 2"),
        ({"palette": [[0, 0, 0]]}, "1 colours for 2 classes"),
        ({"palette": [[0, 0, 0], [0, 0, 256]]}, "three values 0..255"),
        ({"preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]}}, "3 means and 3 deviations for 1 channels"),
        ({"preprocessing": {"mean": [0.5], "std": [0]}}, r"preprocessing\.std\.0: got 0\.0, expected"),
        ({"inference": {"mode": "slid"}}, "got slid, expected one of: whole, slide"),
        ({"inference": {"mode": "slide"}}, "inference.crop: missing"),
        ({"inputs": []}, "inputs: empty"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(change, fault):
    with pytest.raises(WeightsError, match=fault):
        Card.from_dict({**CARD.to_dict(), **change})


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"card\.json: no such file"):
        Card.read(tmp_path / "card.json")
    for content, fault in ((b"{", "not a JSON file"), (b"\xff\xfe", "not a JSON file"), (b"[1]", "holds a list")):
        (tmp_path / "card.json").write_bytes(content)
        with pytest.raises(WeightsError, match=rf"card\.json: .*{fault}"):
            Card.read(tmp_path)


def test_json_keeps_names_readable(tmp_path):
    text = CARD.write(tmp_path).read_text(encoding="utf-8")
    assert "道路" in text
    assert json.loads(text)["palette"] == [[0, 0, 0], [255, 128, 0]]


def test_default_preprocessing_is_imagenets_and_its_mean_for_channels_that_are_none_of_r_g_b():
    assert default_preprocessing(3) == Preprocessing()
    assert default_preprocessing(1).mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3, abs=1e-3),)
    assert default_preprocessing(2).mean == (0.449, 0.449)
    assert default_preprocessing(5).mean == (0.485, 0.456, 0.406, 0.449, 0.449)
    assert default_preprocessing(5).std == (0.229, 0.224, 0.225, 0.226, 0.226)
    assert default_preprocessing(4, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)) == Preprocessing(mean=(0.5,) * 4, std=(1.0,) * 4)
