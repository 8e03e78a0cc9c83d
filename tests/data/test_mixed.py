"""Several datasets become one by the names of their classes; what a source does not know is not annotated there."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.folder import write_folder
from fakes.weak import write_weak
from pydantic import ValidationError

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine
from segatlas.data.checks.convert import to_folder
from segatlas.data.formats.classes import write_classes
from segatlas.errors import ConfigError, DataError, UsageError
from segatlas.recipe import Config
from segatlas.testing import check_dataset

GREY = ((0, 0, 0), (1, 1, 1), (2, 2, 2))


def two_sources(root, first=("other", "road", "car"), second=("other", "tree", "road")):
    for name, classes in (("a", first), ("b", second)):
        write_folder(root / name, counts={"train": 2, "val": 1})
        write_classes(root / name / "classes.json", classes, GREY)
    return [{"root": "a"}, {"name": "folder", "root": "b"}]


def opened(root, split="train", **keys):
    sources = keys.pop("sources", None) or two_sources(root)
    return create_dataset(DataConfig(name="mixed", root=str(root), sources=sources, **keys), split)


def raw(root, source, index=0):
    cfg = DataConfig(name="folder", root=str(root / source))
    return create_dataset(cfg, "train").load(index).label


def test_classes_are_matched_by_name_and_what_a_source_lacks_is_not_annotated(tmp_path):
    data = opened(tmp_path, rest="other")
    assert data.classes == ("other", "road", "car", "tree")
    assert [data.key(index) for index in range(4)] == ["0_folder/000", "0_folder/001", "1_folder/000", "1_folder/001"]
    first, second = data.truth(0), data.truth(2)
    np.testing.assert_array_equal(np.asarray(first.labels), raw(tmp_path, "a"))
    np.testing.assert_array_equal(np.asarray(second.labels), np.array([0, 3, 1])[raw(tmp_path, "b")])
    assert np.asarray(first.annotated).tolist() == [False, True, True, False]
    assert np.asarray(second.annotated).tolist() == [False, True, False, True]


def test_without_a_rest_the_background_of_a_source_is_its_own_class(tmp_path):
    data = opened(tmp_path)
    assert np.asarray(data.truth(0).annotated).tolist() == [True, True, True, False]


def test_sources_of_one_class_list_have_all_annotated(tmp_path):
    data = opened(tmp_path, sources=two_sources(tmp_path, second=("other", "road", "car")), rest="other")
    assert all(data.truth(index).annotated is None for index in range(len(data)))


def test_a_class_that_is_left_out_belongs_to_the_rest_or_is_ignored(tmp_path):
    data = opened(tmp_path, classes=("other", "road"), rest="other")
    np.testing.assert_array_equal(np.asarray(data.truth(0).labels), np.array([0, 1, 0])[raw(tmp_path, "a")])
    data = opened(tmp_path, sources=[{"root": "a"}, {"root": "b"}], classes=("road", "car"))
    np.testing.assert_array_equal(np.asarray(data.truth(0).labels), np.array([255, 0, 1])[raw(tmp_path, "a")])


def test_weak_labels_of_a_source_keep_what_they_say(tmp_path):
    write_weak(tmp_path / "w", "labels")
    sources = [*two_sources(tmp_path), {"name": "weak", "root": "w"}]
    data = opened(tmp_path, sources=sources)
    target = data.truth(4)
    assert data.classes == ("other", "road", "car", "tree", "ground")
    assert np.asarray(target.present).tolist() == [False, False, True, True, True]
    assert np.asarray(target.annotated).tolist() == [False, False, True, True, True]


def test_a_mixed_set_keeps_the_rules_of_all_and_is_examined(tmp_path):
    sources = two_sources(tmp_path)
    cfg = DataConfig(name="mixed", root=str(tmp_path), sources=sources)
    assert examine(cfg).ok
    assert examine(cfg).splits == {"train": (4, 0), "val": (2, 0)}
    check_dataset(type(create_dataset(cfg, "train")), tmp_path, sources=sources)
    next((tmp_path / "b/train/masks").iterdir()).unlink()
    assert "missing_mask" in {one.kind for one in examine(cfg).errors}
    with pytest.raises(DataError, match="has no mask"):
        create_dataset(cfg, "train")


def test_a_copy_of_sources_with_one_class_list_has_their_masks_and_others_are_refused(tmp_path):
    two_sources(tmp_path, second=("other", "road", "car"))
    places = [{"root": str(tmp_path / name)} for name in "ab"]
    cfg = DataConfig(name="mixed", sources=places)  # without a root of its own
    assert examine(cfg).ok
    assert to_folder(cfg, tmp_path / "copy") == {"train": 4, "val": 2}
    copy = create_dataset(DataConfig(name="folder", root=str(tmp_path / "copy")), "train")
    np.testing.assert_array_equal(copy.load(0).label, raw(tmp_path, "a"))
    two_sources(tmp_path)
    with pytest.raises(UsageError, match="some classes were not annotated"):
        to_folder(cfg, tmp_path / "other")


FAULTS = {
    "no sources": ({}, UsageError, "data.sources is empty"),
    "no dataset": ({"sources": [{"name": "camvit", "root": "a"}]}, ConfigError, "did you mean 'camvid'"),
    "itself": ({"sources": [{"name": "mixed", "root": "a"}]}, ConfigError, "that can be mixed"),
    "no root": ({"sources": [{"name": "folder"}]}, UsageError, r"sources\.0\.root is not set"),
    "not there": ({"sources": [{"root": "c"}]}, DataError, "is missing"),
    "unknown key": ({"sources": [{"root": "a", "grouping": "exact"}]}, ConfigError, "an option of data.name=gtav"),
    "unknown class": ({"sources": [{"root": "a"}], "classes": ["other", "rod"]}, UsageError, "nearest 'road'"),
    "unknown rest": ({"sources": [{"root": "a"}], "rest": "others"}, UsageError, "nearest 'other'"),
    "rest left out": (
        {"sources": [{"root": "a"}], "classes": ["road", "car"], "rest": "other"}, UsageError, "none of data.classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_mixed_is_refused(tmp_path, case):
    keys, kind, text = FAULTS[case]
    two_sources(tmp_path)
    with pytest.raises(kind, match=text):
        create_dataset(DataConfig(name="mixed", root=str(tmp_path), **keys), "train")


def test_a_source_must_name_its_classes(tmp_path):
    sources = two_sources(tmp_path)
    (tmp_path / "a/classes.json").unlink()
    with pytest.raises(DataError, match=r"does not name its classes.*add classes\.json"):
        opened(tmp_path, sources=sources)


def test_keys_of_sources_are_read_from_a_recipe(tmp_path):
    sources = [{"name": "folder", "root": "a", "label_map": {"0": 0}}]
    cfg = Config.load({"data": {"name": "mixed", "sources": sources, "rest": "other"}})
    assert cfg.data.sources[0]["root"] == "a"
    with pytest.raises((ConfigError, ValidationError)):
        Config.load({"data": {"name": "mixed", "sources": ["a"]}})
