"""What `data check` calls an error stops `train` and its dry run before a run folder exists; what it passes, trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fakes import broken
from fakes.cityscapes import write_cityscapes
from fakes.voc import write_voc
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import KINDS, examine, look_before_training
from segatlas.data.checks.headers import equal_files

SETTINGS = (
    "data.workers=0",
    "model={name: unet, width: 4}",
    "transforms={crop: [32, 32]}",
    "train={epochs: 1, batch: 2, lr: 1e-2, device: cpu, threads: 1}",
    "eval={boundary: false, sizes: false}",
    "log={every: 1, tensorboard: false, samples: 1}",
)
WARNINGS_ONLY = {
    "missing_image",
    "file_without_image",
    "not_read",
    "exif_unclear",
    "sparse_codes",
    "repeated_image",
    "value_range",
    "class_never_seen",
    "class_not_in_train",
    "nothing_labelled",
    "region_without_label",
    "contradiction",
    "weak_scores",
    "box_cut",
    "source_empty",
    "place_mismatch",
}
OBJECTS = ("data.name=shapes", "model={name: center, width: 4}")
NAMED = "data.classes=[ground, disc]"
"""Named classes spare training the count of them, which would meet most faults of masks first."""

BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "layout": (broken.other_layout, ()),
    "list": (lambda root: (root / "train.csv").write_text("gone.png,gone.png\n"), ("data.lists={train: train.csv}",)),
    "classes_file": (broken.damaged_classes, ()),
    "no_image": (broken.without_images, ()),
    "empty_split": (partial(broken.empty_split, split="val"), ()),
    "missing_split": (broken.without_train, ()),
    "unreadable": (broken.truncated, (NAMED,)),
    "too_large": (broken.bomb, (NAMED,)),
    "missing_mask": (broken.missing_mask, (NAMED,)),
    "duplicate_stem": (broken.duplicate_stem, (NAMED,)),
    "size_mismatch": (broken.half_size, (NAMED,)),
    "exif_turn": (broken.exif_turned, (NAMED,)),
    "lossy_mask": (broken.jpeg_masks, (NAMED,)),
    "smoothed_mask": (broken.smoothed, (NAMED,)),
    "color_mask": (broken.colored, (NAMED,)),
    "black_white": (broken.black_white, (NAMED,)),
    "label_out_of_range": (broken.out_of_range, (NAMED,)),
    "single_class": (broken.single_class, ()),
    "no_label": (broken.without_labels, (NAMED,)),
    "leakage": (broken.repeated_in_val, ()),
    "mixed_channels": (broken.other_channels, (NAMED,)),
    "mixed_depth": (broken.deep_image, ()),
    "source_mismatch": (broken.half_size_before, ("data.name=pairs", NAMED)),
    "source_codes": (broken.prior_of_another_class, ("data.name=pairs", "data.sources={prior: label}", NAMED)),
    "source_channels": (broken.grey_before, ("data.name=pairs", "data.sources={before: map}", NAMED)),
    "missing_file": (broken.missing_objects, OBJECTS),
    "unusable": (broken.unknown_object, OBJECTS),
    "no_object": (broken.without_objects, OBJECTS),
    "bad_box": (broken.empty_box, ("data.name=weak",)),
}
"""Kind of finding -> what breaks a sound set that way, and further words."""

FURTHER: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "an_empty_file": (broken.empty_file, ()),
    "text_as_png": (broken.text_as_png, (NAMED,)),
    "no_val": (broken.without_val, ()),
    "some_masks_of_0_and_255": (broken.mixed_black_white, ()),
    "val_without_labels": (lambda root: broken.without_labels(root, "val"), ()),
    "one_leaked_image": (broken.leaked, ()),
}

OF_OBJECTS = {
    "annotation_file",
    "area_mismatch",
    "bad_annotation",
    "duplicate_id",
    "empty_object",
    "overlap",
    "polygon_outside",
    "repeated_object",
    "unknown_class",
    "unknown_image",
    "unlisted_segment",
}
"""Faults of single objects and of lists of them: their broken sets are in `fakes.broken_coco`, and what training says
of them in `tests/bad_input/test_bad_objects.py`."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return broken.write_sound(tmp_path / "data")


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def train(root: Path, *words: object) -> Result:
    places = (f"run.dir={root.parent / 'run'}", f"run.root={root.parent / 'runs'}", f"data.root={root}")
    recipe = root.parent / "recipe.yaml"
    recipe.write_text("seed: 3\n")
    return segatlas("train", "--config", recipe, *places, *SETTINGS, *words)


