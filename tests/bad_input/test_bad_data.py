"""Datasets with wrong labels, sizes, counts and layouts through train, eval and --dry-run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes.bad_files import noise
from fakes.folder import write_folder
from fakes.images import blocks, save_codes
from fakes.model import make_model
from PIL import Image


def masks(root: Path, split: str = "*") -> list[Path]:
    return sorted(root.glob(f"{split}/masks/*.png"))


def test_a_mask_of_another_size_is_named_with_both_sizes(train, folder):
    mask = masks(folder, "train")[1]
    save_codes(mask, blocks(0, (0, 1, 2), (30, 48)))
    result = train(folder)
    assert result.exit_code == 1
    image = folder / "train" / "images" / "001.png"
    assert f"error: {mask}: mask is 48 x 30 pixels, its image {image} is 48 x 32" in result.stderr


def test_a_mask_of_another_size_is_left_out_by_eval_and_named(segatlas, model, folder, tmp_path):
    mask = masks(folder, "val")[0]
    save_codes(mask, blocks(0, (0, 1, 2), (30, 48)))
    result = segatlas("eval", model, "--data", folder, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert record["images"] == 1
    assert record["skipped"][0].startswith(f"{mask}: mask is 48 x 30 pixels")


def test_label_89_in_a_two_class_set_is_named_with_its_pixels(train, folder):
    label = blocks(1, (0, 1), (32, 48))
    for mask in masks(folder):
        save_codes(mask, label)
    label[:2, :3] = 89
    save_codes(masks(folder, "train")[2], label)
    result = train(folder, "data.classes=[no, yes]")
    assert result.exit_code == 1
    fault = "label 89 (6 pixels) in a set of 2 classes; expected 0..1, or 255 for ignore"
    assert f"error: {masks(folder, 'train')[2]}: {fault}" in result.stderr


def test_black_and_white_masks_are_refused_with_the_repair(train, folder, tmp_path):
    for mask in masks(folder):
        save_codes(mask, blocks(1, (0, 255), (32, 48)))
    result = train(folder)
    assert result.exit_code == 1
    assert '"data.label_map={0: 0, 255: 1}"' in result.stderr
    assert not (tmp_path / "run").exists()
    assert train(folder, "data.label_map={0: 0, 255: 1}").exit_code == 0


def test_two_classes_train(train, folder, tmp_path):
    for mask in masks(folder):
        save_codes(mask, blocks(1, (0, 1), (32, 48)))
    result = train(folder)
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "run" / "model" / "card.json").read_text())["classes"]) == 2


@pytest.mark.slow
def test_254_classes_train_and_predict(segatlas, train, folder, tmp_path):
    for mask in masks(folder):
        save_codes(mask, blocks(1, range(254), (32, 48)))
    result = train(folder)
    assert result.exit_code == 0, result.output
    assert len(json.loads((tmp_path / "run" / "model" / "card.json").read_text())["classes"]) == 254
    result = segatlas("predict", tmp_path / "run", folder / "val" / "images", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert np.asarray(Image.open(tmp_path / "out" / "100_mask.png")).max() < 254


@pytest.mark.parametrize("count", [254, 255])
def test_254_and_255_classes_make_a_training_step(train, folder, count):
    for mask in masks(folder):
        save_codes(mask, blocks(1, range(count), (32, 48)))
    result = train(folder, "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"{count} classes" in result.stdout


def test_255_classes_are_predicted_and_written_as_their_own_numbers(segatlas, tmp_path):
    net = make_model(tmp_path / "net", classes=tuple(f"c{i}" for i in range(255)))
    Image.fromarray(noise()).save(tmp_path / "a.png")
    result = segatlas("predict", net, tmp_path / "a.png", "--out", tmp_path / "out", "--save", "mask")
    assert result.exit_code == 0, result.output
    mask = np.asarray(Image.open(tmp_path / "out" / "a_mask.png"))
    assert mask.shape == (32, 48)
    assert mask.max() < 255


def test_more_than_255_classes_are_refused_where_they_are_counted_or_named(train, folder, tmp_path):
    Image.fromarray(blocks(0, (0, 1, 300), (32, 48)).astype(np.uint16)).save(masks(folder, "train")[0])
    result = train(folder)
    assert result.exit_code == 1
    assert f"error: {masks(folder, 'train')[0]}: label 300 would make 301 classes, at most 255 are" in result.stderr
    result = train(folder, f"data.classes={[f'c{i}' for i in range(256)]}")
    assert result.exit_code == 2
    assert "256 classes; at most 255 are possible" in result.stderr
    (folder / "classes.txt").write_text("\n".join(f"c{i}" for i in range(256)))
    result = train(folder)
    assert result.exit_code == 1
    assert f"{folder / 'classes.txt'}: names 256 classes, at most 255 are possible" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_named_before_a_run_exists(train, folder, tmp_path, split):
    for path in (folder / split).rglob("*.png"):
        path.unlink()
    (folder / "val" / "images").mkdir(exist_ok=True)
    result = train(folder)
    if split == "train":
        assert result.exit_code == 1
        assert "split 'train' is empty: expected images in train/images/" in result.stderr
        assert "splits with images: val" in result.stderr
        assert not (tmp_path / "run").exists()
    else:  # without a val part, a fraction of train is held out and named
        assert result.exit_code == 1
        assert f"{folder / 'val' / 'images'}: split val has no image" in result.stderr
        assert not (tmp_path / "run").exists()
        shutil.rmtree(folder / "val")
        result = train(folder)
        assert result.exit_code == 0, result.output
        assert "held 1 of 4 out of train" in " ".join(result.stderr.split())


def test_an_empty_split_in_eval_writes_no_report(segatlas, model, folder, tmp_path):
    result = segatlas("eval", model, "--data", folder, "--split", "test", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "split 'test' is empty" in result.stderr
    assert not list((tmp_path / "out").rglob("*.*"))


def test_one_single_image_is_a_clear_error(train, tmp_path):
    root = write_folder(tmp_path / "set", counts={"train": 1})
    result = train(root)
    assert result.exit_code == 1
    assert "split 'val' is empty" in result.stderr


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_of_a_split_without_one_label_are_refused_before_a_run_exists(train, folder, tmp_path, split):
    for mask in masks(folder, split):
        save_codes(mask, np.full((32, 48), 255))
    result = train(folder, "data.classes=[a, b, c]")
    assert result.exit_code == 1
    assert f"no pixel of the {len(masks(folder, split))} masks of {split} is labelled" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_root_of_another_layout_says_what_was_found_and_expected(train, tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    result = train(tmp_path / "set")
    assert result.exit_code == 1
    assert "is not laid out as data.name=folder: expected train/images/ and train/masks/" in result.stderr
    assert "it holds images/" in result.stderr


def test_a_missing_root_names_the_nearest_folder(train, folder):
    result = train(folder.with_name("sett"))
    assert result.exit_code == 1
    assert "data.root is missing; the nearest name there is set" in result.stderr


def test_a_broken_mask_does_not_keep_eval_from_the_other_images(segatlas, model, folder, tmp_path):
    for path in (masks(folder, "train")[0], folder / "train" / "images" / "000.png"):
        path.write_bytes(b"")
    result = segatlas("eval", model, "--data", folder, "--split", "val", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 2
    result = segatlas("eval", model, "--data", folder, "--split", "train", "--out", tmp_path / "other", "--json")
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout)["images"] == 3


def test_images_of_mixed_channels_name_the_one_that_does_not_fit(train, folder):
    import tifffile

    path = folder / "train" / "images" / "000.png"
    path.unlink()
    tifffile.imwrite(path.with_suffix(".tif"), np.zeros((5, 32, 48), np.uint8), photometric="minisblack")
    result = train(folder)
    assert result.exit_code == 1
    assert "000.tif: has 5 channels, expected 3" in result.stderr
