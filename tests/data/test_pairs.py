"""The dataset `pairs`: images with further inputs and a mask, in one listing for training and `data check`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes.images import save_codes, save_image
from fakes.pairs import write_pairs, write_sources
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import Store, create_dataset, describe_layout
from segatlas.data.checks import examine
from segatlas.errors import ConfigError, DataError


def opened(root, split="train", **keys):
    return create_dataset(DataConfig(name="pairs", root=str(root), **keys), split)


@pytest.mark.parametrize("kind_first", [False, True])
def test_each_sample_has_both_dates_and_its_mask(tmp_path, kind_first):
    data = opened(write_pairs(tmp_path / "d", kind_first=kind_first))
    assert (len(data), data.classes, dict(data.sources)) == (6, ("unchanged", "changed"), {"before": "image"})
    sample = data.load(2)
    path = data.items[2].sources["before"]
    assert path.parent.name == ("train" if kind_first else "before")
    assert np.array_equal(sample.sources["before"].array, np.asarray(Image.open(path)))
    assert not np.array_equal(sample.sources["before"].array, sample.image)


def test_the_layout_is_recognised_and_that_without_an_earlier_date_is_a_plain_folder(tmp_path):
    root = write_pairs(tmp_path / "d")
    assert describe_layout(root) == "pairs"
    for split in ("train", "val"):
        (root / split / "before").rename(root / split / "spare")
    assert describe_layout(root) == "folder"


def test_an_image_without_its_earlier_date_is_named(tmp_path):
    root = write_pairs(tmp_path / "d")
    (root / "train" / "before" / "003.png").unlink()
    with pytest.raises(DataError, match=r"003\.png.*no image of the earlier date: expected .*before/003"):
        opened(root)


def test_an_earlier_date_of_another_size_is_named_with_both_sizes(tmp_path):
    root = write_pairs(tmp_path / "d")
    save_image(root / "train" / "before" / "000.png", np.zeros((10, 12, 3), np.uint8))
    with pytest.raises(DataError, match=r"before/000\.png: before is 12 x 10 pixels, its image .* is 48 x 32"):
        opened(root).load(0)


def test_the_store_keeps_sources_and_serves_the_same_values(tmp_path):
    cfg = DataConfig(name="pairs", root=str(write_pairs(tmp_path / "d")))
    plain = create_dataset(cfg, "train").load(0)
    store = Store(tmp_path / "store", reserve=0)
    kept = [create_dataset(cfg, "train", 0, store).load(0) for _ in range(2)]
    assert store.usage().entries == 3  # both dates and the label
    for sample in kept:
        assert np.array_equal(sample.sources["before"].array, plain.sources["before"].array)
        assert not sample.sources["before"].array.flags.writeable


# ---- sources by name and kind
@pytest.fixture
def root(tmp_path):
    """A prior of codes, heat maps of two channels, another image that some samples lack."""
    return write_sources(tmp_path / "d")


def test_sources_of_every_kind_come_from_folders_of_their_names(root):
    data = opened(root)
    assert dict(data.sources) == {"prior": "label", "pose": "map", "thermal": "image"}
    sample = data.load(0)
    assert {name: source.kind for name, source in sample.sources.items()} == dict(data.sources)
    assert sample.sources["prior"].array.dtype == np.uint8
    assert np.array_equal(sample.sources["prior"].array, np.asarray(Image.open(root / "train/prior/000.png")))
    assert sample.sources["pose"].array.shape == (32, 48, 2)
    assert sample.sources["pose"].array.dtype == np.float32
    assert np.array_equal(data.source(0, "prior").array, sample.sources["prior"].array)


def test_a_recipe_says_which_sources_there_are_and_where_they_lie(root):
    data = opened(root, sources={"earlier": {"kind": "label", "folder": "prior"}})
    assert dict(data.sources) == {"earlier": "label"}
    assert data.items[1].sources == {"earlier": root / "train/prior/001.png"}
    assert describe_layout(root) == "pairs"


def test_an_optional_source_may_be_missing_and_another_may_not(root):
    data = opened(root)
    assert ["thermal" in item.sources for item in data.items] == [True] * 3 + [False] * 3
    assert data.source(4, "thermal") is None
    (root / "train/pose/002.tif").unlink()
    with pytest.raises(DataError, match=r"images/002\.png: has no source pose: expected .*train/pose/002\.\*"):
        opened(root)
    (finding,) = [one for one in examine(DataConfig(name="pairs", root=str(root))).errors if one.kind == "missing_file"]
    assert [path.stem for path in finding.files] == ["002"]


def test_a_prior_of_other_classes_is_named_with_its_codes(root):
    save_codes(root / "train/prior/001.png", np.full((32, 48), 2))
    with pytest.raises(
        DataError, match=r"prior/001\.png: holds the codes 2; expected one of 2 classes, 0\.\.1, or 255"
    ):
        opened(root).load(1)
    stated = {"prior": {"kind": "label", "codes": "any"}}
    assert opened(root, sources=stated).load(1).sources["prior"].array.max() == 2
    found = examine(DataConfig(name="pairs", root=str(root)))
    assert [(one.kind, one.details) for one in found.errors] == [("source_codes", ("2",))]


def test_a_prior_coded_as_the_masks_are_is_translated_as_they_are(root):
    save_codes(root / "train/masks/001.png", np.full((32, 48), 9))
    save_codes(root / "train/prior/001.png", np.full((32, 48), 9))
    keys = {"label_map": {0: 0, 1: 1, 9: 1}, "sources": {"prior": {"kind": "label", "codes": "masks"}}}
    sample = opened(root, **keys).load(1)
    assert (sample.sources["prior"].array == 1).all()
    assert (sample.label == 1).all()


def test_a_prior_that_says_nothing_is_a_warning_of_data_check(root):
    save_codes(root / "train/prior/001.png", np.full((32, 48), 255))
    found = examine(DataConfig(name="pairs", root=str(root)))
    assert found.ok
    assert [one.kind for one in found.warnings] == ["source_empty"]


def test_nan_in_a_map_and_maps_of_other_channels_are_named(root):
    Image.fromarray(np.full((32, 48), np.nan, np.float32)).save(root / "train/pose/003.tif")
    Image.fromarray(np.zeros((32, 48), np.float32)).save(root / "train/pose/004.tif")
    with pytest.raises(DataError, match=r"pose/003\.tif: .*NaN"):
        opened(root).load(3)
    kinds = {one.kind: one.files for one in examine(DataConfig(name="pairs", root=str(root))).errors}
    assert {kind: [path.stem for path in files] for kind, files in kinds.items()} == {
        "unreadable": ["003"],
        "source_channels": ["004"],
    }


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ({"mask": "label"}, "a source cannot be called 'mask'"),
        ({"a b": "label"}, "'a b' is no name of a source"),
        ({"prior": "labels"}, "labels"),
        ({"prior": {"kind": "label", "code": "any"}}, "code"),
    ],
)
def test_a_wrong_source_of_a_recipe_or_of_the_roots_file_is_named(root, sources, fault):
    with pytest.raises(ConfigError, match=fault):
        opened(root, sources=sources)
    (root / "sources.json").write_text(json.dumps(sources))
    with pytest.raises(DataError, match=r"sources\.json: is no file of sources"):
        opened(root)
    assert "list" in [one.kind for one in examine(DataConfig(name="pairs", root=str(root))).errors]


# ---- lists
def listed(root, *lines, split="train"):
    (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return {"lists": {split: str(root / f"{split}.csv")}}


def test_a_list_names_its_columns_in_any_order(root):
    row = "train/masks/{0}.png, more ,train/prior/{0}.png,train/images/{0}.png,{1}"
    rows = [row.format("000", "train/thermal/000.png"), row.format("004", "")]
    sources = {"prior": "label", "thermal": {"kind": "image", "optional": True}}
    keys = listed(root, "mask,remark,prior,image,thermal", *rows)
    parts = [opened(root, split, **keys, sources=sources) for split in ("train", "val")]  # one is held out
    items = {item.key: item for data in parts for item in data.items}
    assert items["train/images/000"].sources == {
        "prior": root / "train/prior/000.png", "thermal": root / "train/thermal/000.png",
    }  # fmt: skip
    assert items["train/images/004"].sources == {"prior": root / "train/prior/004.png"}
    assert items["train/images/004"].target == root / "train/masks/004.png"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (("image,priors,mask",), "has no column 'prior': .* names image, priors, mask; the nearest is 'priors'"),
        (("train/images/000.png,train/prior/000.png,train/masks/000.png",), "has no column 'image', 'prior', 'mask'"),
        (("image,prior,mask,prior",), "names the column 'prior' twice"),
        (("image,prior,mask", "train/images/000.png,,train/masks/000.png"), "line 2: .* has no prior"),
        (("image,prior,mask", "train/images/000.png,train/prior/000.png,"), "line 2: .* has no mask"),
        (("image,prior,mask", "train/images/000.png,train/prior/x.png,train/masks/000.png"), "line 2: no file .*x.png"),
        (("image,prior,mask", "train/images/000.png,train/masks/000.png"), "line 2: 2 fields, its first line names 3"),
        ((), "has no column 'image', 'prior', 'mask': its first line names nothing"),
    ],
)
def test_a_wrong_list_is_named_with_its_line(root, lines, fault):
    with pytest.raises(DataError, match=fault):
        opened(root, **listed(root, *lines), sources={"prior": "label"})