def test_every_kind_that_can_be_an_error_has_a_broken_set_here() -> None:
    assert set(BROKEN) | WARNINGS_ONLY | OF_OBJECTS == set(KINDS)


@pytest.mark.parametrize("case", [*BROKEN, *FURTHER])
def test_what_check_calls_an_error_stops_training_before_a_run_folder_exists(root: Path, case: str) -> None:
    breaks, words = {**BROKEN, **FURTHER}[case]
    breaks(root)
    record = json.loads(segatlas("data", "check", root, *words, "--json").stdout)
    kinds = {finding["kind"] for finding in record["findings"] if finding["severity"] == "error"}
    assert record["ok"] is False
    assert case in kinds or case in FURTHER
    for mode in ((), ("--dry-run",)):
        result = train(root, *words, *mode)
        assert result.exit_code == 1, result.output
        assert "error: " in result.stderr
        assert "unexpected" not in result.stderr
        assert not (root.parent / "run").exists()
        assert not (root.parent / "runs").exists()


def test_a_sound_set_trains_and_says_how_much_was_looked_at(root: Path) -> None:
    assert segatlas("data", "check", root).exit_code == 0
    result = train(root)
    assert result.exit_code == 0, result.output
    assert "headers of 16 files (images and truths of all splits) and 8 decoded samples show no error" in " ".join(
        result.stderr.split()
    )


@pytest.mark.parametrize("breaks", [broken.missing_image, lambda root: broken.leaked(root)])
def test_what_is_a_warning_to_check_or_accepted_by_name_trains(root: Path, breaks) -> None:
    breaks(root)
    word = "data.accept=[leakage]"
    assert segatlas("data", "check", root, word).exit_code == 0
    assert train(root, word, "--dry-run").exit_code == 0


