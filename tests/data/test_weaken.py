"""Weak labels made of whole ones say nothing that these do not, and follow from the seed."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import numpy as np
import pytest
from fakes.images import save_codes, save_image
from fakes.lits import write_lits
from fakes.shapes import write_shapes
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.box_masks import masks_of_boxes
from segatlas.data.checks import examine
from segatlas.data.strokes import middle_line, skeleton
from segatlas.data.weaken import FORMS, Weakening, boxes_of, partial_of, points_of, regions_of, scribbles_of, weaken
from segatlas.errors import DataError, UsageError
from segatlas.structures import InstancesTarget

SHAPES = Weakening(form="points", smallest=20)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("whole") / "shapes", train=3, val=1, test=1)


def whole(shapes: Path, target: str = "SemanticTarget"):
    return create_dataset(DataConfig(name="shapes", root=str(shapes)), "train", target=target)


def made(shapes: Path, out: Path, form: str, seed: int = 0):
    weaken(DataConfig(name="shapes", root=str(shapes)), out, Weakening(form=form, seed=seed, smallest=20))
    return create_dataset(DataConfig(name="weak", root=str(out)), "train")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_made_is_clean_and_says_nothing_that_whole_labels_do_not(shapes, tmp_path, form):
    data, full = made(shapes, tmp_path / "out", form), whole(shapes)
    assert not [one for one in examine(tmp_path / "out").findings if "class" not in one.kind]
    for index in range(len(data)):
        target, label = data.truth(index), full.load(index).label
        labels, there = np.asarray(target.labels), set(np.unique(label).tolist())
        if form in ("scribbles", "points"):
            known = labels != 255
            np.testing.assert_array_equal(labels[known], label[known])
            assert known.mean() < (0.35 if form == "scribbles" else 0.02)
            for kind, inside, (top, left) in regions_of(label, 20):
                part = labels[top : top + inside.shape[0], left : left + inside.shape[1]]
                assert (part[inside] == kind).any()
        elif form == "boxes":
            assert (labels[label != 0] != 0).mean() > 0.95  # but for objects below the smallest size
            assert set(np.unique(labels).tolist()) <= there
        elif form == "labels":
            assert set(np.flatnonzero(target.present).tolist()) == there | {0}
        else:
            assert 3 <= np.asarray(target.annotated).sum() <= 4
            np.testing.assert_array_equal(target.certain[target.certain != 255], label[target.certain != 255])
            missed = ~np.asarray(target.annotated)[label]
            assert missed[target.certain == 255].all()


def test_the_same_seed_gives_the_same_files_and_another_one_others(shapes, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        made(shapes, tmp_path / name, "scribbles", seed)
    files = [f"train/scribbles/000{index}.png" for index in range(3)]
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)[1]


def test_val_and_test_keep_whole_masks_and_a_record_says_what_was_made(shapes, tmp_path):
    made(shapes, tmp_path / "out", "labels", 3)
    for split in ("val", "test"):
        full = create_dataset(DataConfig(name="shapes", root=str(shapes)), split).load(0).label
        kept = create_dataset(DataConfig(name="weak", root=str(tmp_path / "out")), split).load(0).label
        np.testing.assert_array_equal(kept, full)
    record = json.loads((tmp_path / "out/weakened.json").read_text())
    assert (record["to"], record["seed"], record["made_of"]) == ("labels", 3, "shapes")
    assert not (tmp_path / "out/train/masks").exists()


def test_points_lie_in_the_middle_and_the_background_has_as_many_more(shapes):
    label = np.zeros((40, 60), np.uint8)
    label[5:16, 10:21], label[20:31, 30:50], label[38:, :3] = 1, 2, 3
    kept, count = points_of(label, SHAPES, np.random.default_rng(0), 0)
    assert (kept[10, 15], kept[25, 35:45].min(), (kept == 3).sum()) == (1, 2, 0)  # six pixels are too few
    assert (kept == 0).sum() == 3  # its own centre, and one more for each of the two
    assert count == 5
    assert (points_of(label, SHAPES, np.random.default_rng(0))[0] == 0).sum() == 1


def test_boxes_are_those_of_objects_or_else_of_regions(shapes):
    label = np.zeros((20, 30), np.uint8)
    label[2:8, 3:15] = 1
    assert boxes_of(label, None, SHAPES, 0) == [(1, (3, 2, 15, 8))]
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 2:8, 3:9], masks[1, 2:8, 9:15] = True, True
    objects = InstancesTarget(masks, np.array([1, 1]), np.array([False, False]))
    assert boxes_of(label, objects, SHAPES, 0) == [(1, (3, 2, 9, 8)), (1, (9, 2, 15, 8))]
    crowd = objects._replace(crowd=np.array([False, True]))
    assert len(boxes_of(label, crowd, SHAPES, 0)) == 1


def test_pixels_of_classes_that_were_not_looked_for_have_the_first_of_these(shapes):
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    kept, annotated = partial_of(label, 6, Weakening(form="partial", fraction=0.4), np.random.default_rng(1))
    first = int(np.flatnonzero(~annotated)[0])
    assert annotated.sum() == 2
    np.testing.assert_array_equal(kept, np.where(annotated[label], label, first))


def test_a_scribble_runs_inside_its_region_away_from_the_border():
    label = np.full((60, 80), 255, np.uint8)
    label[10:50, 10:30], label[5:9, 40:75] = 1, 2
    kept, count = scribbles_of(label, Weakening(form="scribbles"), np.random.default_rng(0))
    assert count >= 2
    assert set(np.unique(kept[10:50, 10:30])) == {1, 255}
    assert (kept[[10, 49]] == 255).all()
    assert (kept == 2).sum() >= 20


def test_a_skeleton_is_thin_and_hangs_together():
    import cv2

    rows, columns = np.mgrid[:41, :61]
    ring = (np.hypot(rows - 20, columns - 30) < 18) & (np.hypot(rows - 20, columns - 30) > 9)
    for inside in (ring, np.ones((9, 30), bool)):
        line = skeleton(inside)
        assert (line & ~inside).sum() == 0
        assert cv2.connectedComponents(line.astype(np.uint8), connectivity=8)[0] == 2
        assert line.sum() < inside.sum() / 3
    path = middle_line(ring, np.random.default_rng(0))
    assert np.abs(np.diff(path, axis=0)).max() == 1
    assert ring[tuple(path.T)].all()


def test_one_pixel_and_a_large_region_have_a_line():
    assert middle_line(np.ones((1, 1), bool), np.random.default_rng(0)).tolist() == [[0, 0]]
    line = middle_line(np.ones((300, 500), bool), np.random.default_rng(0))
    assert len(line) > 10
    assert (line.max(axis=0) < (300, 500)).all()


def test_the_command_says_what_it_made_and_refuses_what_it_cannot_make(shapes, tmp_path):
    def run(*words):
        return CliRunner().invoke(app, ["data", "weaken", *map(str, words)])

    done = run(shapes, tmp_path / "out", "--to", "points", "--seed", 2, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["train"] == 3
    assert run(shapes, tmp_path / "out", "--to", "points").exit_code == 2  # is there already
    assert "expected scribbles" in run(shapes, tmp_path / "b", "--to", "lines").output
    wrong = run(shapes, tmp_path / "b", "--background", "grund")
    assert "nearest 'ground'" in wrong.output
    assert not (tmp_path / "b").exists()


def folder_of(root: Path, labels: dict[str, np.ndarray], classes: tuple[str, ...] = ("ground", "car")) -> DataConfig:
    """Write a folder of grey images with these masks of train, and one of val."""
    for key, label in {**{f"train/{key}": label for key, label in labels.items()}, "val/v": np.eye(20) > 0}.items():
        split, stem = key.split("/", 1)
        save_image(root / split / "images" / f"{stem}.png", np.full((20, 20, 3), 99, np.uint8))
        save_codes(root / split / "masks" / f"{stem}.png", np.asarray(label).astype(np.uint8))
    (root / "classes.json").write_text(json.dumps(classes))
    return DataConfig(name="folder", root=str(root))


HALF = np.repeat([0, 1], 10)[None].repeat(20, 0)


def test_an_image_without_a_labelled_pixel_is_not_said_to_show_nothing(tmp_path, caplog):
    cfg = folder_of(tmp_path / "whole", {"a": HALF, "b": np.full((20, 20), 255)})
    for form in ("labels", "boxes"):
        assert weaken(cfg, tmp_path / form, Weakening(form=form))["train"] == 1
        assert len(create_dataset(DataConfig(name="weak", root=str(tmp_path / form)), "train")) == 1
        assert "left out" in caplog.text
        caplog.clear()
    assert weaken(cfg, tmp_path / "points", Weakening(form="points"))["train"] == 2
    nothing = folder_of(tmp_path / "nothing", {"a": np.full((20, 20), 255)})
    for form in ("scribbles", "labels"):
        with pytest.raises(DataError, match=f"nothing of which {form} could be made"):
            weaken(nothing, tmp_path / "none", Weakening(form=form))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_looks_like_a_file_of_its_own_comes_back(tmp_path, form):
    cfg = folder_of(tmp_path / "whole", {"a.jpg": HALF, "sub/b[1], c": HALF.T})
    weaken(cfg, tmp_path / "out", Weakening(form=form))
    data = create_dataset(DataConfig(name="weak", root=str(tmp_path / "out")), "train")
    assert [data.key(index) for index in range(2)] == ["a.jpg", "sub/b[1], c"]
    assert all(data.load(index).target is not None for index in range(2))


def test_names_that_a_table_cannot_hold_and_what_a_copy_would_lose_is_refused(tmp_path, monkeypatch):
    cfg = folder_of(tmp_path / "whole", {"a": HALF}, ("ground", "car;van"))
    with pytest.raises(UsageError, match="'car;van': a table has ';' between names"):
        weaken(cfg, tmp_path / "out", Weakening(form="labels"))
    assert weaken(cfg, tmp_path / "out", Weakening(form="points"))["train"] == 1
    write_lits(tmp_path / "volumes")
    with pytest.raises(UsageError, match="slices of volumes"):
        weaken(DataConfig(name="lits", root=str(tmp_path / "volumes")), tmp_path / "b", Weakening(form="points"))
    monkeypatch.setenv("HOME", str(tmp_path))
    home = cfg.model_copy(update={"root": "~/whole"})
    with pytest.raises(UsageError, match="lies in the dataset itself"):
        weaken(home, tmp_path / "whole/out", Weakening(form="points"))


def test_a_background_that_a_recipe_names_counts(tmp_path):
    cfg = folder_of(tmp_path / "whole", {"a": HALF}, ("car", "grass"))
    named = Weakening(form="boxes", background="grass")
    weaken(cfg, tmp_path / "boxes", named)
    assert (tmp_path / "boxes/train/boxes.csv").read_text().splitlines()[1:] == ["a.png,car,0,0,10,20"]
    boxes = DataConfig(name="weak", root=str(tmp_path / "boxes"), background="grass")
    masks_of_boxes(boxes, tmp_path / "cut")
    cut = create_dataset(DataConfig(name="folder", root=str(tmp_path / "cut")), "train").load(0).label
    assert (cut[:, 12:] == 1).all()


def test_labels_of_a_set_without_val_or_masks_are_refused(shapes, tmp_path):
    cfg = DataConfig(name="weak", root=str(made(shapes, tmp_path / "a", "labels").listed.root))
    with pytest.raises(UsageError, match="of train has no whole mask"):
        weaken(cfg, tmp_path / "b", Weakening(form="points"))
    write_shapes(tmp_path / "alone", train=2, val=0, test=0)
    with pytest.raises(DataError, match="has no val"):
        weaken(DataConfig(name="shapes", root=str(tmp_path / "alone")), tmp_path / "c", Weakening(form="points"))
