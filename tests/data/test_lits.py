"""LiTS: which slices are samples of which split, what they hold, and what is refused."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from fakes.lits import AFFINE, save_volume, volume, write_decathlon, write_lits
from fakes.shared import shared_data

from segatlas.config.schema import DataConfig
from segatlas.data import Store, create_dataset
from segatlas.data.checks import examine
from segatlas.data.checks.convert import to_folder
from segatlas.data.formats.nifti import windowed
from segatlas.errors import DataError, UsageError
from segatlas.structures import VolumeSlices


def cfg(root, **own):
    return DataConfig(name="lits", root=str(root), **own)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_lits(tmp_path_factory.mktemp("lits"))


def test_volumes_are_held_out_whole_and_every_slice_is_a_sample(root):
    train, val, test = (create_dataset(cfg(root), split) for split in ("train", "val", "test"))
    assert [len(data) for data in (train, val, test)] == [20, 5, 5]
    volumes = [{data.key(index).rpartition("/")[0] for index in range(len(data))} for data in (train, val)]
    assert not volumes[0] & volumes[1]
    assert volumes[0] | volumes[1] == {f"volume-{number}" for number in range(5)}
    assert (test.key(4), test.files(4)[1]) == ("test-volume-0/0004", None)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("with_store", [False, True])
def test_samples_are_windowed_slices_with_their_labels(tmp_path, ending, with_store):
    write_lits(tmp_path / "data", count=2, ending=ending)
    store = Store(tmp_path / "store", reserve=0) if with_store else None
    for _ in range(2):  # the second time from the store
        data = create_dataset(cfg(tmp_path / "data", axis=1, window=[-100, 300]), "val", store=store)
        number = int(data.key(0).partition("/")[0][-1])
        values, label = volume(number)
        for index in (0, 17, 31):
            sample = data.load(index)
            slices = VolumeSlices(window=(-100, 300), axis=1)
            assert np.array_equal(sample.image, np.repeat(windowed(values[:, index].T, slices, ""), 3, axis=2))
            assert np.array_equal(sample.label, label[:, index].T)
            assert sample.image.shape == (5, 40, 3)


def test_train_may_have_labelled_slices_alone_and_liver_and_tumour_one_class(root):
    data = create_dataset(cfg(root, slices="labelled", grouping="liver"), "train")
    assert (len(data), data.classes) == (16, ("background", "liver"))
    assert all(np.unique(data.load(index).label).tolist() == [0, 1] for index in range(len(data)))
    assert len(create_dataset(cfg(root, slices="labelled"), "val")) == 5


def test_both_layouts_hold_the_same(root, tmp_path):
    write_decathlon(tmp_path)
    here, there = create_dataset(cfg(root), "train"), create_dataset(cfg(tmp_path), "train")
    keys = {here.key(i).replace("volume-", "liver_"): i for i in range(len(here))}
    index = next(i for i in range(len(there)) if there.key(i) in keys)
    one, other = here.load(keys[there.key(index)]), there.load(index)
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.label, other.label)


def spoilt(root, kind):
    """Write the set with a fault in a volume of train; return the file at fault."""
    write_lits(root, count=3)
    values, label = volume(0)
    files = {data.key(0).partition("/")[0]: data.files(0) for data in [create_dataset(cfg(root), "train")]}
    image, mask = next(iter(files.values()))
    if kind == "shape":
        return save_volume(mask, label[:, :, :4])
    if kind == "codes":
        label[5, 6, 1] = 7
        return save_volume(mask, label)
    if kind == "fractions":
        return save_volume(mask, label + np.float32(0.25))
    if kind == "affine":
        return save_volume(image, values, None, sform_code=0, qform_code=0)
    if kind == "cut":
        image.write_bytes(image.read_bytes()[:-80])
        return image
    return save_volume(mask, label * 0)


def load_all(section):
    data = create_dataset(section, "train")
    for index in range(len(data)):
        data.load(index)


@pytest.mark.parametrize(
    ("kind", "message", "finding"),
    [
        ("shape", "is of 40 x 32 x 4 voxels, its image", "size_mismatch"),
        ("codes", "slice 1: label 7 (1 pixels) in a set of 3 classes", "label_out_of_range"),
        ("fractions", "slice 0: 1280 voxels hold no whole numbers", "unreadable"),
        ("affine", "has no affine", "unreadable"),
        ("cut", "cannot be decoded, is the file truncated or damaged", "unreadable"),
        ("empty", "all of it is class 0, so it has no slice for data.slices=labelled", None),
    ],
)
def test_faults_name_the_file_when_opened_or_loaded_and_are_errors_of_data_check(tmp_path, kind, message, finding):
    file = spoilt(tmp_path, kind)
    with pytest.raises(DataError) as caught:
        load_all(cfg(tmp_path, slices="labelled" if kind == "empty" else "all"))
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    if finding is not None:
        found = next(one for one in examine(cfg(tmp_path)).errors if one.kind == finding)
        assert found.files == (file,)


def test_a_label_that_lies_elsewhere_in_space_than_its_image_is_a_warning(tmp_path):
    write_lits(tmp_path, count=2)
    affine = AFFINE.copy()
    affine[0, 0], affine[0, 3] = -AFFINE[0, 0], AFFINE[0, 3] + 39 * AFFINE[0, 0]  # the same place, turned about
    file = save_volume(tmp_path / "Training Batch 1" / "segmentation-1.nii.gz", volume(1)[1], affine)
    save_volume(file.with_name("segmentation-0.nii.gz"), volume(0)[1], AFFINE + np.eye(4, k=3) * 0.1)
    report = examine(cfg(tmp_path), max_value=1.0)
    (finding,) = report.findings
    assert (finding.kind, finding.severity, finding.files) == ("place_mismatch", "warning", (file,))
    assert "by up to 39.0 voxels" in finding.fault
    assert len(create_dataset(cfg(tmp_path), "train")) == 5


def test_a_window_that_does_not_rise_is_refused(root):
    with pytest.raises(UsageError, match=r"data.window: got 250, -250; expected two rising numbers"):
        create_dataset(cfg(root, window=[250.0, -250.0]), "train")


def test_a_sound_set_is_clean_in_data_check(root):
    report = examine(cfg(root), max_value=1.0)
    assert report.findings == ()
    assert report.splits == {"train": (5, 5), "test": (1, 0)}
    assert report.classes == ("background", "liver", "tumour")


def test_a_copy_as_folder_is_refused_for_it_would_lose_values_and_affine(root, tmp_path):
    with pytest.raises(UsageError, match=r"data\.name=lits: a copy holds images, and its samples are slices"):
        to_folder(cfg(root), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("labels", "names", "present"),
    [
        ({"background": 0, "organ": 1, "stone": 2}, ("background", "organ", "stone"), [0, 1, 2]),
        ({"0": "rest", "2": "stone", "1": "organ"}, ("rest", "organ", "stone"), [0, 1, 2]),
        ({"rest": 0, "stone": 2, "ignore": 1}, ("rest", "stone"), [0, 1, 255]),
        ({"0": "background", "1": "liver", "2": "cancer"}, ("background", "liver", "tumour"), [0, 1, 2]),
        (None, ("background", "liver", "tumour"), [0, 1, 2]),
    ],
)
def test_labels_of_dataset_json_name_the_classes_in_the_order_of_their_values(tmp_path, labels, names, present):
    write_decathlon(tmp_path, labels=labels)
    data = create_dataset(cfg(tmp_path), "train")
    assert (data.classes, len(data.palette)) == (names, len(names))
    assert np.unique([data.load(index).label for index in range(len(data))]).tolist() == present
    report = examine(cfg(tmp_path))
    assert (report.classes, report.findings) == (names, ())


def test_the_recipe_names_classes_before_dataset_json_does(tmp_path):
    write_decathlon(tmp_path, labels={"background": 0, "whole": [1, 2]})
    own = cfg(tmp_path, classes=["rest", "organ", "stone"])
    assert create_dataset(own, "train").classes == examine(own).classes == ("rest", "organ", "stone")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "whole": [1, 2], "core": 2}, "'whole' is a region of several values, [1, 2]; here a voxel"),
        ({"background": 0, "organ": 1}, "label 2"),
    ],
)
def test_regions_and_values_that_dataset_json_does_not_name_are_refused(tmp_path, labels, message):
    write_decathlon(tmp_path, labels=labels)
    with pytest.raises(DataError) as caught:
        load_all(cfg(tmp_path))
    assert message in str(caught.value)
    assert any(message in "".join((one.fault, *one.details)) for one in examine(cfg(tmp_path)).errors)


def test_liver_with_its_tumours_is_no_grouping_of_other_classes(tmp_path):
    write_decathlon(tmp_path, labels={"background": 0, "organ": 1, "stone": 2})
    with pytest.raises(UsageError, match=r"data\.grouping=liver: for background, liver, tumour, not background, organ"):
        create_dataset(cfg(tmp_path, grouping="liver"), "train")


def test_names_of_images_that_end_in_nnu_nets_channel_are_told_with_what_renames_them(tmp_path):
    write_decathlon(tmp_path, channel="_0000", labels={"background": 0, "organ": 1, "stone": 2})
    with pytest.raises(DataError, match="but one called liver_0: take nnU-Net's _0000 off the names of images"):
        create_dataset(cfg(tmp_path), "train")
    (error,) = examine(cfg(tmp_path)).errors
    assert "rename liver_0_0000.nii.gz to liver_0.nii.gz, and so on; in a shell: for f in " in error.repair
    subprocess.run(["sh", "-c", error.repair.partition("in a shell: ")[2]], check=True)
    assert examine(cfg(tmp_path)).findings == ()


def test_the_range_of_windowed_values_is_looked_at_only_where_a_recipe_declares_one(root):
    assert examine(cfg(root)).findings == ()
    assert [one.kind for one in examine(cfg(root), max_value=255.0).findings] == ["value_range"]


def test_real_volumes_of_the_decathlon_are_samples():
    data = create_dataset(cfg(shared_data("samples/nifti_msd"), window=[0.0, 140.0]), "train")
    labels = np.array([data.load(index).label for index in range(len(data))])
    assert labels.shape == (35, 51, 35)
    assert np.unique(labels).tolist() == [0, 1, 2]
