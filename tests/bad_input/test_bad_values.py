"""Values that are no image for a model, or no class of a mask, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from click.testing import Result
from fakes.folder import write_folder
from PIL import Image

import segatlas
from segatlas.errors import DataError, UsageError

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (32, 48, 3)).astype(np.uint8)


def tiff(path: Path, array: np.ndarray) -> Path:
    tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack")
    return path


def with_nan(value: float = np.nan) -> np.ndarray:
    values = RGB.astype(np.float32)
    values[3, 7] = values[9, 2, 1] = value
    return values


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_pixels_that_are_no_numbers_are_refused_by_predict(tmp_path, segatlas, model, value, kind):
    path = tiff(tmp_path / "a.tif", with_nan(value))
    result = segatlas("predict", model, path, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"a.tif: 2 of 1536 pixels are {kind}, the first at row 3, column 7, channel 0" in result.output
    assert not list((tmp_path / "out").glob("*"))


def test_pixels_that_are_no_numbers_are_refused_by_check_stats_and_training(
    tmp_path, segatlas: Callable, folder, train
):
    for path in (folder / "train" / "images").iterdir():
        tiff(path.with_suffix(".tif"), with_nan())
        path.unlink()
    for words in (("data", "check", folder), ("data", "stats", folder)):
        result: Result = segatlas(*words)
        assert result.exit_code == 1
        assert "pixels are NaN" in " ".join(result.output.split())
        assert "nan," not in result.output
    result = train(folder)
    assert result.exit_code == 1
    assert "pixels are NaN" in " ".join(result.output.split())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_and_tensors_with_values_that_are_no_numbers_are_refused(model, value):
    predictor = segatlas.load(str(model), device="cpu")
    with pytest.raises(DataError, match="2 of 1536 pixels are"):
        predictor.predict(with_nan(value))
    with pytest.raises(DataError, match=r"float tensor with values|pixels are"):
        predictor.predict(torch.from_numpy(with_nan(value) / 255).permute(2, 0, 1))


def test_float_images_of_0_to_1_are_refused_until_their_full_scale_is_named(tmp_path, segatlas, model):
    path = tiff(tmp_path / "a.tif", RGB.astype(np.float32) / 255)
    result = segatlas("predict", model, path, "--out", tmp_path / "out", "--save", "mask")
    assert result.exit_code == 1
    assert "largest value 1 in float32; full scale of the model is 255: are these values 0..1?" in result.output
    assert "--max-value N" in result.output
    result = segatlas("predict", model, path, "--out", tmp_path / "out", "--save", "mask", "--max-value", "1")
    assert result.exit_code == 0
    Image.fromarray(RGB).save(tmp_path / "b.png")
    segatlas("predict", model, tmp_path / "b.png", "--out", tmp_path / "out", "--save", "mask")
    masks = [np.array(Image.open(tmp_path / "out" / f"{name}_mask.png")) for name in "ab"]
    assert (masks[0] == masks[1]).mean() > 0.999


def test_full_scale_is_checked_for_arrays_too_and_scales_them_right(model):
    predictor = segatlas.load(str(model), device="cpu")
    expected = predictor.predict(RGB).semantic
    twelve = (RGB.astype(np.uint16) * 16).astype(np.uint16)
    for array, full in ((RGB.astype(np.float32) / 255, 1.0), (twelve, 4080.0), (RGB.astype(np.uint16), 255.0)):
        with pytest.raises(DataError, match=r"largest value .*max_value=N"):
            predictor.predict(array)
        own = segatlas.load(str(model), device="cpu", max_value=full)
        assert (own.predict(array).semantic == expected).mean() > 0.999
    with pytest.raises(UsageError, match=r"max_value: got 1e\+300, expected a number from 1e-06 to 1e\+09"):
        segatlas.load(str(model), device="cpu", max_value=1e300)
    without_data = RGB.astype(np.float32)
    without_data[3, 4] = -3.4e38
    with pytest.raises(DataError, match=r"smallest value -3.4e\+38 .*'no data'"):
        predictor.predict(without_data)
    with pytest.raises(DataError, match=r"smallest value -3.4e\+38"):
        segatlas.load(str(model), device="cpu", max_value=255.0).predict(without_data)
    with pytest.raises(DataError, match=r"largest value 25\d, far above --max-value 1"):
        segatlas.load(str(model), device="cpu", max_value=1.0).predict(RGB)
    deep = RGB.astype(np.uint16) * 257
    assert (predictor.predict(deep).semantic == expected).all()
    assert (predictor.predict(np.zeros_like(deep)).semantic == predictor.predict(np.zeros_like(RGB)).semantic).all()


def test_masked_arrays_are_refused_where_they_hide_values_and_else_read_as_they_are(model):
    predictor = segatlas.load(str(model), device="cpu")
    with pytest.raises(DataError, match=r"masked array with \d+ masked values; array.filled"):
        predictor.predict(np.ma.masked_greater(RGB.astype(np.float32), 200))
    whole = np.ma.masked_array(RGB)
    assert (predictor.predict(whole).semantic == predictor.predict(RGB).semantic).all()


def test_16_bit_arrays_are_read_in_either_byte_order(model):
    predictor = segatlas.load(str(model), device="cpu")
    deep = RGB.astype(np.uint16) * 257
    assert (predictor.predict(deep.astype(">u2")).semantic == predictor.predict(deep).semantic).all()


@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta")])
def test_tensors_without_dense_values_are_refused_by_name(model, change):
    tensor = torch.from_numpy(RGB.astype(np.float32) / 255).permute(2, 0, 1)
    with pytest.raises(DataError, match="sparse or meta tensor"):
        segatlas.load(str(model), device="cpu").predict(change(tensor))


def test_evaluation_of_images_on_another_scale_says_so(tmp_path, segatlas, model):
    root = write_folder(tmp_path / "set", counts={"val": 2, "train": 2})
    for path in (root / "val" / "images").iterdir():
        tiff(path.with_suffix(".tif"), np.array(Image.open(path).convert("RGB")).astype(np.float32) / 255)
        path.unlink()
    quick = ("--device", "cpu", "--no-boundary", "--no-sizes")
    warned = segatlas("eval", model, "--data", root, *quick)
    assert "full scale of the model is 255" in " ".join(warned.output.split())
    scaled = segatlas("eval", model, "--data", root, *quick, "--max-value", "1")
    assert "full scale" not in scaled.output


def float_masks(root: Path, value: float) -> Path:
    for path in root.glob("*/masks/*.png"):
        codes = np.array(Image.open(path)).astype(np.float32)
        codes[:4] = value
        tifffile.imwrite(path.with_suffix(".tif"), codes)
        path.unlink()
    return root


def test_nan_in_masks_is_refused_until_ignore_names_it(folder, segatlas, train):
    float_masks(folder, np.nan)
    for run in (lambda *words: segatlas("data", "check", folder, *words), lambda *words: train(folder, *words)):
        result = run("data.classes=[a, b, c]")
        assert result.exit_code == 1
        assert "nan (192 pixels)" in result.output or "nan: 192 pixels" in result.output
        assert run("data.classes=[a, b, c]", "data.ignore=[255, nan]").exit_code == 0


def test_a_run_keeps_nan_in_its_own_recipe(folder, train, tmp_path):
    float_masks(folder, np.nan)
    assert train(folder, "data.classes=[a, b, c]", "data.ignore=[255, nan]").exit_code == 0
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "nan" in text
    assert segatlas.Config.load(str(tmp_path / "run" / "config.yaml")).data.ignore == (255, -(2**31))


def test_fractions_in_masks_are_refused_with_count_and_place(folder, segatlas):
    float_masks(folder, 0.5)
    result = segatlas("data", "check", folder, "data.ignore=[255, nan]")
    assert result.exit_code == 1
    assert "192 of 1536 pixels hold fractions" in " ".join(result.output.split())


def test_jpeg_masks_of_class_indices_are_an_error_until_they_are_asked_for(folder, segatlas, train):
    for path in folder.glob("*/masks/*.png"):
        Image.open(path).convert("L").point(lambda value: value * 60).save(path.with_suffix(".jpg"), quality=100)
        path.unlink()
    keys = ("data.classes=[a, b, c]", "data.label_map={0: 0, 60: 1, 120: 2}")
    checked = segatlas("data", "check", folder, *keys)
    assert checked.exit_code == 1
    assert "lossy" in checked.output
    assert "--fix" in checked.output
    trained = train(folder, *keys)
    assert trained.exit_code == 1
    assert "data.accept=[lossy_mask]" in " ".join(trained.output.split())
    accepted = train(folder, *keys, "data.accept=[lossy_mask]")
    assert accepted.exit_code == 0, accepted.output
