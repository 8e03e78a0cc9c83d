"""`data check` finds each fault in a folder that was broken in one way, and says how to repair it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import broken
from fakes.camvid import write_camvid
from fakes.cityscapes import write_cityscapes
from fakes.shared import shared_data
from fakes.voc import write_voc
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import KINDS, CheckReport, Finding, examine, quick_check
from segatlas.errors import UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return broken.write_sound(tmp_path / "data")


def check_only_error(found: CheckReport, kind: str) -> Finding:
    assert [finding.kind for finding in found.errors] == [kind], found.errors
    return found.errors[0]


def test_a_sound_folder_is_clean(root: Path) -> None:
    found = examine(root)
    assert found.findings == ()
    assert found.ok
    assert found.splits == {"train": (6, 6), "val": (2, 2)}
    assert found.classes == ("class_0", "class_1")


@pytest.mark.parametrize(
    ("breaks", "kind"),
    [
        (broken.out_of_range, "label_out_of_range"),
        (broken.missing_mask, "missing_mask"),
        (broken.empty_file, "unreadable"),
        (broken.truncated, "unreadable"),
        (broken.text_as_png, "unreadable"),
        (broken.bomb, "too_large"),
        (broken.half_size, "size_mismatch"),
        (broken.other_ratio, "size_mismatch"),
        (broken.exif_turned, "exif_turn"),
        (broken.empty_split, "empty_split"),
        (broken.deep_image, "mixed_depth"),
    ],
)
def test_a_fault_in_one_file_names_that_file_and_nothing_else(root: Path, breaks, kind: str) -> None:
    at_fault = breaks(root)
    finding = check_only_error(examine(root), kind)
    assert finding.files == (at_fault,)
    assert finding.fault
    assert finding.repair


def test_a_mask_without_image_is_a_warning_for_training_leaves_it_out(root: Path) -> None:
    mask = broken.missing_image(root)
    found = examine(root)
    assert found.ok
    assert [(finding.kind, finding.files) for finding in found.warnings] == [("missing_image", (mask,))]


def test_of_two_files_with_one_stem_the_second_is_named(root: Path) -> None:
    broken.duplicate_stem(root)
    assert check_only_error(examine(root), "duplicate_stem").files == (root / "train/images/001.png",)


def test_a_label_out_of_range_is_named_with_its_pixels(root: Path) -> None:
    broken.out_of_range(root)
    finding = check_only_error(examine(root), "label_out_of_range")
    assert "label 89 in a set of 2 classes" in finding.fault
    assert finding.details == ("89: 12 pixels",)


def test_palette_masks_with_indices_out_of_range_are_told_of_their_colors(root: Path) -> None:
    (root / "classes.json").write_text('["ground", "disc"]')
    for path in sorted(root.glob("*/masks/*.png")):
        mask = Image.fromarray(np.asarray(Image.open(path)) * np.uint8(15))
        mask.putpalette(bytes(range(256)) * 3)
        mask.save(path)
    (finding,) = (finding for finding in examine(root).errors if finding.kind == "label_out_of_range")
    assert finding.repair.startswith("are the palette's colours the classes? Name them in data.label_colors")


def test_declared_classes_decide_what_is_out_of_range(root: Path) -> None:
    (root / "classes.json").write_text('["ground", "disc"]')
    broken.change_masks(root, lambda label: label * 2)
    finding = check_only_error(examine(root), "label_out_of_range")
    assert len(finding.files) == 8
    assert "label 2 in a set of 2 classes; expected 0..1" in finding.fault


def test_black_and_white_masks_are_found_and_the_printed_label_map_cures_them(root: Path) -> None:
    broken.black_white(root)
    finding = check_only_error(examine(root), "black_white")
    assert len(finding.files) == 8
    assert '"data.label_map={0: 0, 255: 1}"' in finding.repair
    cured = examine(DataConfig(root=str(root), label_map={0: 0, 255: 1}))
    assert cured.findings == ()


def test_a_set_that_mixes_0_1_and_0_255_names_the_minority(root: Path) -> None:
    changed = broken.change_masks(root, lambda label: label * 255, "train/masks/00[01].png")
    finding = check_only_error(examine(root), "black_white")
    assert finding.files == tuple(changed)
    assert "in 2 of 8 masks" in finding.fault


def test_ignored_borders_are_no_black_and_white_mask(root: Path) -> None:
    def with_ignored_border(label: np.ndarray) -> np.ndarray:
        label = label.copy()
        label[:5] = 255
        return label

    broken.change_masks(root, with_ignored_border)
    assert examine(root).findings == ()


def test_color_masks_are_found_and_the_printed_table_cures_them(root: Path) -> None:
    broken.colored(root)
    finding = check_only_error(examine(root), "color_mask")
    assert len(finding.files) == 8
    assert "\"data.label_colors={'0,0,0': 0, '200,30,60': 1}\"" in finding.repair
    cured = examine(DataConfig(root=str(root), label_colors={"0,0,0": 0, "200,30,60": 1}))
    assert cured.findings == ()


def test_smeared_color_masks_get_no_table_that_would_not_fit(root: Path) -> None:
    broken.colored(root)
    broken.change_masks(root, broken.enlarge)
    kinds = {finding.kind: finding for finding in examine(root).errors}
    assert set(kinds) == {"color_mask", "smoothed_mask"}
    assert "about 2 colours" in kinds["color_mask"].fault
    assert "label_colors" not in kinds["color_mask"].repair


def test_photographs_in_place_of_masks_are_named(root: Path) -> None:
    broken.change_masks(root, lambda label: broken.image_of(int(label.sum()), (*label.shape,)))
    findings = {finding.kind: finding for finding in examine(root).errors}
    assert "more than 255 colours" in findings["color_mask"].fault


def test_an_image_of_one_pixel_is_no_fault(root: Path) -> None:
    broken.save(root / "train/images/000.png", broken.image_of(0, (1, 1)))
    broken.save(root / "train/masks/000.png", broken.label_of(0, size=(1, 1)))
    assert examine(root).findings == ()


def test_one_color_mask_among_index_masks_is_named(root: Path) -> None:
    (path,) = broken.change_masks(root, lambda label: broken.COLORS[label], "train/masks/004.png")
    assert check_only_error(examine(root), "color_mask").files == (path,)


def test_an_unknown_color_is_out_of_range(root: Path) -> None:
    broken.colored(root)
    path = root / "val/masks/100.png"
    mask = np.array(Image.open(path))
    mask[0, :7] = (1, 2, 3)
    broken.save(path, mask)
    finding = check_only_error(
        examine(DataConfig(root=str(root), label_colors={"0,0,0": 0, "200,30,60": 1})), "label_out_of_range"
    )
    assert finding.files == (path,)
    assert finding.details == ("(1,2,3): 7 pixels",)


def test_smoothed_masks_are_found(root: Path) -> None:
    broken.smoothed(root)
    kinds = {finding.kind: finding for finding in examine(root).errors}
    assert set(kinds) == {"smoothed_mask", "black_white"}
    assert len(kinds["smoothed_mask"].files) == 8


def test_noise_is_told_as_smoothed_alone_and_with_the_key_that_takes_it(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path, classes=3)
    draw = np.random.default_rng(0)
    broken.change_masks(root, lambda label: draw.integers(0, 3, label.shape).astype(np.uint8))
    assert "data.accept=[smoothed_mask]" in check_only_error(examine(root), "smoothed_mask").repair


def test_images_without_any_mask_are_not_called_unreadable(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path)
    for folder in ("train", "val"):
        (root / folder / "masks").rename(root / folder / "truth")
    assert all("there is no image with a mask" in finding.repair for finding in examine(root).errors)


def test_one_smoothed_mask_of_three_classes_is_named(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path, classes=3)
    # class 0 and 2 touch: 1 appears between them
    (path,) = broken.change_masks(root, lambda label: broken.enlarge((label > 1) * np.uint8(2)), "train/masks/003.png")
    assert check_only_error(examine(root), "smoothed_mask").files == (path,)


def test_thin_structures_are_not_taken_for_smoothing(root: Path) -> None:
    def with_lines(label: np.ndarray) -> np.ndarray:
        label = label * 2
        label[::7] = 1
        return label

    broken.change_masks(root, with_lines)
    assert "smoothed_mask" not in {finding.kind for finding in examine(root).findings}


def test_jpeg_masks_are_found(root: Path) -> None:
    broken.jpeg_masks(root)
    kinds = {finding.kind: finding for finding in examine(root).errors}
    assert set(kinds) == {"lossy_mask", "black_white"}
    assert len(kinds["lossy_mask"].files) == 8
    assert "label_map" not in kinds["black_white"].repair, "a map alone would not read JPEG's in-between values"


def test_the_same_image_in_two_splits_is_leakage(root: Path) -> None:
    first, second = broken.leaked(root)
    finding = check_only_error(examine(root), "leakage")
    assert finding.files == (first, second)
    assert "val: val/images/100.png" in finding.details[0]


def test_leakage_is_seen_through_another_file_format(root: Path) -> None:
    broken.save(root / "val/images/100.bmp", broken.image_of(3))
    (root / "val/images/100.png").unlink()
    check_only_error(examine(root), "leakage")


def test_the_same_image_twice_in_a_split_is_a_warning(root: Path) -> None:
    broken.save(root / "train/images/001.png", broken.image_of(0))
    found = examine(root)
    assert found.ok
    assert [finding.kind for finding in found.warnings] == ["repeated_image"]


def test_classes_that_are_missing_are_warnings_per_split(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path, classes=3)
    (root / "classes.json").write_text('["ground", "disc", "other", "nowhere"]')
    broken.change_masks(root, lambda label: np.minimum(label, 1), "train/masks/*.png")
    broken.change_masks(root, lambda label: label * (label != 1), "val/masks/*.png")
    found = examine(root)
    assert found.ok
    faults = {(finding.kind, finding.fault) for finding in found.warnings}
    assert faults == {
        ("class_never_seen", "in no split: nowhere"),
        ("class_never_seen", "not in val: disc"),
        ("class_not_in_train", "in val, not in train: other"),
    }


def test_grey_images_among_color_ones_are_a_warning(root: Path) -> None:
    broken.save(root / "train/images/001.png", broken.image_of(1)[..., 0])
    (finding,) = examine(root).findings
    assert (finding.kind, finding.severity) == ("mixed_channels", "warning")
    assert finding.files == (root / "train/images/001.png",)


def make_grey(root: Path, numbers: range) -> None:
    for number in numbers:
        broken.save(root / f"train/images/{number:03d}.png", broken.image_of(number)[..., 0])


def test_data_check_names_the_channels_that_a_mixed_set_is_read_with(root: Path) -> None:
    make_grey(root, range(5))
    (finding,) = examine(root).findings
    assert create_dataset(DataConfig(name="folder", root=str(root)), "train").channels == 3
    assert "are read with 3 channels" in finding.fault
    assert {path.name for path in finding.files} == {f"{number:03d}.png" for number in range(5)}
    assert finding.details[0] == "1 channel"


def test_colour_behind_the_headers_that_are_read_is_told_to_become_grey(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", {"train": 18, "val": 2})
    make_grey(root, range(16))
    (finding,) = examine(root).findings
    assert create_dataset(DataConfig(name="folder", root=str(root)), "train").channels == 1
    assert "are read with 1 channel;" in finding.fault
    assert 'say what is meant: "data.channels=3"' in finding.repair


@pytest.mark.parametrize("channels", [1, 3])
def test_a_recipe_that_says_its_channels_is_not_asked_for_them(channels: int, root: Path) -> None:
    make_grey(root, range(5))
    assert not examine(DataConfig(name="folder", root=str(root), channels=channels)).findings


def test_a_half_turn_in_exif_cannot_be_judged_and_is_a_warning(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    broken.save(root / "train/images/001.png", broken.image_of(1), exif=exif)
    (finding,) = examine(root).findings
    assert (finding.kind, finding.severity) == ("exif_unclear", "warning")


def test_codes_with_gaps_are_a_warning_with_a_label_map(root: Path) -> None:
    broken.change_masks(root, lambda label: label * 100)
    (finding,) = [found for found in examine(root).findings if found.kind == "sparse_codes"]
    assert '"data.label_map={0: 0, 100: 1}"' in finding.repair


def test_masks_without_a_second_class_are_an_error(root: Path) -> None:
    broken.change_masks(root, lambda label: label * 0)
    check_only_error(examine(root), "single_class")


def test_masks_of_a_kind_that_is_not_read_are_named(root: Path) -> None:
    path = root / "train/masks/001.gif"
    Image.open(root / "train/masks/001.png").save(path)
    (root / "train/masks/001.png").unlink()
    found = examine(root)
    check_only_error(found, "missing_mask")
    assert found.warnings[0].files == (path,)


def test_many_faults_at_once_are_all_found(root: Path) -> None:
    broken.out_of_range(root)
    broken.leaked(root)
    broken.truncated(root)
    broken.text_as_png(root)
    (root / "train/masks/004.png").unlink()
    found = examine(root, jobs=1)
    assert {finding.kind for finding in found.errors} == {
        "label_out_of_range",
        "leakage",
        "unreadable",
        "missing_mask",
    }
    unreadable = next(finding for finding in found.errors if finding.kind == "unreadable")
    assert len(unreadable.files) == 2


def test_a_folder_laid_out_otherwise_is_a_finding_that_says_what_is_expected(tmp_path: Path, root: Path) -> None:
    finding = check_only_error(examine(tmp_path), "layout")
    assert f"segatlas data check {root}" in finding.repair
    (tmp_path / "other").mkdir()
    assert "{images,masks}" in check_only_error(examine(tmp_path / "other"), "layout").repair


def test_a_missing_folder_of_masks_is_said(root: Path) -> None:
    for path in (root / "val/masks").iterdir():
        path.unlink()
    (root / "val/masks").rmdir()
    finding = check_only_error(examine(root), "missing_mask")
    assert "there is no folder" in finding.fault


def test_a_damaged_classes_file_does_not_stop_the_rest(root: Path) -> None:
    (root / "classes.json").write_text("{")
    broken.out_of_range(root)
    assert {finding.kind for finding in examine(root).errors} == {"classes_file", "label_out_of_range"}


def test_lists_are_checked_too(root: Path) -> None:
    (root / "train.csv").write_text("train/images/000.png,train/masks/000.png\n")
    (root / "val.csv").write_text("val/images/999.png,val/masks/100.png\n")
    cfg = DataConfig(root=str(root), lists={"train": "train.csv", "val": "val.csv"})
    found = examine(cfg)
    finding = check_only_error(found, "list")
    assert "999.png" in finding.fault
    assert found.splits == {"train": (1, 1)}


def test_a_list_that_is_missing_is_not_asked_to_be_corrected_in_a_line(root: Path) -> None:
    (root / "val.csv").write_text("val/images/100.png,val/masks/100.png\n")
    cfg = DataConfig(root=str(root), lists={"train": "nowhere.csv", "val": "val.csv"})
    (finding,) = (finding for finding in examine(cfg).errors if finding.kind == "list")
    assert finding.repair == f"put the list into {root}, or correct data.lists"


def test_one_split_can_be_looked_at_alone(root: Path) -> None:
    broken.truncated(root)
    assert examine(root, split="val").splits == {"val": (2, 2)}
    assert examine(root, split="val").ok
    with pytest.raises(UsageError, match=r"--split test: .* has train, val"):
        examine(root, split="test")


def test_a_missing_root_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        examine(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("write", "options", "name"),
    [
        (write_camvid, {}, "camvid"),
        (write_camvid, {"layout": "colour_folders"}, "camvid"),
        (write_camvid, {"layout": "original"}, "camvid"),
        (write_cityscapes, {}, "cityscapes"),
        (write_cityscapes, {"train_ids": True}, "cityscapes"),
        (write_voc, {}, "voc"),
    ],
)
def test_named_data_sets_in_their_own_layout_have_no_error(tmp_path: Path, write, options, name: str) -> None:
    write(tmp_path / "data", **options)
    found = examine(tmp_path / "data")
    # the fakes draw the same images for every split
    assert {finding.kind for finding in found.errors} <= {"leakage"}
    assert found.name == name
    pairs = [create_dataset(DataConfig(name=name, root=str(tmp_path / "data")), split) for split in ("train", "val")]
    assert [found.splits[split][1] for split in ("train", "val")] == [len(pair) for pair in pairs]


def test_a_damaged_camvid_names_every_fault(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_camvid(root)
    masks = sorted((root / "trainannot").iterdir())
    masks[0].unlink()
    label = np.array(Image.open(masks[1]))
    label[0, 0] = 77
    broken.save(masks[1], label)
    kinds = {finding.kind: finding for finding in examine(root).errors}
    assert set(kinds) - {"leakage"} == {"missing_mask", "label_out_of_range"}
    assert kinds["label_out_of_range"].files == (masks[1],)


def test_a_check_report_is_plain_json(root: Path) -> None:
    broken.leaked(root)
    record = json.loads(json.dumps(examine(root).to_dict()))
    assert record["ok"] is False
    assert record["findings"][0]["kind"] == "leakage"
    assert len(record["findings"][0]["files"]) == 2
    assert set(KINDS) >= {finding["kind"] for finding in record["findings"]}


def test_quick_check_finds_nothing_in_a_sound_set(root: Path) -> None:
    assert quick_check(create_dataset(DataConfig(root=str(root)), "train")) == []


def test_quick_check_names_bad_files_and_raises_nothing(root: Path) -> None:
    (root / "classes.json").write_text('["ground", "disc"]')
    dataset = create_dataset(DataConfig(root=str(root)), "train")
    mask = broken.out_of_range(root)
    image = broken.truncated(root)
    findings = quick_check(dataset)
    assert {finding.files for finding in findings} == {(mask,), (image,)}
    assert {finding.severity for finding in findings} == {"error"}


def test_quick_check_looks_at_no_more_samples_than_asked(root: Path) -> None:
    (root / "classes.json").write_text('["ground", "disc"]')
    dataset = create_dataset(DataConfig(root=str(root)), "train")
    broken.truncated(root)  # sample 1 of 6: not among first and last
    assert quick_check(dataset, count=2) == []


def test_quick_check_warns_of_smoothing_and_of_a_single_class(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path, classes=3)
    (root / "classes.json").write_text('["ground", "disc", "other"]')
    dataset = create_dataset(DataConfig(root=str(root)), "train")
    broken.change_masks(root, lambda label: broken.enlarge((label > 1) * np.uint8(2)))
    assert [finding.kind for finding in quick_check(dataset)] == ["smoothed_mask"]
    broken.change_masks(root, lambda label: label * 0)
    assert [finding.kind for finding in quick_check(dataset)] == ["single_class"]


def test_real_camvid_is_clean_and_quickly_checked() -> None:
    root = shared_data("camvid")
    found = examine(DataConfig(name="camvid", root=str(root)), split="val")
    assert found.findings == ()
    start = time.perf_counter()
    assert quick_check(create_dataset(DataConfig(name="camvid", root=str(root)), "train")) == []
    print(f"quick_check of 16 images: {time.perf_counter() - start:.2f} s")


def test_real_jpeg_masks_are_found() -> None:
    found = examine(shared_data("samples/kvasir/Kvasir-SEG"))
    assert [finding.kind for finding in found.errors] == ["lossy_mask", "black_white"]
