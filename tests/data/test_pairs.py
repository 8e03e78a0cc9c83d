"""The dataset `pairs`: two dates and a mask, in one listing for training and `data check`."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.images import save_image
from fakes.pairs import write_pairs
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import Store, create_dataset, describe_layout
from segatlas.errors import DataError, UsageError


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


def test_lists_are_refused_for_they_name_no_earlier_date(tmp_path):
    with pytest.raises(UsageError, match=r"data\.lists: not with data\.name=pairs"):
        opened(write_pairs(tmp_path / "d"), lists={"train": "a.csv"})


def test_the_store_keeps_sources_and_serves_the_same_values(tmp_path):
    cfg = DataConfig(name="pairs", root=str(write_pairs(tmp_path / "d")))
    plain = create_dataset(cfg, "train").load(0)
    store = Store(tmp_path / "store", reserve=0)
    kept = [create_dataset(cfg, "train", 0, store).load(0) for _ in range(2)]
    assert store.usage().entries == 3  # both dates and the label
    for sample in kept:
        assert np.array_equal(sample.sources["before"].array, plain.sources["before"].array)
        assert not sample.sources["before"].array.flags.writeable
