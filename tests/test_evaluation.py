"""`evaluate` on a network whose prediction is written into the images, so that every number is known beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.results import semantic_metrics, semantic_pair
from PIL import Image
from rich.console import Console
from torch import nn

from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.config.schema import DataConfig
from segatlas.errors import DataError, UsageError
from segatlas.evaluation import Report, evaluate, tables
from segatlas.evaluation.sources import find_run
from segatlas.inference import Predictor
from segatlas.metrics import MetricSet, load_metric
from segatlas.metrics.sections import ClassTable
from segatlas.structures import SemanticLogits
from segatlas.tasks import TASKS

CLASSES = ("sky", "road", "car")
PALETTE = ((0, 0, 200), (90, 90, 90), (200, 0, 0))


class RedChannel(nn.Module):
    """Predicts the class whose index is the red value."""

    def forward(self, images: torch.Tensor) -> SemanticLogits:
        index = (images[:, :1] * 255).round()
        logits = -(index - torch.arange(len(CLASSES)).view(1, -1, 1, 1)).abs()
        return SemanticLogits(logits, canvas=(images.shape[2], images.shape[3]))


def red_channel(classes: tuple[str, ...] = CLASSES, **facts: object) -> Predictor:
    plain = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    card = Card(architecture="unet", config={}, classes=classes, palette=PALETTE, preprocessing=plain, **facts)
    return Predictor(RedChannel(), card, device="cpu")


def maps(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (prediction, label) of one image."""
    generator = np.random.default_rng(seed)
    label = np.kron(generator.integers(0, 3, (size[0] // 4, size[1] // 4)), np.ones((4, 4))).astype(np.uint8)
    prediction = np.where(generator.random(label.shape) < 0.2 * seed, 1, label).astype(np.uint8)
    label[:2] = 255
    return prediction, label


def write_pair(root: Path, split: str, stem: str, prediction: np.ndarray, label: np.ndarray) -> None:
    for kind in ("images", "masks"):
        (root / split / kind).mkdir(parents=True, exist_ok=True)
    image = np.stack([prediction, np.full_like(prediction, 7), np.full_like(prediction, 99)], axis=2)
    Image.fromarray(image).save(root / split / "images" / f"{stem}.png")
    Image.fromarray(label).save(root / split / "masks" / f"{stem}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder dataset of three val images of two sizes, worse from one to the next."""
    for seed, size in enumerate([(24, 32), (40, 28), (24, 32)]):
        write_pair(tmp_path / "data", "val", f"p{seed}", *maps(seed, size))
        write_pair(tmp_path / "data", "train", f"t{seed}", *maps(seed, size))
    return tmp_path / "data"


def expected() -> MetricSet:
    metrics = semantic_metrics(CLASSES)
    for seed, size in enumerate([(24, 32), (40, 28), (24, 32)]):
        metrics.update(*semantic_pair(*maps(seed, size)))
    return metrics


def definitions() -> dict[str, str]:
    """What each number means, as the records of the task's metrics say, and the number of images."""
    records = [load_metric(name) for name in TASKS["semantic"].metrics]
    numbers = [number for record in records for number in (*record.numbers, record.image) if number]
    return {number.name: number.definition for number in numbers} | {"images": "Number of images counted."}


@pytest.fixture
def report(root: Path) -> Report:
    return evaluate(red_channel(), root, progress=False)


def test_scores_are_those_of_the_maps_in_the_files(report: Report) -> None:
    assert report.scores == expected().compute()
    assert np.array_equal(report.confusion, expected().state()["confusion.matrix"])
    assert 0.5 < report.miou < 1
    assert (report.data.name, report.data.split, report.data.images) == ("folder", "val", 3)


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_batch_size_changes_nothing(root: Path, report: Report, batch: int) -> None:
    other = evaluate(red_channel(), root, batch=batch, progress=False)
    assert other.scores == report.scores
    assert other.images == report.images


def test_images_come_in_order_and_the_worst_first(root: Path, report: Report) -> None:
    assert [image.key.split("/")[-1] for image in report.images] == ["p0", "p1", "p2"]
    alone = [semantic_metrics(CLASSES) for _ in range(3)]
    for seed, size in enumerate([(24, 32), (40, 28), (24, 32)]):
        alone[seed].update(*semantic_pair(*maps(seed, size)))
    assert [image.miou for image in report.images] == [metrics.compute().miou for metrics in alone]
    assert [Path(image.file).stem for image in report.worst] == ["p2", "p1", "p0"]
    two = evaluate(red_channel(), root, keep_worst=2, progress=False)
    assert [Path(image.file).stem for image in two.worst] == ["p2", "p1"]


def test_tta_and_window_reach_the_network_and_the_report(root: Path, report: Report) -> None:
    other = evaluate(red_channel(), root, tta="flips", window=16, progress=False)
    assert other.scores == report.scores  # the network looks at single pixels
    assert (other.settings.tta, other.settings.window) == (("flips",), (16, 16))
    assert (report.settings.tta, report.settings.window) == ((), None)
    slide = red_channel(inference=InferenceMode(mode="slide", crop=(16, 24), stride=(8, 8)))
    assert evaluate(slide, root, progress=False).settings.window == (16, 24)
    with pytest.raises(UsageError, match="spin"):
        evaluate(red_channel(), root, tta=("spin",), progress=False)


def test_parts_can_be_left_out(root: Path) -> None:
    lean = evaluate(red_channel(), root, boundary=False, sizes=False, progress=False)
    assert "mean_boundary_iou" not in lean.scores.summary()
    assert not [name for name in lean.definitions if "boundary" in name or "small" in name]


def test_split_and_recipe_decide_which_images_and_how(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{name: folder, root: {root}}}\neval: {{split: train, boundary: false, tta: [flips]}}\n")
    from_recipe = evaluate(red_channel(), recipe, progress=False)
    assert from_recipe.data.split == "train"
    assert from_recipe.scores.boundary_iou is None
    assert from_recipe.settings.tta == ("flips",)
    asked = evaluate(
        red_channel(), recipe, "val", boundary=True, tta=(), overrides=["eval.sizes=false"], progress=False
    )
    assert asked.data.split == "val"
    assert asked.scores.boundary_iou is not None
    assert (asked.settings.tta, asked.scores.recall_small) == ((), None)


def test_every_number_in_the_file_has_its_definition_and_undefined_ones_are_null(root: Path, tmp_path: Path) -> None:
    label = np.zeros((8, 8), np.uint8)
    write_pair(root, "test", "only_sky", label, label)
    report = evaluate(red_channel(), root, "test", progress=False)
    assert repr(report).startswith("Report((a Predictor): mean IoU ")
    assert repr(report).count("\n") == 0
    assert repr(report).endswith(f"% on test, {len(report.images)} images of {root})")
    path = report.to_json(tmp_path / "eval.json")
    stored = json.loads(path.read_text())
    numbers = {*stored["summary"], *stored["per_class"][0], *stored["images"][0]} - {"class", "key", "file"}
    assert numbers == set(stored["definitions"])
    assert stored["definitions"] == report.definitions
    assert stored["miou"] == 1
    assert stored["per_class"][2]["iou"] is None
    assert stored["confusion"] == [[64, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert "NaN" not in path.read_text()
    assert stored == report.to_dict()


def test_a_folder_gets_eval_json_and_no_temporary_file_stays(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert report.to_json(folder) == folder / "eval.json"
    assert [path.name for path in folder.iterdir()] == ["eval.json"]


def test_another_number_of_classes_is_an_error(root: Path) -> None:
    data = DataConfig(root=str(root), classes=("sky", "road", "car", "tree"))
    with pytest.raises(UsageError, match=r"4 classes \(sky, road, car, tree\), the model 3"):
        evaluate(red_channel(), data, progress=False)


def test_classes_that_were_never_predicted_are_a_warning(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*names: str) -> tuple[str, ...]:
        monkeypatch.setattr("segatlas.metrics.scores.Scores.never_predicted", names)
        return evaluate(red_channel(), root, progress=False).warnings

    assert lost() == ()
    assert lost("a\x1b") == ("never predicted, though the truth has it: a\\x1b",)
    (many,) = lost(*(f"c{index}" for index in range(14)))
    assert many.startswith("never predicted, though the truth has them: c0, c1, ")
    assert many.endswith("c11 and 2 more")


def test_other_class_names_are_a_warning(root: Path) -> None:
    report = evaluate(red_channel(), DataConfig(root=str(root), classes=("sky", "lane", "car")), progress=False)
    assert len(report.warnings) == 1
    assert "1: 'lane' in the data, 'road' in the model" in report.warnings[0]
    assert report.scores.classes == CLASSES


def test_a_folder_without_class_names_is_read_with_those_of_the_model(tmp_path: Path) -> None:
    label = np.zeros((8, 8), np.uint8)
    write_pair(tmp_path, "val", "a", label, label)
    write_pair(tmp_path, "train", "b", label, label)
    assert evaluate(red_channel(), tmp_path, progress=False).scores.support == (64, 0, 0)


def test_labels_of_unnamed_data_that_are_fewer_than_the_models_classes_are_a_warning(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), dtype=np.uint8)
    write_pair(tmp_path, "val", "0", pixels, np.eye(8, dtype=np.uint8))
    warning, *_ = evaluate(red_channel(), tmp_path, split="val", progress=False).warnings  # others: never predicted
    assert warning.startswith("the model has 3 classes, the data name none and hold labels 0 to 1 only")
    assert "label 1 was taken for 'road'" in warning
    numbered = red_channel(tuple(f"class_{index}" for index in range(3)))
    assert not any("data name none" in line for line in evaluate(numbered, tmp_path, progress=False).warnings)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    assert not any("data name none" in line for line in evaluate(red_channel(), tmp_path, progress=False).warnings)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(UsageError, match="has 2 classes"):
        evaluate(red_channel(), tmp_path, split="val", progress=False)


def test_class_names_in_the_folder_are_compared(root: Path) -> None:
    (root / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(UsageError, match="2 classes"):
        evaluate(red_channel(), root, progress=False)


def test_a_bad_file_is_raised_or_reported_and_left_out(root: Path) -> None:
    (root / "val" / "images" / "p1.png").write_bytes(b"")
    wrong = np.full((24, 32), 89, np.uint8)
    Image.fromarray(wrong).save(root / "val" / "masks" / "p2.png")
    with pytest.raises(DataError, match=r"p1\.png"):
        evaluate(red_channel(), root, progress=False)
    report = evaluate(red_channel(), root, skip_bad=True, batch=2, progress=False)
    assert [image.key.split("/")[-1] for image in report.images] == ["p0"]
    assert report.data.images == 3
    assert len(report.skipped) == 2
    assert "p1.png" in report.skipped[0]
    assert "p2.png" in report.skipped[1]
    assert "89" in report.skipped[1]
    only = semantic_metrics(CLASSES)
    only.update(*semantic_pair(*maps(0, (24, 32))))
    assert report.scores == only.compute()


def test_an_image_the_predictor_refuses_is_left_out_with_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segatlas.inference import predictor

    true_prepare = predictor.prepare

    def fussy(image: np.ndarray, **rest: object) -> object:
        if image.shape[0] == 40:
            raise DataError("too odd")
        return true_prepare(image, **rest)

    monkeypatch.setattr(predictor, "prepare", fussy)
    report = evaluate(red_channel(), root, skip_bad=True, batch=2, progress=False)
    assert [image.key.split("/")[-1] for image in report.images] == ["p0", "p2"]
    assert "p1.png: cannot be predicted: too odd" in report.skipped[0]
    with pytest.raises(DataError, match="too odd"):
        evaluate(red_channel(), root, progress=False)


def test_further_images_on_another_scale_are_told_by_their_name() -> None:
    from segatlas.data.sample import Sample, Source
    from segatlas.evaluation.run import _ScaleWatch
    from segatlas.structures import InputSpec

    specs = (InputSpec(), InputSpec(name="before"), InputSpec(name="far", kind="map"))
    watch, image = _ScaleWatch(255.0), np.full((4, 4, 3), 200, np.uint8)
    deep = Source(array=image.astype(np.uint16))
    sources = {"before": deep, "far": Source(array=image / 255, kind="map"), "not taken": deep}
    card = replace(red_channel().card, inputs=specs)
    watch.look_at(Sample(image=image, target=None, key="a", sources=sources), card)
    (warning,) = watch.warnings()
    assert warning.startswith("source before: largest value 200 in uint16")


def test_nothing_left_to_score_is_an_error(root: Path) -> None:
    for image in (root / "val" / "images").iterdir():
        image.write_bytes(b"")
    with pytest.raises(DataError, match="no image of split 'val' could be scored"):
        evaluate(red_channel(), root, skip_bad=True, progress=False)


def test_a_predictor_without_data_is_asked_which(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say which data"):
        evaluate(red_channel(), progress=False)
    with pytest.raises(DataError, match="no known dataset"):
        evaluate(red_channel(), tmp_path, progress=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it, with random weights."""
    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained

    run = tmp_path_factory.mktemp("runs") / "net-001"
    for seed in range(2):
        write_pair(run.parent / "data", "val", f"p{seed}", *maps(seed, (24, 32)))
        write_pair(run.parent / "data", "train", f"t{seed}", *maps(seed, (24, 32)))
    torch.manual_seed(0)
    save_pretrained(create_model("unet", num_classes=3, width=4), run / "model", classes=CLASSES, palette=PALETTE)
    (run / "config.yaml").write_text(f"data: {{root: {run.parent / 'data'}}}\nmodel: {{name: unet, width: 4}}\n")
    return run


def test_a_run_is_scored_on_its_own_data(trained: Path) -> None:
    from segatlas.inference import load

    report = evaluate(trained, device="cpu", progress=False)
    metrics, predictor = semantic_metrics(CLASSES), load(trained, device="cpu")
    for seed in range(2):
        file = trained.parent / "data" / "val" / "images" / f"p{seed}.png"
        metrics.update(*semantic_pair(predictor.predict(file).semantic, maps(seed, (24, 32))[1]))
    assert report.scores == metrics.compute()
    assert report.model.architecture == "unet"
    assert report.model.parameters == sum(parameter.numel() for parameter in predictor.model.parameters())
    assert evaluate(trained / "model", device="cpu", progress=False).scores == report.scores


def test_the_run_of_a_model_is_found_from_its_parts(trained: Path) -> None:
    for part in (".", "model", "checkpoints/best.ckpt"):
        assert find_run(trained / part) == trained
    for other in (trained.parent, trained / "samples", trained / "model" / "deeper"):
        assert find_run(other) is None


def test_a_run_folder_may_say_which_data(trained: Path) -> None:
    assert evaluate(red_channel(), trained, progress=False).data.images == 2


def printed(renderable: object, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_table_shows_every_class_in_eighty_columns(report: Report) -> None:
    table = next(section for section in report.sections if isinstance(section, ClassTable))
    text = printed(tables.class_table(table))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == [
        "class",
        "IoU",
        "Dice",
        "Prec.",
        "Recall",
        "B-IoU",
        "B-F",
        "small",
        "medium",
        "large",
        "pixels",
    ]
    rows = {line.split()[0]: line.split()[1] for line in lines[2:] if line.strip()}
    assert rows == {
        **{name: f"{100 * iou:.1f}" for name, iou in zip(CLASSES, report.scores.iou, strict=True)},
        "all": f"{100 * report.miou:.1f}",
    }


def test_the_full_report_names_model_data_and_warnings(root: Path) -> None:
    (root / "val" / "masks" / "p2.png").write_bytes(b"no image")
    data = DataConfig(root=str(root), classes=("sky", "lane", "car"))
    report = evaluate(red_channel(), data, skip_bad=True, progress=False)
    text = printed(tables.full_report(report), width=200)
    for part in (
        "unet",
        "folder, val split, 2 images, 1 skipped",
        "warning: class names differ",
        "skipped: ",
        "p2.png",
    ):
        assert part in text


def test_definitions_are_printed_for_every_number(report: Report) -> None:
    text = printed(tables.definitions_table([report]), width=2000)
    for name, definition in report.definitions.items():
        assert name in text
        assert definition in text


def test_comparison_gives_differences_in_points(root: Path, report: Report) -> None:
    worse_root = root.parent / "worse"
    for seed, size in enumerate([(24, 32), (40, 28), (24, 32)]):
        prediction, label = maps(seed, size)
        write_pair(worse_root, "val", f"p{seed}", np.where(prediction == 2, 0, prediction).astype(np.uint8), label)
        write_pair(worse_root, "train", f"t{seed}", prediction, label)
    worse = evaluate(red_channel(), worse_root, progress=False)
    lines = printed(tables.compare([report, worse])).splitlines()
    car = next(line for line in lines if line.startswith("IoU car"))
    assert car.split()[2:] == [f"{100 * report.scores.iou[2]:.2f}", "0.00", f"{-100 * report.scores.iou[2]:.2f}"]
    mean = next(line for line in lines if line.startswith("mean IoU "))
    assert float(mean.split()[-1]) == pytest.approx(100 * (worse.miou - report.miou), abs=0.006)


def test_a_file_name_that_is_no_utf8_is_kept_in_the_report(report: Report, tmp_path: Path) -> None:
    odd = replace(report, skipped=("caf\udce9.png: broken",))
    stored = json.loads(odd.to_json(tmp_path / "eval.json").read_text("utf-8"))
    assert stored["skipped"] == ["caf\udce9.png: broken"]


def test_a_bare_network_is_no_model_to_evaluate(root: Path) -> None:
    with pytest.raises(UsageError, match="got a Conv2d, expected a path, a name or a Predictor"):
        evaluate(torch.nn.Conv2d(3, 2, 1), root)  # type: ignore[arg-type]
