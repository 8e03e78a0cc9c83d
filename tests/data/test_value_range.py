"""12-bit values in 16-bit files, and others that do not fit the declared range: told with both numbers."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import Result
from fakes import broken
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.data.value_range import fitting_max, range_doubt, scale_fault
from segatlas.recipe import Config
from segatlas.training.building import build_parts


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def deep_set(root: Path, largest: int, counts: dict[str, int] | None = None) -> Path:
    """Write a set whose images are uint16 with values 0..largest, both included."""
    broken.write_sound(root, counts or {"train": 20, "val": 1})
    for number, path in enumerate(sorted(root.glob("*/images/*.png"))):
        values = np.random.default_rng(number).integers(0, largest + 1, (*broken.SIZE, 3)).astype(np.uint16)
        values[0, 0], values[0, 1] = 0, largest
        cv2.imwrite(str(path), values)
    return root


def float_set(root: Path, largest: float) -> Path:
    broken.write_sound(root, {"train": 3, "val": 1})
    for number, path in enumerate(sorted(root.glob("*/images/*.png"))):
        path.unlink()
        values = np.random.default_rng(number).random((*broken.SIZE, 3)).astype(np.float32) * np.float32(largest)
        values[0, 0] = largest
        tifffile.imwrite(path.with_suffix(".tif"), values, photometric="rgb")
    return root


def warnings_of(record: dict) -> list[dict]:
    return [finding for finding in record["findings"] if finding["kind"] == "value_range"]


def test_12_bits_in_16_are_told_by_check_and_gone_with_the_suggested_range(tmp_path: Path) -> None:
    root = deep_set(tmp_path / "set", 4095)
    record = json.loads(segatlas("data", "check", root, "--json").stdout)
    (finding,) = warnings_of(record)
    assert record["ok"] is True
    assert "found in 21 images is 4095, less than 1/8 of 65535" in finding["fault"]
    assert '"model.input.max_value=4095"' in finding["repair"]
    record = json.loads(segatlas("data", "check", root, "model.input.max_value=4095", "--json").stdout)
    assert warnings_of(record) == []


def test_values_above_the_declared_range_are_told_of_few_images_too(tmp_path: Path) -> None:
    root = deep_set(tmp_path / "set", 4095, {"train": 2, "val": 1})
    assert warnings_of(json.loads(segatlas("data", "check", root, "--json").stdout)) == []
    record = json.loads(segatlas("data", "check", root, "model.input.max_value=1023", "--json").stdout)
    assert "found in 3 images is 4095, above 1023" in warnings_of(record)[0]["fault"]


def test_stats_suggest_the_range_that_fits_and_warn_with_both_numbers(tmp_path: Path) -> None:
    root = deep_set(tmp_path / "set", 4095)
    result = segatlas("data", "stats", root, "--json")
    train = json.loads(result.stdout)["splits"]["train"]
    assert train["input"]["max_value"] == 4095
    assert train["input"]["mean"] == pytest.approx([0.5] * 3, abs=0.01)
    assert (train["largest_value"], "less than 1/8 of 65535" in train["range_warning"]) == (4095, True)
    assert "warning: the largest value found in 20 images is 4095" in result.stderr


def test_the_first_lines_of_train_tell_it_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = deep_set(tmp_path / "set", 4095)
    settings = {"model": {"name": "unet", "width": 4}, "data": {"root": str(root), "store": "off"}}
    for value, told in ((65535, ["1/8 of 65535"]), (255, ["1/8 of 65535"]), (1023, ["above 1023"]), (4095, [])):
        caplog.clear()
        build_parts(Config.load(settings, f"model.input={{max_value: {value}}}"), dry=True)
        messages = [record.getMessage() for record in caplog.records if "largest value" in record.getMessage()]
        assert len(messages) == len(told)
        assert all(text in message for text, message in zip(told, messages, strict=True))


@pytest.mark.parametrize(("largest", "expected", "told"), [(1.0, 1, True), (255.0, 255, False), (9000.0, 16383, True)])
def test_stats_of_float_images_suggest_their_range(tmp_path: Path, largest: float, expected: int, told: bool) -> None:
    root = float_set(tmp_path / "set", largest)
    record = json.loads(segatlas("data", "stats", root, "--json").stdout)["splits"]["train"]
    assert record["input"]["max_value"] == expected
    assert (record["range_warning"] is not None) == told


def messages_of_train(root: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    settings = {"model": {"name": "unet", "width": 4}, "data": {"root": str(root), "store": "off"}}
    build_parts(Config.load(settings), dry=True)
    return [record.getMessage() for record in caplog.records if "value found" in record.getMessage()]


def test_16_bit_images_of_full_range_raise_no_doubt_with_the_default_range(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = deep_set(tmp_path / "set", 65535)
    assert messages_of_train(root, caplog) == []
    assert warnings_of(json.loads(segatlas("data", "check", root, "--json").stdout)) == []


def test_check_and_train_tell_floats_of_0_to_1_that_would_be_divided_by_255(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = float_set(tmp_path / "set", 1.0)
    (message,) = messages_of_train(root, caplog)
    (finding,) = warnings_of(json.loads(segatlas("data", "check", root, "--json").stdout))
    assert "found in 4 images is 1, less than 1/8 of 255" in finding["fault"]
    assert finding["fault"].partition(", the default")[0] in message
    assert all("model.input.max_value=1" in text for text in (message, finding["repair"]))
    record = json.loads(segatlas("data", "check", root, "model.input.max_value=1", "--json").stdout)
    assert warnings_of(record) == []


def test_a_split_on_another_scale_than_the_others_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = float_set(tmp_path / "set", 255.0)
    for path in root.glob("val/images/*.tif"):
        tifffile.imwrite(path, tifffile.imread(path) / np.float32(255), photometric="rgb")
    (message,) = messages_of_train(root, caplog)
    (finding,) = warnings_of(json.loads(segatlas("data", "check", root, "--json").stdout))
    assert finding["fault"].startswith("split val: the largest value found in 1 images is 1, less than 1/8 of 255")
    assert finding["fault"] in message


def test_values_far_below_0_are_told_as_pixels_without_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = float_set(tmp_path / "set", 255.0)
    path = next(root.glob("train/images/*.tif"))
    values = tifffile.imread(path)
    values[3, 4] = -3.4e38
    tifffile.imwrite(path, values, photometric="rgb")
    (message,) = messages_of_train(root, caplog)
    assert f"{path}: the smallest value found in 4 images is -3.4e+38" in message
    (finding,) = warnings_of(json.loads(segatlas("data", "check", root, "--json").stdout))
    assert "mark the pixels 255" in finding["repair"]
    result = segatlas("data", "stats", root, "--json")
    assert "smallest value" in json.loads(result.stdout)["splits"]["train"]["range_warning"]


@pytest.mark.parametrize(
    ("depth", "lowest", "highest", "max_value", "fault"),
    [
        ("float32", -9999, 254, 255, "if it means 'no data'"),
        ("float32", -25, -0.1, 255, "another scale"),
        ("float32", -25, -0.1, 1, ""),  # decibels, for a model of decibels
        ("float32", -1024, 200, 255, ""),
        ("float32", 0, 0, 255, ""),
        ("uint16", 0, 0, 255, ""),
        ("float32", 0, 1, 255, "0..1"),
    ],
)
def test_an_image_is_told_where_it_cannot_be_on_the_scale_of_the_model(
    depth: str, lowest: float, highest: float, max_value: float, fault: str
) -> None:
    found = scale_fault(depth, lowest, highest, max_value)
    assert (fault in found, bool(found)) == (True, bool(fault))


def test_8_bit_images_keep_255_and_dark_ones_are_told() -> None:
    assert fitting_max("uint8", 9) == 255
    assert range_doubt("uint8", 19, 9, None) is None
    assert range_doubt("uint8", 20, 9, None) is not None
    assert range_doubt("uint8", 20, 32, None) is None
    assert [fitting_max("uint16", value) for value in (1000, 4000, 8000, 60000)] == [1023, 4095, 16383, 65535]
