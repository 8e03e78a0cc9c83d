"""12-bit values in 16-bit files, and others that do not fit the declared range: told with both numbers."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from fakes import broken
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.data.value_range import fitting_max, range_doubt
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
    import tifffile

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
    for value, told in ((65535, ["less than 1/8 of 65535"]), (255, ["above 255"]), (4095, [])):
        caplog.clear()
        build_parts(Config.load(settings, f"model.input={{max_value: {value}}}"), dry=True)
        messages = [record.getMessage() for record in caplog.records if "largest value" in record.getMessage()]
        assert len(messages) == len(told)
        assert all(text in message for text, message in zip(told, messages, strict=True))


@pytest.mark.parametrize(("largest", "expected", "told"), [(1.0, 1, False), (255.0, 255, True), (9000.0, 16383, True)])
def test_stats_of_float_images_suggest_their_range(tmp_path: Path, largest: float, expected: int, told: bool) -> None:
    root = float_set(tmp_path / "set", largest)
    record = json.loads(segatlas("data", "stats", root, "--json").stdout)["splits"]["train"]
    assert record["input"]["max_value"] == expected
    assert (record["range_warning"] is not None) == told


def test_8_bit_images_keep_255_and_dark_ones_are_told() -> None:
    assert fitting_max("uint8", 9) == 255
    assert range_doubt("uint8", 19, 9, None) is None
    assert range_doubt("uint8", 20, 9, None) is not None
    assert range_doubt("uint8", 20, 32, None) is None
    assert [fitting_max("uint16", value) for value in (1000, 4000, 8000, 60000)] == [1023, 4095, 16383, 65535]