def test_grey_images_among_colour_ones_are_one_line_of_a_training_with_their_number(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        path = root / f"train/images/00{number}.png"
        broken.save(path, np.asarray(Image.open(path).convert("L")))
    assert "train/images/001.png" in segatlas("data", "check", root).stdout
    for mode in ((), ("--dry-run",)):
        caplog.clear()
        assert train(root, *mode).exit_code == 0
        told = "data: 3 images have other channels: images are read with 3 channels; these are converted to that"
        assert [record.getMessage() for record in caplog.records if "channels" in record.getMessage()] == [told]


def test_faults_beyond_the_sample_are_found_by_headers_and_bytes(root: Path) -> None:
    """Two samples a split are decoded: the first and the last."""
    cfg = DataConfig(root=str(root), classes=("ground", "disc"))
    parts = [create_dataset(cfg, split) for split in ("train", "val")]
    assert look_before_training(cfg, parts, count=2).findings == ()
    for breaks in (broken.leaked, broken.deep_image, broken.half_size, broken.bomb):
        broken.write_sound(root)
        breaks(root)
        errors = {finding.kind: finding.files for finding in look_before_training(cfg, parts, count=2).errors}
        assert errors == {finding.kind: finding.files for finding in examine(cfg).errors}


def test_one_labelled_pixel_in_the_last_mask_is_found(root: Path) -> None:
    broken.without_labels(root)
    label = np.full(broken.SIZE, 255, np.uint8)
    label[3, 4] = 1
    broken.save(root / "train/masks/003.png", label)
    cfg = DataConfig(root=str(root), classes=("ground", "disc"))
    parts = [create_dataset(cfg, split) for split in ("train", "val")]
    assert look_before_training(cfg, parts, count=2).errors == ()
    assert examine(cfg).errors == ()


@pytest.mark.parametrize(("write", "name"), [(write_voc, "voc"), (write_cityscapes, "cityscapes")])
def test_a_named_set_is_refused_alike(tmp_path: Path, write, name: str) -> None:
    root = write(tmp_path / "data")
    assert examine(root).ok
    assert train(root, f"data.name={name}", "--dry-run").exit_code == 0
    if name == "voc":
        next(root.rglob("ImageSets/Segmentation/val.txt")).unlink()
    else:
        (root / "leftImg8bit/val").rename(root / "leftImg8bit/later")
    assert [finding.kind for finding in examine(root).errors] == ["missing_split"]
    assert train(root, f"data.name={name}", "--dry-run").exit_code == 1


def test_files_of_equal_bytes_are_found_among_files_of_equal_length(tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    other = bytearray(content)
    other[9000] ^= 1  # in none of the three pieces
    for name, data in (("a.png", content), ("b.png", bytes(other)), ("c.png", content), ("d.png", content[:-1])):
        (tmp_path / name).write_bytes(data)
    found = equal_files([tmp_path / f"{name}.png" for name in "abcd"], 2)
    assert set(found) == {tmp_path / "a.png", tmp_path / "c.png"}
    assert len(set(found.values())) == 1


def test_a_batch_norm_that_would_get_one_value_is_told_before_a_run_folder_exists(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "data", counts={"train": 1, "val": 1})
    words = (NAMED, "model={name: unet, encoder: resnet18_w8}")  # its stride of 32 leaves one pixel of a crop of 32
    for mode in ((), ("--dry-run",)):
        result = train(root, *words, *mode)
        assert result.exit_code == 2, result.output
        assert "of which the batch norm encoder.layer4.0." in result.stderr
        assert "gets one value a channel at a size of 32 x 32" in result.stderr
        assert not (tmp_path / "run").exists()
    assert train(root, *words, "transforms={crop: [64, 64]}", "--dry-run").exit_code == 0


def test_the_look_for_single_values_leaves_network_and_random_numbers_as_they_were(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from segatlas.config.schema import TrainConfig
    from segatlas.training.consulting import _norm_of_one_value

    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert _norm_of_one_value(net, torch.rand(1, 3, 8, 8, generator=torch.Generator()), TrainConfig()) == ""
    assert _norm_of_one_value(net, torch.rand(1, 3, 1, 1, generator=torch.Generator()), TrainConfig()) == "1"
    assert torch.equal(torch.rand(3), expected)
    assert not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def with_alpha(root: Path, kind: str) -> None:
    """Give all images an alpha channel: a channel of its own, or one that a palette holds."""
    for path in sorted(root.glob("*/images/*.png")):
        array = np.asarray(Image.open(path).convert("RGB"))
        if kind == "tif":
            path.unlink()
            path = path.with_suffix(".tif")
        array = np.dstack([array, array[..., 0] // 2 + 64])
        image = Image.fromarray(array).convert("LA" if kind == "grey" else "RGBA")
        image.quantize(16).save(path) if kind == "palette" else image.save(path)


@pytest.mark.parametrize(("kind", "channels"), [("png", 4), ("tif", 4), ("grey", 2), ("palette", 4)])
def test_alpha_that_is_asked_for_is_a_channel_for_check_and_train(tmp_path: Path, kind: str, channels: int) -> None:
    root = broken.write_sound(tmp_path / "set")
    with_alpha(root, kind)
    ends = f"mean: {[0.5] * channels}, std: {[0.2] * channels}"
    words = (f"data.channels={channels}", "model.input={" + ends + "}")
    checked = segatlas("data", "check", root, *words)
    assert checked.exit_code == 0, checked.output
    trained = train(root, *words, "--dry-run")
    assert trained.exit_code == 0, trained.output
    assert f"images (2, {channels}, 32, 32)" in trained.output
    assert segatlas("data", "check", root, *words, "--fix", tmp_path / "copy").exit_code == 0
    assert segatlas("data", "check", tmp_path / "copy", *words).exit_code == 0
