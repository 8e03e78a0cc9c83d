"""Bad and extreme files of objects and segments, as somebody meets them who trains on them through the command line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from fakes.broken_coco import FAULTS, OBJECTS, SIZE, one_object
from fakes.coco import change, write_coco
from fakes.images import save_image
from PIL import Image

from segatlas.data.shapes import make_shapes
from segatlas.models.mask_rcnn import ARCHITECTURE as MASK_RCNN
from segatlas.structures.rle import Rle

VAL = OBJECTS.replace("train", "val")
TASKS = {
    "instance": ("model.name=mask_rcnn", "losses=[two_stage]"),
    "panoptic": (
        "model.name=panoptic_fpn",
        "losses=[two_stage, semantic_branch]",
        "model.channels=8",
        "model.groups=2",
    ),
}


@pytest.fixture
def learn(segatlas, tmp_path):
    """Train a tiny network of one of the tasks through the command line, two steps of two images."""

    def run(root: Path, task: str, *words: object):
        fields = [f"model.{key}={json.dumps(value)}" for key, value in MASK_RCNN.tiny.items()]
        settings = (
            f"task={task}", *TASKS[task], *fields, f"data.root={root}", "data.workers=0", "data.store=off",
            f"run.dir={tmp_path / 'run'}", "transforms={crop: [64, 64]}", "log={tensorboard: false, samples: 1}",
            "train={epochs: 1, batch: 2, lr: 1e-3, device: cpu, threads: 1}", "eval.boundary=false",
        )  # fmt: skip
        (tmp_path / "recipe.yaml").write_text("seed: 3\n")
        return segatlas("train", "--config", tmp_path / "recipe.yaml", *settings, *words)

    return run


def test_masks_that_a_task_of_objects_leaves_aside_stop_none_of_its_commands(segatlas, learn, tmp_path):
    root = tmp_path / "nuclei"
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            ids = np.zeros((64, 64), np.uint16)
            ids[4:20, 4:20], ids[30:50, 10 + number : 40] = 1, 2
            save_image(
                root / split / "images" / f"{number}.png", np.full((64, 64, 3), 20 * number + len(split), np.uint8)
            )
            for folder, array in (("masks", np.where(ids > 0, 255, 0).astype(np.uint8)), ("instances", ids)):
                path = root / split / folder / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    refused = segatlas("data", "stats", root)
    assert (refused.exit_code, "data.label_map={0: 0, 255: 1}" in refused.output) == (1, True)
    done = learn(root, "instance", "--dry-run")
    assert done.exit_code == 0, done.output
    words = ("mask_rcnn_folder", f"data.root={root}")
    for command in ("check", "stats", "preview"):
        further = ("--out", tmp_path / "sheet.png") if command == "preview" else ()
        told = segatlas("data", command, *words, *further)
        assert told.exit_code == 0, told.output


# ---- what is wrong with COCO's files is refused before a run exists
BY_MAPS = ("a segment in the map only", "a segment in the table only", "an unknown class of a segment", "another size")


@pytest.mark.parametrize("case", [case for case, (_, _, severity, _) in FAULTS.items() if severity == "error"])
def test_what_check_calls_an_error_of_objects_stops_training_before_a_run_folder_exists(
    segatlas, learn, tmp_path, case
):
    breaks, kind, _, text = FAULTS[case]
    root = write_coco(tmp_path / "data")
    breaks(root)
    checked = segatlas("data", "check", root, "--json")
    assert checked.exit_code == 1
    record = json.loads(checked.stdout.splitlines()[-1])
    assert kind in {finding["kind"] for finding in record["findings"] if finding["severity"] == "error"}
    result = learn(root, "panoptic" if case in BY_MAPS else "instance", "data.name=coco")
    assert result.exit_code == 1, result.output
    assert "unexpected" not in result.stderr
    assert text in " ".join(result.stderr.split()) or kind == "size_mismatch"
    assert not (tmp_path / "run").exists()


def test_objects_that_overlap_make_no_segments_and_training_says_so(segatlas, learn, tmp_path):
    root = make_shapes(tmp_path / "data", train=2, val=2, test=1, size=(48, 64))
    for split in ("train", "val"):
        for path in (root / split / "instances").glob("*.png"):
            for number in (1, 2):
                file = path.with_suffix("") / f"disc_{number}.png"
                file.parent.mkdir(exist_ok=True)
                Image.fromarray(np.full((48, 64), 255, np.uint8)).save(file)
            path.unlink()
    for path in (root / "annotations").glob("*.json"):
        path.unlink()
    words = ("data.name=folder", "data.instances={things: [disc, square, triangle, ring, bar, cross]}")
    assert segatlas("data", "check", root, *words).exit_code == 1
    result = learn(root, "panoptic", *words)
    assert result.exit_code == 1, result.output
    assert "objects 1 and 2 overlap" in " ".join(result.stderr.split())
    assert learn(root, "instance", *words).exit_code == 0


# ---- what is rare but sound trains
def one_mask(mask: np.ndarray) -> dict:
    return {
        **one_object(),
        "segmentation": Rle.of(mask).record(),
        "area": int(mask.sum()),
        "bbox": [0, 0, *mask.shape[::-1]],
    }


@pytest.mark.parametrize("task", TASKS)
def test_images_and_batches_without_objects_train(learn, tmp_path, task):
    root = write_coco(tmp_path / "data")  # every fourth scene has none
    if task == "instance":
        first = {5000}
        change(root / OBJECTS, lambda c: c.update(annotations=[a for a in c["annotations"] if a["image_id"] in first]))
    result = learn(root, task, "data.name=coco", "train.batch=1", "transforms.crop=[64, 64]")
    assert result.exit_code == 0, result.output


def test_a_split_without_objects_is_refused_and_told_by_check(segatlas, learn, tmp_path):
    for file in (OBJECTS, VAL):
        root = write_coco(tmp_path / file.replace("/", "_"), maps=False)
        change(root / file, lambda content: content["annotations"].clear())
        assert segatlas("data", "check", root).exit_code == 1
        result = learn(root, "instance", "data.name=coco")
        assert result.exit_code == 1, result.output
        assert "show none, so" in " ".join(result.stderr.split())
        assert not (tmp_path / "run").exists()


def test_an_object_that_fills_its_image_two_thousand_and_an_image_of_one_pixel_train(segatlas, learn, tmp_path):
    root = write_coco(tmp_path / "data", maps=False)
    cells = [np.zeros(SIZE, bool) for _ in range(2000)]
    for number, mask in enumerate(cells):
        mask[number // 48 % 32, number % 48] = True

    def edit(content):
        content["annotations"].append(one_mask(np.ones(SIZE, bool)))
        for number, mask in enumerate(cells):
            rows, columns = (int(axis[0]) for axis in np.nonzero(mask))
            content["annotations"].append(
                {**one_mask(mask), "id": 10_000 + number, "image_id": 5001, "bbox": [columns, rows, 1, 1]}
            )
        content["images"].append({"id": 9, "file_name": "dot.png", "height": 1, "width": 1})
        content["annotations"].append({**one_mask(np.ones((1, 1), bool)), "id": 9_999, "image_id": 9})

    change(root / OBJECTS, edit)
    save_image(root / "train2017" / "dot.png", np.full((1, 1, 3), 90, np.uint8))
    result = learn(root, "instance", "data.name=coco")
    assert result.exit_code == 0, result.output
    assert "and 7 decoded samples show no error" in " ".join(result.stderr.split())  # 5 of train, 2 of val
    out = segatlas("predict", tmp_path / "run", root / "train2017" / "dot.png", "--out", tmp_path / "out")
    assert out.exit_code == 0, out.output
    assert Image.open(tmp_path / "out" / "dot_instances.png").size == (1, 1)


def test_the_largest_number_of_16_bits_is_an_object(learn, tmp_path):
    root = make_shapes(tmp_path / "data", train=2, val=2, test=1, size=(48, 64))
    for path in (root / "annotations").glob("*.json"):
        path.unlink()
    for path in root.glob("*/instances/*.png"):
        ids = np.zeros((48, 64), np.uint16)
        ids[4:30, 6:40], ids[32:44, 40:60] = 65535, 7
        Image.fromarray(ids).save(path)
    words = ("data.name=folder", "data.instances={classes: single, single: disc}")
    result = learn(root, "instance", *words)
    assert result.exit_code == 0, result.output


# ---- weights
class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_a_hostile_pickle_of_a_network_of_objects_runs_nothing(segatlas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"model": {"backbone.bottom_up.stem.conv1.weight": Payload()}, "__author__": "Detectron2 Model Zoo"}
    Path("model_final.pkl").write_bytes(pickle.dumps(content))
    result = segatlas("models", "convert", "model_final.pkl", "--out", "converted")
    assert result.exit_code in (1, 2), result.output
    assert not Path("was-run").exists()
    assert not Path("converted").exists()
