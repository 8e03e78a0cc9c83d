"""Every dataset has one listing, which training and `data check` both read."""

from __future__ import annotations

from functools import partial

import pytest
from fakes.ade20k import write_ade20k
from fakes.camvid import write_camvid
from fakes.cityscapes import write_cityscapes
from fakes.coco import write_coco
from fakes.cub200 import write_cub200
from fakes.folder import write_folder
from fakes.gtav import write_gtav
from fakes.isic2018 import write_isic2018
from fakes.lits import write_decathlon, write_lits
from fakes.pairs import write_pairs
from fakes.pennfudan import write_pennfudan
from fakes.shapes import write_shapes
from fakes.voc import write_voc
from fakes.weak import write_weak

from segatlas.config.schema import DataConfig
from segatlas.data import DATASETS, create_dataset, describe_layout
from segatlas.data.checks import examine
from segatlas.data.datasets import dataset_class
from segatlas.errors import DataError
from segatlas.testing import check_dataset

WRITERS = {
    "shapes": write_shapes,
    "cityscapes": write_cityscapes,
    "ade20k": write_ade20k,
    "ade20k, full": partial(write_ade20k, full=True),
    "coco": write_coco,
    "pennfudan": write_pennfudan,
    "voc": write_voc,
    "gtav": write_gtav,
    "cub200": write_cub200,
    "cub200, masks apart": partial(write_cub200, apart=True),
    "isic2018": write_isic2018,
    "lits": write_lits,
    "lits, decathlon": write_decathlon,
    "camvid": write_camvid,
    "camvid, original": partial(write_camvid, layout="original"),
    "pairs": write_pairs,
    "folder": write_folder,
    "weak": write_weak,
}
"""Dataset, and which of its layouts -> the writer of a tiny one."""


def test_every_dataset_of_the_table_is_listed_here():
    files_of_others = {"mixed"}  # tests/data/test_mixed.py
    assert {name.split(",")[0] for name in WRITERS} | files_of_others == set(DATASETS)


def cfg_of(kind, root):
    return DataConfig(name=kind.name, root=str(root)).checked(kind.options())


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("layout", WRITERS)
def test_a_dataset_keeps_the_rules_of_all(tmp_path, layout, split):
    WRITERS[layout](tmp_path)
    kind = dataset_class(layout.split(",")[0])
    parts = kind.listing(cfg_of(kind, tmp_path), tmp_path).parts
    given = set().union(*(item.truths for part in parts.values() for item in part.items))
    for target in (name for name in kind.targets if name == "SemanticTarget" or name in given):
        check_dataset(kind, tmp_path, split=split, target=target)


@pytest.mark.parametrize("layout", WRITERS)
def test_the_images_that_training_opens_are_those_that_data_check_reads(tmp_path, layout):
    WRITERS[layout](tmp_path)
    name = layout.split(",")[0]
    assert describe_layout(tmp_path) == name
    cfg = DataConfig(name=name, root=str(tmp_path))
    listing = dataset_class(name).listing(cfg, tmp_path)
    assert not [fault for fault in listing.faults if fault.severity == "error"]
    opened = [create_dataset(cfg, split) for split in ("train", "val")]
    items = [(data.key(index), data.files(index)[0]) for data in opened for index in range(len(data))]
    if name == "lits":  # slices are opened, of volumes that are read
        items = [*{(key.rpartition("/")[0], path) for key, path in items}]
    parts = [listing.parts[split] for split in ("train", "val") if split in listing.parts]
    assert sorted(items) == sorted((item.key, item.image) for part in parts for item in part.items)
    assert sum(images for split, (images, _) in examine(tmp_path).splits.items() if split != "test") == len(items) > 0


@pytest.mark.parametrize("layout", [layout for layout in WRITERS if layout != "weak"])
def test_a_missing_mask_stops_training_and_is_an_error_of_data_check(tmp_path, layout):
    WRITERS[layout](tmp_path)
    name = layout.split(",")[0]
    cfg = DataConfig(name=name, root=str(tmp_path))
    image, mask = create_dataset(cfg, "train").files(0)
    mask.unlink()
    with pytest.raises(DataError) as caught:
        create_dataset(cfg, "train")
    assert "mask" in str(caught.value)
    assert image.stem in str(caught.value)
    finding = next(finding for finding in examine(cfg).errors if finding.kind == "missing_mask")
    assert finding.files == (image,)


@pytest.mark.parametrize("layout", WRITERS)
def test_no_image_at_all_is_an_error_and_never_clean(tmp_path, layout):
    WRITERS[layout](tmp_path)
    name = layout.split(",")[0]
    cfg = DataConfig(name=name, root=str(tmp_path))
    for split in dataset_class(name).listing(cfg, tmp_path).parts.values():
        for item in split.items:
            item.image.unlink()
    assert not examine(cfg).ok
    with pytest.raises(DataError):
        create_dataset(cfg, "train")
