"""The repaired copy of each broken folder has no error, and holds what it should."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import broken
from fakes.ade20k import write_ade20k
from fakes.camvid import write_camvid
from fakes.cityscapes import write_cityscapes
from fakes.folder import write_folder
from fakes.voc import write_voc
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import FIXES_FILE, examine, repair
from segatlas.data.checks.convert import to_cityscapes_ids, to_folder
from segatlas.data.checks.snapping import snap
from segatlas.data.formats import read_image, read_mask
from segatlas.data.formats.classes import read_classes
from segatlas.data.formats.images import write_image
from segatlas.data.formats.masks import write_mask
from segatlas.errors import DataError, UsageError
from segatlas.recipe import Config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return broken.write_sound(tmp_path / "data")


def fixed(root: Path) -> Path:
    return repair(examine(root), root.parent / "fixed")


def fixes(out: Path) -> list[dict]:
    return json.loads((out / FIXES_FILE).read_text())["files"]


def content(root: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "breaks",
    [
        broken.out_of_range,
        broken.black_white,
        broken.colored,
        broken.smoothed,
        broken.jpeg_masks,
        broken.missing_mask,
        broken.missing_image,
        broken.empty_file,
        broken.truncated,
        broken.text_as_png,
        broken.bomb,
        broken.half_size,
        broken.other_ratio,
        broken.exif_turned,
        broken.leaked,
        broken.duplicate_stem,
        broken.empty_split,
        broken.deep_image,
    ],
)
def test_a_repaired_copy_has_no_error_and_the_source_is_untouched(root: Path, breaks) -> None:
    breaks(root)
    before = content(root)
    out = fixed(root)
    assert content(root) == before
    again = examine(out)
    assert again.ok, again.errors
    assert again.splits["train"][0] >= 5
    for split in ("train", "val"):
        dataset = create_dataset(DataConfig(root=str(out)), split)
        assert {int(v) for i in range(len(dataset)) for v in np.unique(dataset.load(i).label)} <= {0, 1, 255}


def test_a_sound_set_is_copied_bit_by_bit(root: Path) -> None:
    out = fixed(root)
    assert fixes(out) == []
    assert (out / "train/images/003.png").read_bytes() == (root / "train/images/003.png").read_bytes()
    assert (read_mask(out / "train/masks/003.png") == read_mask(root / "train/masks/003.png")).all()


def test_255_becomes_1(root: Path) -> None:
    broken.black_white(root)
    assert (read_mask(fixed(root) / "train/masks/003.png") == broken.label_of(3)).all()


def test_mixed_0_1_and_0_255_both_become_0_1(root: Path) -> None:
    broken.change_masks(root, lambda label: label * 255, "train/masks/00[01].png")
    out = fixed(root)
    assert (read_mask(out / "train/masks/000.png") == broken.label_of(0)).all()
    assert (read_mask(out / "train/masks/003.png") == broken.label_of(3)).all()


def test_colors_become_indices_and_their_table_is_written(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    broken.colored(root)
    out = fixed(root)
    table = json.loads((out / "classes.json").read_text())
    order = [tuple(entry["color"]) for entry in table]
    assert order == sorted(map(tuple, broken.COLORS.tolist()))
    labels = read_mask(out / "train/masks/002.png")
    assert (np.array(order)[labels] == broken.COLORS[broken.label_of(2, 3)]).all()


def test_declared_colors_keep_their_classes(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    broken.colored(root)
    names = ("ground", "red", "green")
    entries = [{"name": n, "color": c} for n, c in zip(names, broken.COLORS.tolist(), strict=True)]
    (root / "classes.json").write_text(json.dumps(entries))
    out = fixed(root)
    assert json.loads((out / "classes.json").read_text()) == entries
    assert (read_mask(out / "train/masks/002.png") == broken.label_of(2, 3)).all()


def test_smeared_masks_come_back_nearly_as_they_were(root: Path) -> None:
    broken.jpeg_masks(root)
    labels = read_mask(fixed(root) / "train/masks/003.png")
    assert (labels != broken.label_of(3)).mean() < 0.01


def test_smoothed_masks_of_three_classes_get_no_third_class_at_borders(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    broken.change_masks(root, lambda label: broken.enlarge((label > 1) * np.uint8(2)), "train/masks/003.png")
    out = fixed(root)
    assert set(np.unique(read_mask(root / "train/masks/003.png"))) == {0, 1, 2}
    assert set(np.unique(read_mask(out / "train/masks/003.png"))) == {0, 2}
    assert examine(out).ok


def test_colored_jpeg_masks_are_snapped_to_their_colors(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    broken.colored(root)
    for path in sorted(root.glob("*/masks/*.png")):
        broken.save(path.with_suffix(".jpg"), np.asarray(Image.open(path)), quality=90)
        path.unlink()
    out = fixed(root)
    assert examine(out).ok
    assert len(examine(out).classes) == 3


def test_snapping_takes_the_nearest_of_two_values() -> None:
    codes = np.array([[0, 3, 120, 140, 250, 255]], np.uint8)
    assert snap(codes, (0, 255), by_color=False, is_lossy=False).tolist() == [[0, 0, 0, 255, 255, 255]]


def test_snapping_among_many_takes_the_class_of_the_nearest_sure_pixel() -> None:
    codes = np.tile(np.array([0, 0, 0, 50, 100, 150, 200, 200, 200], np.uint8), (3, 1))
    assert snap(codes, (0, 100, 200), by_color=False, is_lossy=False)[1].tolist() == [0] * 5 + [200] * 4 or (
        snap(codes, (0, 100, 200), by_color=False, is_lossy=False)[1].tolist() == [0] * 4 + [200] * 5
    )


def test_a_mask_of_equal_ratio_is_resized_nearest_and_another_left_out(root: Path) -> None:
    broken.half_size(root)
    broken.save(root / "train/masks/002.png", broken.label_of(2)[:, :20])
    out = fixed(root)
    expected = cv2.resize(broken.label_of(1)[::2, ::2], (48, 40), interpolation=cv2.INTER_NEAREST_EXACT)
    assert (read_mask(out / "train/masks/001.png") == expected).all()
    assert not (out / "train/images/002.png").exists()
    entry = next(entry for entry in fixes(out) if "left_out" in entry)
    assert "another aspect ratio" in entry["left_out"]


def test_a_turned_image_and_its_mask_lie_alike_afterwards(root: Path) -> None:
    path = broken.exif_turned(root)
    out = fixed(root)
    image, label = read_image(out / "train/images/001.png"), read_mask(out / "train/masks/001.png")
    assert image.shape[:2] == label.shape == (48, 40)
    assert (image == read_image(path)).all()
    assert (label == np.rot90(broken.label_of(1), -1)).all()  # orientation 6: a quarter turn clockwise
    assert Image.open(out / "train/images/001.png").getexif().get(0x0112, 1) == 1


def test_an_image_in_two_splits_stays_in_the_later_one(root: Path) -> None:
    broken.leaked(root)
    out = fixed(root)
    assert not (out / "train/images/003.png").exists()
    assert (out / "val/images/100.png").exists()
    (entry,) = fixes(out)
    assert entry["image"].endswith("train/images/003.png")
    assert "the same image is in val" in entry["left_out"]


def test_16_bit_among_8_bit_is_converted(root: Path) -> None:
    broken.deep_image(root)
    image = read_image(fixed(root) / "train/images/001.png")
    assert image.dtype == np.uint8
    assert (image == broken.image_of(1)[..., ::-1]).all()  # the fake writes through OpenCV's BGR


def test_every_left_out_file_is_named(root: Path) -> None:
    mask, image = broken.text_as_png(root), broken.missing_mask(root)
    entries = fixes(fixed(root))
    assert {entry.get("mask") or entry.get("file") for entry in entries} == {str(mask), str(image)}
    assert all(entry["left_out"] for entry in entries)


def test_an_existing_folder_or_one_inside_the_source_is_refused(root: Path, tmp_path: Path) -> None:
    found = examine(root)
    with pytest.raises(UsageError, match="lies in the dataset itself"):
        repair(found, root / "fixed")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        repair(found, tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_nothing_is_left_behind_where_nothing_can_be_repaired(root: Path, tmp_path: Path) -> None:
    for path in (root / "train/images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no pair of train would be left"):
        fixed(root)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("write", "name"),
    [(write_camvid, "camvid"), (write_cityscapes, "cityscapes"), (write_voc, "voc"), (write_ade20k, "ade20k")],
)
def test_a_named_set_becomes_a_folder_with_the_same_labels(tmp_path: Path, write, name: str) -> None:
    write(tmp_path / "data")
    cfg = DataConfig(name=name, root=str(tmp_path / "data"))
    counts = to_folder(cfg, tmp_path / "out")
    for split in ("train", "val"):
        source = create_dataset(cfg, split)
        copy = create_dataset(DataConfig(root=str(tmp_path / "out")), split)
        assert counts[split] == len(source) == len(copy)
        assert (copy.classes, copy.palette) == (source.classes, source.palette)
        labels = {copy.key(i): copy.load(i) for i in range(len(copy))}
        for i in range(len(source)):
            assert (labels[source.key(i)].label == source.load(i).label).all()
            assert (labels[source.key(i)].image == source.load(i).image).all()


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint16, 1), (np.uint8, 4), (np.float32, 2)])
def test_a_resized_copy_keeps_type_and_channels_and_takes_the_nearest_label(
    tmp_path: Path, dtype: type, channels: int
) -> None:
    values = np.arange(6 * 8, dtype=np.float64).reshape(6, 8, 1) * np.arange(1, channels + 1)
    for split in ("train", "val"):
        for part in ("images", "masks"):
            (tmp_path / "data" / split / part).mkdir(parents=True)
        write_image(tmp_path / "data" / split / "images/a.b", values.astype(dtype))
        write_mask(
            tmp_path / "data" / split / "masks/a.b.png", np.repeat(np.arange(3, dtype=np.uint8), 16).reshape(6, 8)
        )
    cfg = DataConfig(root=str(tmp_path / "data"), channels=channels)
    assert to_folder(cfg, tmp_path / "out", resize="3x4") == {"train": 1, "val": 1}
    sample = create_dataset(DataConfig(root=str(tmp_path / "out"), channels=channels), "train").load(0)
    assert sample.image.dtype == dtype
    means = values.reshape(3, 2, 4, 2, channels).mean(axis=(1, 3))
    assert np.abs(sample.image - means).max() <= (0 if dtype is np.float32 else 0.5)
    assert sample.label is not None
    assert sample.label.tolist() == [[0] * 4, [1] * 4, [2] * 4]
    with pytest.raises(UsageError, match="resize: 20000x20000"):
        to_folder(cfg, tmp_path / "large", resize="20000x20000")
    with pytest.raises(UsageError, match="resize: got 'half'"):
        to_folder(cfg, tmp_path / "half", resize="half")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_a_conversion_that_fails_leaves_nothing(root: Path, tmp_path: Path) -> None:
    broken.truncated(root)
    with pytest.raises(DataError, match=r"001.png"):
        to_folder(DataConfig(root=str(root)), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_predictions_become_cityscapes_label_ids(tmp_path: Path) -> None:
    broken.save(tmp_path / "in/aachen/a.png", np.array([[0, 1, 18, 255]], np.uint8))
    assert to_cityscapes_ids(tmp_path / "in", tmp_path / "out") == 1
    assert read_mask(tmp_path / "out/aachen/a.png").tolist() == [[7, 8, 33, 0]]
    broken.save(tmp_path / "in/b.png", np.array([[19]], np.uint8))
    with pytest.raises(DataError, match=r"b\.png: value 19 is not a train id"):
        to_cityscapes_ids(tmp_path / "in", tmp_path / "other")


def test_classes_txt_names_the_colors_and_the_copy_says_in_which_order(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    broken.colored(root)
    (root / "classes.txt").write_text("ground\ntree\ncar\n")
    out = fixed(root)
    assert [entry["name"] for entry in json.loads((out / "classes.json").read_text())] == ["ground", "tree", "car"]
    (note,) = json.loads((out / FIXES_FILE).read_text())["notes"]
    assert "in their order by R, G, B: ground (0,0,0), tree (30,180,90), car (200,30,60)" in note


def test_white_beside_as_many_colors_as_names_is_ignored(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    broken.colored(root)

    def rimmed(mask: np.ndarray) -> np.ndarray:
        mask = mask.copy()
        mask[:4] = 255
        return mask

    broken.change_masks(root, rimmed)
    (root / "classes.txt").write_text("ground\ntree\ncar\n")
    found = examine(root)
    assert "white is taken for 'ignore'" in found.errors[0].fault
    assert "'255,255,255': 255" in found.errors[0].repair
    out = fixed(root)
    labels = read_mask(out / "train/masks/002.png")
    assert (labels[:4] == 255).all()
    assert set(np.unique(labels[4:])) == {0, 1, 2}
    assert examine(out).classes == ("ground", "tree", "car")


def test_names_that_do_not_match_the_colors_in_number_are_not_used_and_told(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    broken.colored(root)
    (root / "classes.txt").write_text("tree\ncar\n")
    found = examine(root)
    assert "2 classes are named, but the masks show 3 colours" in found.errors[0].fault
    words = [word for word in found.errors[0].repair.splitlines()[0].split('"') if word.startswith("data.")]
    cured = Config.load({"data": {"root": str(root)}}, *words).data
    assert examine(cured).ok
    assert len(create_dataset(cured, "train").classes) == 3
    (note,) = json.loads((fixed(root) / FIXES_FILE).read_text())["notes"]
    assert "no name is given to any of them" in note


def test_a_color_table_beyond_the_named_classes_is_an_error_of_check_too(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    broken.colored(root)
    (root / "classes.txt").write_text("tree\ncar\n")
    table = {"0,0,0": 0, "30,180,90": 1, "200,30,60": 2}
    assert [finding.kind for finding in examine(DataConfig(root=str(root), label_colors=table)).errors] == [
        "label_out_of_range"
    ]


@pytest.mark.parametrize(
    "breaks", [broken.without_images, broken.without_train, broken.single_class, broken.without_labels]
)
def test_a_repair_is_offered_only_where_fix_writes_it(root: Path, breaks) -> None:
    (root / "classes.txt").write_text("ground\ndisc\n")
    breaks(root)
    found = examine(root)
    assert not any(finding.repair.endswith("--fix NEW_FOLDER") for finding in found.errors)
    assert not found.can_be_repaired


def test_what_cannot_be_repaired_is_said_in_place_of_the_command(root: Path) -> None:
    for path in (root / "train/images").iterdir():
        path.write_bytes(b"")
    found = examine(root)
    assert "by hand, for --fix can write no copy (no pair of train would be left)" in found.errors[0].repair
    assert not found.can_be_repaired


def test_a_repaired_copy_of_grey_and_colour_images_keeps_the_colours(root: Path) -> None:
    broken.black_white(root)
    for number in range(5):
        broken.save(root / f"train/images/{number:03d}.png", broken.image_of(number)[..., 0])
    out = fixed(root)
    assert np.array_equal(read_image(out / "train/images/005.png"), broken.image_of(5))
    assert np.array_equal(read_image(out / "train/images/000.png"), broken.image_of(0)[..., :1].repeat(3, axis=2))


def named_colors(root: Path) -> list[dict]:
    """Write colour masks and a `classes.json` whose order is not that of the colours by R, G, B."""
    broken.colored(root)
    ground, red, green = broken.COLORS.tolist()
    entries = [{"name": "red", "color": red}, {"name": "green", "color": green}, {"name": "ground", "color": ground}]
    (root / "classes.json").write_text(json.dumps(entries))
    return entries


def renumbered(number: int) -> np.ndarray:
    """Return the label of a mask in the order of `named_colors`."""
    return np.array([2, 0, 1], np.uint8)[broken.label_of(number, 3)]


def test_colors_of_classes_json_stand_where_white_is_left_over(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    entries = named_colors(root)

    def rimmed(mask: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full_like(mask[:4], 255), mask[4:]])

    broken.change_masks(root, rimmed)
    found = examine(root)
    assert "white is taken for 'ignore'" in found.errors[0].fault
    assert "in their order" not in found.errors[0].fault
    out = fixed(root)
    assert json.loads((out / "classes.json").read_text()) == entries
    labels = read_mask(out / "train/masks/002.png")
    assert (labels[:4] == 255).all()
    assert (labels[4:] == renumbered(2)[4:]).all()


def test_colors_of_classes_json_are_found_in_jpeg_masks(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    entries = named_colors(root)
    for path in sorted(root.glob("*/masks/*.png")):
        broken.save(path.with_suffix(".jpg"), np.asarray(Image.open(path)), quality=90)
        path.unlink()
    out = fixed(root)
    assert json.loads((out / "classes.json").read_text()) == entries
    assert (read_mask(out / "train/masks/002.png") == renumbered(2)).mean() > 0.95


def test_names_with_colors_of_their_own_are_given_to_no_others(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", classes=3)
    entries = named_colors(root)
    entries[0]["color"] = [1, 2, 3]
    (root / "classes.json").write_text(json.dumps(entries))
    found = examine(root)
    assert "none of the declared classes' (200,30,60)" in found.errors[0].fault
    assert found.classes == ("class_0", "class_1", "class_2")


def test_a_palette_with_indices_beyond_the_classes_is_not_copied_without_them(tmp_path):
    root = write_folder(tmp_path / "data", codes=(0, 1, 2))
    (root / "classes.txt").write_text("a\nb\n")
    for path in root.rglob("masks/*.png"):
        write_mask(path, read_mask(path).astype(np.uint8), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
    found = examine(root)
    assert "label_out_of_range" in {finding.kind for finding in found.errors}
    assert not found.can_be_repaired
    with pytest.raises(DataError, match=r"name the palette's colours in data\.label_colors"):
        repair(found, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_of_stated_colours_keeps_them_in_its_file_of_classes(tmp_path):
    root = write_folder(tmp_path / "data", codes=(0, 1))
    for path in root.rglob("masks/*.png"):
        colors = np.array([[10, 20, 30], [200, 30, 60]], np.uint8)[read_mask(path).astype(int)]
        Image.fromarray(colors).save(path)
    cfg = DataConfig(name="folder", root=str(root), label_colors={"200,30,60": 1, "10,20,30": 0, "1,1,1": 1})
    copy = repair(examine(cfg), tmp_path / "copy")
    assert read_classes(copy).colors == ((10, 20, 30), (200, 30, 60))
