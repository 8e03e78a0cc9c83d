import csv
import io
import json
import struct
import zlib
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.cli.predict import parse_window, plan_jobs
from segatlas.errors import UsageError
from segatlas.inference import runner
from segatlas.output import ending_of
from segatlas.tasks import TASKS

KINDS = TASKS["semantic"].writers
CLASSES, PALETTE = ("sky", "road", "car"), ((0, 0, 200), (90, 90, 90), (200, 0, 0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import torch

    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "net"
    save_pretrained(create_model("unet", num_classes=3, width=4), folder, classes=CLASSES, palette=PALETTE)
    return str(folder)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for index, name in enumerate(["a.png", "b.jpg", "deep/a.png"]):
        save_image(folder / name, seed=index)
    return folder


def save_image(path, size=(13, 22), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
    return path


def segatlas(*words):
    return CliRunner().invoke(app, ["predict", "--device", "cpu", *map(str, words)])


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def mask(path):
    return np.asarray(Image.open(path))


def expected_mask(model, path, **options):
    from segatlas.inference import load

    return load(model, device="cpu", **options).predict(path).semantic


def test_every_kind_of_result_is_written_in_the_image_s_size(model, images, tmp_path):
    out = tmp_path / "out"
    result = segatlas(model, images / "a.png", "--out", out, "--save", ",".join(KINDS))
    assert result.exit_code == 0, result.output
    of_images = [f"a{ending_of(kind)}" for kind in KINDS if kind != "csv"]
    assert files(out) == sorted([*of_images, "areas.csv"])
    labels = expected_mask(model, images / "a.png")
    assert np.array_equal(mask(out / "a_mask.png"), labels)
    assert np.array_equal(mask(out / "a_color.png"), np.array(PALETTE, np.uint8)[labels])
    for name in ("a_boundary.png", "a_confidence.png"):
        assert mask(out / name).shape == (13, 22, 3)
    assert mask(out / "a_overlay.png").shape[0] > 13


def test_masks_are_index_pngs_with_the_card_s_palette(model, images, tmp_path):
    segatlas(model, images / "a.png", "--out", tmp_path / "out", "--save", "mask")
    image = Image.open(tmp_path / "out" / "a_mask.png")
    assert image.mode == "P"
    assert tuple(image.getpalette()[3:6]) == PALETTE[1]


def test_json_lists_pixels_and_fractions_that_sum_to_the_image(model, images, tmp_path):
    segatlas(model, images / "a.png", "--out", tmp_path / "out", "--save", "json,confidence")
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["size"] == {"height": 13, "width": 22}
    assert record["model"] == model
    assert record["source"] == str(images / "a.png")
    assert sum(entry["pixels"] for entry in record["classes"]) == 13 * 22
    assert sum(entry["fraction"] for entry in record["classes"]) == pytest.approx(1, abs=1e-5)
    assert {entry["name"] for entry in record["classes"]} <= set(CLASSES)
    assert 1 / 3 <= record["mean_confidence"] <= 1


def test_a_folder_is_read_with_all_below_and_keeps_its_sub_folders(model, images, tmp_path):
    (images / "notes.txt").write_text("no image")
    result = segatlas(model, images, "--out", tmp_path / "out", "--save", "mask")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == ["a_mask.png", "b_mask.png", "deep/a_mask.png"]
    assert "3 images predicted" in result.output


def test_globs_and_files_may_be_mixed(model, images, tmp_path):
    result = segatlas(model, images / "**" / "a.*", images / "b.jpg", "--out", tmp_path / "out", "--save", "mask")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == ["a_mask.png", "b_mask.png", "deep/a_mask.png"]


def test_results_of_an_earlier_call_below_the_images_are_not_taken_for_images(model, images):
    for _ in range(2):
        result = segatlas(model, images, "--out", images / "out", "--save", "mask")
        assert "3 images predicted" in result.output


def test_a_bad_file_is_reported_the_rest_goes_on_and_the_exit_code_is_1(model, images, tmp_path):
    (images / "b.jpg").write_bytes(b"")
    (images / "text.png").write_text("no image")
    result = segatlas(model, images, "--out", tmp_path / "out", "--save", "mask", "--json", "--batch", "2")
    assert result.exit_code == 1
    assert files(tmp_path / "out") == ["a_mask.png", "deep/a_mask.png"]
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["predicted"] == 2
    assert sorted(fault["source"] for fault in last["failed"]) == [str(images / "b.jpg"), str(images / "text.png")]
    assert "b.jpg" in result.stderr
    assert "2 failed" in result.stderr


def test_images_are_counted_on_one_line(model, images, tmp_path):
    result = segatlas(model, images, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    assert line.startswith("3 images predicted in ")
    assert line.endswith(f"-> {tmp_path / 'out'}")


def test_json_line_is_the_only_line_on_stdout(model, images, tmp_path):
    result = segatlas(model, images, "--out", tmp_path / "out", "--json")
    assert len(result.stdout.splitlines()) == 1
    assert json.loads(result.stdout)["failed"] == []


def test_bf16_tells_how_many_labels_are_those_of_fp32(model, images, tmp_path, monkeypatch):
    (images / "a.png").write_bytes(b"")  # the first good image is taken
    options = ("--out", tmp_path / "out", "--save", "mask", "--precision", "bf16")
    monkeypatch.setattr(runner, "processor_has_bf16", lambda: True)
    result = segatlas(model, images, *options, "--json")
    assert 0.9 < json.loads(result.stdout)["bf16_agreement"] <= 1
    assert "of the first image's pixels have the label of fp32" in result.stderr
    monkeypatch.setattr(runner, "processor_has_bf16", lambda: False)
    result = segatlas(model, images, *options, "--json")
    assert json.loads(result.stdout)["bf16_agreement"] is None


def test_one_image_goes_to_exactly_the_file_named(model, images, tmp_path):
    target = tmp_path / "new" / "result.png"
    result = segatlas(model, "--input", images / "a.png", "--output", target, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.output == ""
    assert files(tmp_path / "new") == ["result.png"]
    assert np.array_equal(mask(target), expected_mask(model, images / "a.png"))


def test_tta_and_windows_reach_the_predictor(model, images, tmp_path):
    words = ["--tta", "flips,scales:0.5,1", "--window", "8x12", "--overlap", "0.5", "--save", "mask"]
    result = segatlas(model, images / "a.png", "--out", tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    wanted = expected_mask(model, images / "a.png", tta="flips,scales:0.5,1", window=(8, 12), overlap=0.5)
    assert np.array_equal(mask(tmp_path / "out" / "a_mask.png"), wanted)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (3000, 2)])
def test_one_pixel_and_extreme_ratios_give_every_kind_of_result(model, tmp_path, size):
    path = save_image(tmp_path / "odd.png", size=size)
    result = segatlas(model, path, "--out", tmp_path / "out", "--save", ",".join(KINDS))
    assert result.exit_code == 0, result.output
    assert mask(tmp_path / "out" / "odd_mask.png").shape == size


def bomb():
    """A PNG whose header promises 60000 x 60000 pixels."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


@pytest.mark.parametrize(
    "content", [b"", b"text", bomb(), b"\xff\xd8\xff\xe0 cut"], ids=["empty", "text", "bomb", "cut"]
)
def test_a_file_that_is_no_good_image_is_named_and_leaves_nothing(model, tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    result = segatlas(model, path, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.png" in result.output
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.png", "--out", "out"], "no such file or folder: nowhere.png"),
        (["empty", "--out", "out"], "no images in empty"),
        (["images/*.tif", "--out", "out"], "no images in images/*.tif"),
        (["images"], "give --out DIR"),
        (["--out", "out"], "which images?"),
        (["images", "--out", "images"], "is the folder of the images"),
        (["images", "--out", "a_file"], "cannot write to the folder a_file"),
        (["images", "--out", "a_file/deep"], "cannot write to the folder a_file/deep"),
        (["images/a.png", "--out", "taken"], "taken/a_mask.png is a folder"),
        (["images", "--out", "out", "--device", "tpu"], "expected auto, cpu"),
        (["images", "--out", "out", "--precision", "fp8"], "expected fp32 or bf16"),
        (["images", "--out", "out", "--save", "json", "--format", "cityscapes-ids"], "--save json writes none"),
        (["--input", "images/a.png", "--output", "m.png", "--save", "json"], "write the mask alone"),
        (["images", "--out", "out", "--save", "masks"], "'masks', expected some of mask,"),
        (["images", "--out", "out", "--save", ","], "nothing to write"),
        (["images", "--out", "out", "--tta", "mirror"], "'mirror' is not known"),
        (["images", "--out", "out", "--window", "big"], "'big', expected pixels"),
        (["images", "--out", "out", "--overlap", "0.5"], "overlap: needs a window, or a model of objects"),
        (["images", "--out", "out", "--score", "0.5", "--top", "3"], "score, top: is for models of objects"),
        (["images", "--out", "out", "--score", "1.5"], "score: got 1.5, expected 0 to 1"),
        (["images", "--out", "out", "--zip", "a.zip"], "add --format cityscapes-ids"),
        (
            ["images", "--out", "out", "--format", "cityscapes-ids", "--zip", "a.zip"],
            "a.png is not called as images of Cityscapes are",
        ),
        (["", "--out", "out"], "is a variable of the shell empty?"),
        (["images", "--out", "out", "--format", "coco"], "'coco', expected one of index"),
        (["images", "--out", "out", "--format", "cityscapes-ids"], "needs a model of the 19 Cityscapes classes"),
        (
            ["images", "--out", "out", "--aux", "prior=images"],
            "a source 'prior' is given, which the model does not take; besides the image the model takes nothing",
        ),
        (["images", "--out", "out", "--aux", "prior=x.png"], "no such file or folder"),
        (["images", "--out", "out", "--aux", "prior"], "--aux prior: no such file or folder"),
        (["images", "--out", "out", "--aux", "a=images", "--aux", "a=images"], "a is given twice"),
        (["images", "--out", "out", "--aux", "a=images/a.png"], "one file for"),
        (["images", "--out", "out", "--aux", "a=twin"], "(3 of 4 images have none)"),
        (["images/a.png", "twin/a.png", "--out", "out"], "would both be written to out/a_*"),
        (["images/a.png", "images/a_mask.png", "--out", "images"], "would be overwritten"),
        (["images", "--out", "out", "--input", "images/a.png", "--output", "m.png"], "give either SOURCE"),
        (["--input", "images/a.png"], "belong together"),
        (["--input", "images/a.png", "--output", "m.jpg"], "does not end in .png"),
        (["--input", "nowhere.png", "--output", "m.png"], "no such file: nowhere.png"),
    ],
)
def test_wrong_words_end_with_code_2_before_anything_is_written(model, images, monkeypatch, words, message):
    monkeypatch.chdir(images.parent)
    (images.parent / "empty").mkdir()
    (images.parent / "a_file").write_text("")
    (images.parent / "taken" / "a_mask.png").mkdir(parents=True)
    save_image(images.parent / "twin" / "a.png")
    save_image(images / "a_mask.png")
    before = files(images.parent)
    result = segatlas(model, *words)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert files(images.parent) == before
    assert not (images.parent / "out").exists()


def test_cityscapes_ids_are_written_for_a_model_of_its_19_classes(images, tmp_path):
    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained
    from segatlas.data.datasets import cityscapes

    folder = tmp_path / "city"
    save_pretrained(create_model("unet", num_classes=19, width=4), folder, classes=cityscapes.CLASSES)
    words = ["--out", tmp_path / "out", "--save", "mask", "--format", "cityscapes-ids"]
    result = segatlas(folder, images / "a.png", *words)
    assert result.exit_code == 0, result.output
    labels = expected_mask(folder, images / "a.png")
    assert np.array_equal(mask(tmp_path / "out" / "a_mask.png"), cityscapes.to_label_ids(labels))


def test_a_submission_is_one_zip_of_label_ids_called_as_the_images(tmp_path):
    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained
    from segatlas.data.datasets import cityscapes

    folder, test = tmp_path / "city", tmp_path / "test"
    save_pretrained(create_model("unet", num_classes=19, width=4), folder, classes=cityscapes.CLASSES)
    for number, city in enumerate(("berlin", "bonn")):
        save_image(test / city / f"{city}_000000_00001{number}_leftImg8bit.png")
    words = ["--out", tmp_path / "out", "--save", "mask", "--format", "cityscapes-ids", "--zip", tmp_path / "all.zip"]
    result = segatlas(folder, test, *words)
    assert result.exit_code == 0, result.output
    assert "2 masks in" in result.output
    with ZipFile(tmp_path / "all.zip") as archive:
        names = archive.namelist()
        assert names == ["berlin_000000_000010_leftImg8bit.png", "bonn_000000_000011_leftImg8bit.png"]
        stored = np.array(Image.open(io.BytesIO(archive.read(names[0]))))
    labels = expected_mask(folder, test / "berlin" / names[0])
    assert np.array_equal(stored, cityscapes.to_label_ids(labels))
    before = (tmp_path / "all.zip").read_bytes()
    assert segatlas(folder, test, *words).exit_code == 0
    assert (tmp_path / "all.zip").read_bytes() == before
    (test / "bonn" / "bonn_000000_000011_leftImg8bit.png").write_bytes(b"no image")
    (tmp_path / "all.zip").unlink()
    result = segatlas(folder, test, *words)
    assert result.exit_code == 1
    assert "is not written: 1 of 2 images failed" in result.output
    assert not (tmp_path / "all.zip").exists()


def test_an_image_named_twice_is_predicted_once(images, tmp_path):
    jobs = plan_jobs([str(images / "a.png"), str(images / "a.png"), str(images)], tmp_path / "out")
    assert [job.name for job in jobs] == ["a", "b", "deep/a"]


def test_one_file_named_in_two_places_of_the_output_is_written_to_both(model, images, tmp_path):
    result = segatlas(model, images, images / "deep", "--out", tmp_path / "out", "--save", "mask")
    assert result.exit_code == 2
    save_image(images / "deep" / "c.png")
    (images / "deep" / "a.png").unlink()
    result = segatlas(model, images, images / "deep", "--out", tmp_path / "out", "--save", "mask", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["predicted"] == 4
    assert files(tmp_path / "out") == ["a_mask.png", "b_mask.png", "c_mask.png", "deep/c_mask.png"]


def test_images_that_differ_in_their_ending_only_are_refused(images, tmp_path):
    save_image(images / "a.jpg")
    with pytest.raises(UsageError, match=r"a\.jpg and .*a\.png would both be written"):
        plan_jobs([str(images)], tmp_path / "out")


def test_a_window_is_one_number_or_height_x_width():
    assert parse_window("512") == 512
    assert parse_window("512x1024") == (512, 1024)
    for text in ("0", "512x", "1x2x3", "-4"):
        with pytest.raises(UsageError):
            parse_window(text)


@pytest.mark.parametrize("pixel_size", ["", "0.5m"])
def test_areas_of_all_images_stand_in_one_table(model, images, tmp_path, pixel_size):
    options = ["--pixel-size", pixel_size] if pixel_size else []
    result = segatlas(model, images, "--out", tmp_path / "out", "--save", "csv", *options)
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == ["areas.csv"]
    with (tmp_path / "out" / "areas.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["file"], row["class"]) for row in rows] == [
        (name, of_class) for name in ("a.png", "b.jpg", "deep/a.png") for of_class in CLASSES
    ]
    for row in rows:
        pixels = int((expected_mask(model, images / row["file"]) == int(row["class_index"])).sum())
        assert (int(row["pixels"]), float(row["fraction"])) == (pixels, round(pixels / (13 * 22), 6))
        assert row.get("area_m2") == (str(pixels / 4) if pixel_size else None)


def test_the_table_of_areas_has_the_images_that_could_be_read(model, images, tmp_path):
    (images / "b.jpg").write_bytes(b"none")
    assert segatlas(model, images, "--out", tmp_path / "out", "--save", "csv").exit_code == 1
    table = (tmp_path / "out" / "areas.csv").read_text()
    assert "deep/a.png" in table
    assert "b.jpg" not in table


def test_a_pixel_s_size_is_used_or_refused(model, images, tmp_path):
    words = (images / "a.png", "--out", tmp_path / "out", "--pixel-size", "0.5m")
    for more, kinds in ((), "mask,overlay do not"), (("--save", "mask"), "mask does not"):
        refused = segatlas(model, *words, *more)
        assert refused.exit_code == 2
        assert f"--pixel-size 0.5m: json,csv say areas, {kinds}; add --save csv" in " ".join(refused.stderr.split())
    assert segatlas(model, *words, "--save", "json").exit_code == 0
    first = json.loads((tmp_path / "out" / "a.json").read_text())["classes"][0]
    assert first["area_m2"] == first["pixels"] / 4
