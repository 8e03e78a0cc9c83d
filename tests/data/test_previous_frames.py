"""CamVid in pairs: each frame with the labelled one before it, of the same drive and split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.camvid import FRAMES, write_frames
from fakes.images import save_codes
from fakes.shared import shared_data
from PIL import Image

from segatlas.config import recipes
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine
from segatlas.data.checks.convert import to_folder
from segatlas.data.datasets.camvid import CamVidOptions, drive_and_frame
from segatlas.data.datasets.previous_frames import PreviousFrames
from segatlas.errors import DataError, UsageError
from segatlas.recipe import Config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("camvid"))


def opened(root, split="train", **pairs):
    return create_dataset(DataConfig(name="camvid", root=str(root), pairs=pairs), split)


def pairs_of(data):
    return {item.key: item.sources["before"].stem for item in data.items}


def test_each_frame_has_the_one_before_it_of_its_drive_and_split(root):
    assert pairs_of(opened(root)) == {
        "0001TP_006720": "0001TP_006690",
        "0001TP_006750": "0001TP_006720",  # the next one is 90 frames later
        "0006R0_f00960": "0006R0_f00930",
    }
    assert pairs_of(opened(root, "test")) == {
        "0001TP_008580": "0001TP_008550",  # and none of train's frames of that drive
        "Seq05VD_f00030": "Seq05VD_f00000",
    }
    assert pairs_of(opened(root, gap=90))["0001TP_006840"] == "0001TP_006750"
    assert [opened(root, "test").sequence(index) for index in (0, 1)] == ["0001TP", "Seq05VD"]
    sample = opened(root).load(0)
    assert np.array_equal(sample.sources["before"].array, np.asarray(Image.open(root / "train/0001TP_006690.png")))


def test_an_oracle_prior_is_the_true_mask_of_the_frame_before_and_is_called_so(root):
    data = opened(root, "val", prior="oracle")
    sample = data.load(1)
    truth = create_dataset(DataConfig(name="camvid", root=str(root)), "val").load(1)
    assert (sample.key, truth.key) == ("0016E5_07963", "0016E5_07961")
    assert np.array_equal(sample.sources["prior"].array, truth.label)  # code 11 is 255 there, too
    assert (data.name, dict(data.sources)) == (
        "camvid with an oracle prior", {"before": "image", "prior": "label"},
    )  # fmt: skip
    assert opened(root, "val").name == "camvid"
    assert examine(DataConfig(name="camvid", root=str(root), pairs={"prior": "oracle"})).ok


def test_a_predicted_prior_comes_from_its_folder_and_a_missing_one_is_named(root, tmp_path):
    for stem in FRAMES["train"][:3]:
        save_codes(tmp_path / "train" / f"{stem}.png", np.full((24, 32), 3))
    with pytest.raises(DataError, match=r"0006R0_f00930\.png: has no predicted mask: expected .*0006R0_f00930\.png"):
        opened(root, prior="predicted", priors=str(tmp_path))
    save_codes(tmp_path / "train/0006R0_f00930.png", np.full((24, 32), 11))
    data = opened(root, prior="predicted", priors=str(tmp_path))
    assert (data.load(0).sources["prior"].array == 3).all()
    with pytest.raises(DataError, match=r"holds the codes 11; expected one of 11 classes"):
        data.load(2)


@pytest.mark.parametrize(
    ("pairs", "fault"),
    [
        ({"prior": "predicted"}, "data.pairs.priors: is needed"),
        ({"priors": "x"}, "data.pairs.priors: needs prior=predicted"),
        ({"prior": "oracle", "priors": "x"}, "data.pairs.priors: needs prior=predicted"),
    ],
)
def test_priors_without_a_folder_and_a_folder_without_priors_are_refused(root, pairs, fault):
    with pytest.raises(UsageError, match=fault):
        opened(root, **pairs)


def test_the_tail_of_each_drive_of_train_takes_the_place_of_val(root):
    train, val = (pairs_of(opened(root, split, gap=90, tail=0.5)) for split in ("train", "val"))
    assert train == {"0001TP_006720": "0001TP_006690"}
    assert val == {"0001TP_006840": "0001TP_006750"}  # of 0006R0 each half has one frame, without one before it
    assert pairs_of(opened(root, "test", tail=0.5)) == pairs_of(opened(root, "test"))
    with pytest.raises(UsageError, match=r"data\.pairs\.tail: holds out a part of train"):
        create_dataset(DataConfig(name="camvid", root=str(root), trainval=True, pairs={"tail": 0.5}), "train")


def test_real_camvid_has_362_100_and_231_pairs_of_60_frames_at_most():
    root = shared_data("camvid")
    found = {split: opened(root, split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in found.items()} == {"train": 362, "val": 100, "test": 231}
    gaps = {split: {_gap(item) for item in data.items} for split, data in found.items()}
    assert gaps == {"train": {29, 30, 31}, "val": {2}, "test": {30}}
    assert len(opened(root, gap=270)) == 363  # a pause of 0016E5


def _gap(item):
    files = (item.image, item.sources["before"])
    (drive, frame), (other, before) = (drive_and_frame(Path(file).stem) for file in files)
    assert drive == other
    return frame - before


def test_a_plain_folder_would_lose_the_frame_before_and_is_refused(root, tmp_path):
    with pytest.raises(UsageError, match="a copy holds images and masks alone, not: before"):
        to_folder(DataConfig(name="camvid", root=str(root), pairs={}), tmp_path / "copy")


def test_the_first_command_of_the_recipe_asks_for_no_priors_which_its_second_one_writes():
    head = recipes()["multisource_camvid"].read_text().splitlines()[1]
    recipe, *words = head.removeprefix("# segatlas train ").split()
    config = Config.load(recipe, *words)
    assert recipe == "multisource_camvid_plain"
    assert config.data.options(CamVidOptions).pairs == PreviousFrames(tail=0.2)
