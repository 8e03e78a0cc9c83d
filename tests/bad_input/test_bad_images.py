"""Bad and odd image files through predict, eval and train."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from fakes.bad_files import BAD_IMAGES, cut, noise, write_bad_images
from fakes.folder import write_folder
from fakes.model import make_model
from PIL import Image


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def replace(path: Path, kind: str) -> Path:
    """Put a bad file of that kind in the place of an image."""
    path.unlink()
    bad = path.with_suffix(Path(kind).suffix)
    bad.write_bytes(BAD_IMAGES[kind][0]())
    return bad


def spoken(text: str) -> str:
    """Return a text without the white space that wrapping lines puts in."""
    return "".join(text.split())


@pytest.mark.parametrize("batch", [1, 3])
def test_predict_writes_the_good_images_of_a_folder_and_names_every_bad_one(segatlas, model, tmp_path, batch):
    images, out = tmp_path / "in", tmp_path / "out"
    faults = write_bad_images(images)
    for name in ("a_good.png", "i_good.png", "z_good.png"):
        Image.fromarray(noise()).save(images / name)
    result = segatlas("predict", model, images, "--out", out, "--save", "mask", "--json", "--batch", batch)
    assert result.exit_code == 1
    assert files(out) == ["a_good_mask.png", "i_good_mask.png", "z_good_mask.png"]
    record = json.loads(result.stdout)
    assert record["predicted"] == 3
    told = {Path(fault["source"]).name: fault["error"] for fault in record["failed"]}
    assert told.keys() == faults.keys()
    for name, fault in faults.items():
        assert fault in told[name]
        assert name in told[name]
        assert f"failed: {told[name]}" in result.stderr
    assert "3 images predicted, 7 failed" in result.stderr


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_predict_of_one_bad_file_writes_nothing(segatlas, model, tmp_path, kind):
    write_bad_images(tmp_path / "in")
    target = tmp_path / "out" / "mask.png"
    result = segatlas("predict", model, "--input", tmp_path / "in" / kind, "--output", target)
    assert result.exit_code == 1
    assert f"{kind}: " in result.output
    assert BAD_IMAGES[kind][1] in result.output
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_train_names_a_broken_image_before_a_run_exists(train, folder, tmp_path, split):
    image = sorted((folder / split / "images").iterdir())[1]
    bad = replace(image, "half_jpeg.jpg")
    result = train(folder)
    assert result.exit_code == 1
    assert f"error: {bad}: cannot be decoded, is the file truncated or damaged?" in result.stderr
    assert "segatlas data check" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1], ids=["main process", "loader process"])
def test_train_names_a_broken_image_that_the_first_look_missed_in_its_own_words(train, tmp_path, workers):
    root = write_folder(tmp_path / "set", counts={"train": 40, "val": 1}, size=(32, 48))
    bad = replace(root / "train" / "images" / "001.png", "half_jpeg.jpg")
    result = train(root, f"data.workers={workers}", "train.batch=12", "transforms.crop=[8, 8]")
    assert result.exit_code == 1
    assert f"error: {bad}: cannot be decoded, is the file truncated or damaged?" in result.stderr
    assert "worker" not in result.stderr
    assert (tmp_path / "run" / "log.txt").exists()
    assert not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_dry_run_names_every_kind_of_broken_image_and_writes_nothing(train, folder, tmp_path, kind):
    bad = replace(folder / "train" / "images" / "000.png", kind)
    result = train(folder, "--dry-run", "train.batch=4")
    assert result.exit_code == 1
    assert str(bad) in result.stderr
    assert BAD_IMAGES[kind][1] in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_broken_validation_image_that_the_first_look_missed_is_named(train, tmp_path):
    root = write_folder(tmp_path / "set", counts={"train": 2, "val": 24}, size=(8, 8))
    bad = replace(root / "val" / "images" / "101.png", "half_png.png")
    result = train(root, "transforms.crop=[8, 8]")
    assert result.exit_code == 1
    assert f"error: {bad}: cannot be decoded" in result.stderr


def test_eval_scores_the_good_images_and_reports_the_bad_ones(segatlas, model, tmp_path):
    root = write_folder(tmp_path / "set", counts={"val": 4})
    bad = [
        replace(root / "val" / "images" / "000.png", "half_png.png"),
        replace(root / "val" / "images" / "002.png", "text.png"),
        root / "val" / "masks" / "003.png",
    ]
    bad[2].write_bytes(cut("PNG"))
    result = segatlas("eval", model, "--data", root, "--out", tmp_path / "out", "--json", "--device", "cpu")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert record["images"] == 1
    assert [fault.partition(": ")[0] for fault in record["skipped"]] == [str(path) for path in bad]
    for path in bad:
        assert f"skipped:{path}:" in spoken(result.stderr)
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["skipped"] == record["skipped"]


def test_eval_without_one_good_image_says_so_and_writes_no_report(segatlas, model, tmp_path):
    root = write_folder(tmp_path / "set", counts={"val": 2})
    for name in ("000.png", "001.png"):
        replace(root / "val" / "images" / name, "empty.png")
    result = segatlas("eval", model, "--data", root, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 1
    assert "no image of split 'val' could be scored" in result.stderr
    assert "0 bytes" in result.stderr
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_one_pixel_and_extreme_ratios_are_predicted_in_their_own_size(segatlas, model, tmp_path, size):
    Image.fromarray(noise(size)).save(tmp_path / "odd.png")
    save = "mask,color,overlay,boundary,confidence,json"
    result = segatlas("predict", model, tmp_path / "odd.png", "--out", tmp_path / "out", "--save", save)
    assert result.exit_code == 0, result.output
    assert len(files(tmp_path / "out")) == 6
    assert np.asarray(Image.open(tmp_path / "out" / "odd_mask.png")).shape == size


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1)])
def test_one_pixel_and_extreme_ratios_train_and_validate(train, tmp_path, size):
    root = write_folder(tmp_path / "set", counts={"train": 2, "val": 1}, size=size)
    result = train(root, "data.classes=[a, b, c]", "train.steps=1", "train.epochs=null")
    assert result.exit_code == 0, result.output


def test_every_kind_of_image_is_predicted_alike(segatlas, model, tmp_path):
    """Grey, RGBA, 16-bit, palette, WebP, TIFF and EXIF-turned copies of one grey image give one and the same mask."""
    grey = noise()[..., 0]
    images = tmp_path / "in"
    images.mkdir()
    image = Image.fromarray(grey)
    image.convert("RGB").save(images / "rgb.png")
    image.save(images / "grey.png")
    rgba = image.convert("RGBA")
    rgba.putalpha(7)
    rgba.save(images / "rgba.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(images / "deep.png")
    image.convert("RGB").quantize(256).save(images / "palette.png")
    image.convert("RGB").save(images / "webp.webp", lossless=True)
    image.convert("RGB").save(images / "tiff.tif")
    tifffile.imwrite(images / "deep_tiff.tif", np.stack([grey.astype(np.uint16) * 257] * 3, axis=-1))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.convert("RGB").rotate(90, expand=True).save(images / "turned.png", exif=exif)
    result = segatlas("predict", model, images, "--out", tmp_path / "out", "--save", "mask", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert len(files(tmp_path / "out")) == 9
    expected = np.asarray(Image.open(tmp_path / "out" / "rgb_mask.png"))
    assert expected.shape == grey.shape
    assert len(np.unique(expected)) > 1
    for path in (tmp_path / "out").iterdir():
        assert (np.asarray(Image.open(path)) == expected).mean() > 0.999, path.name


def test_an_image_of_other_channels_than_the_model_s_is_named_with_both_counts(segatlas, tmp_path):
    net = make_model(tmp_path / "net", in_channels=5)
    Image.fromarray(noise()).save(tmp_path / "rgb.png")
    result = segatlas("predict", net, tmp_path / "rgb.png", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "rgb.png: the model expects 5 channels, the image has 3" in result.output
    assert files(tmp_path / "out") == []


def to_tiff(root: Path, channels: int) -> None:
    """Replace the images of a folder set by TIFFs of that many channels."""
    for path in sorted(root.rglob("images/*.png")):
        image = np.asarray(Image.open(path))
        stack = np.stack([np.roll(image[..., i % 3], i // 3, axis=0) for i in range(channels)])
        tifffile.imwrite(path.with_suffix(".tif"), stack, photometric="minisblack", planarconfig="separate")
        path.unlink()


def test_five_channel_tiffs_train_evaluate_and_predict_without_a_word_in_the_recipe(segatlas, train, folder, tmp_path):
    to_tiff(folder, 5)
    result = train(folder)
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert card["config"]["in_channels"] == card["inputs"][0]["channels"] == len(card["preprocessing"]["mean"]) == 5
    result = segatlas("predict", tmp_path / "run", folder / "val" / "images", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(files(tmp_path / "out")) == 4


def test_16_bit_images_train_validate_and_predict_as_their_8_bit_copies_do(segatlas, train, folder, tmp_path):
    """max_value stays 255: what a 16-bit image means is one rule for training, validation and prediction."""
    deep = tmp_path / "deep"
    write_folder(deep, counts={"train": 4, "val": 2})
    for path in sorted(deep.rglob("images/*.png")):
        image = np.asarray(Image.open(path)).astype(np.uint16) * 257
        tifffile.imwrite(path.with_suffix(".tif"), image)
        path.unlink()
    numbers = []
    for root, name in ((folder, "shallow_run"), (deep, "deep_run")):
        result = train(root, f"run.dir={tmp_path / name}", "transforms.flip=0.5", "--json")
        assert result.exit_code == 0, result.output
        numbers.append(json.loads(result.stdout.splitlines()[-1])["miou"])
        rows = (tmp_path / name / "metrics.csv").read_text().splitlines()[1:]
        numbers.append([float(row.split(",")[3] or "nan") for row in rows])
    assert numbers[0] == pytest.approx(numbers[2], abs=1e-3)
    np.testing.assert_allclose(numbers[1], numbers[3], rtol=1e-4)


def test_the_api_raises_data_errors_that_carry_the_file(model, tmp_path):
    import segatlas as sa

    predictor = sa.load(str(model))
    for name, fault in write_bad_images(tmp_path).items():
        with pytest.raises(sa.errors.DataError, match=fault) as stop:
            predictor.predict(tmp_path / name)
        assert stop.value.path == tmp_path / name
    with pytest.raises(sa.errors.DataError, match="0 bytes"):
        list(predictor.predict_iter([tmp_path / "empty.png"]))
