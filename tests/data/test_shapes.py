from __future__ import annotations

import json

import numpy as np
import pytest
from fakes.shapes import write_shapes
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.dataset import SegmentationData
from segatlas.data.formats.images import read_image
from segatlas.data.formats.masks import read_mask
from segatlas.data.shapes import SHAPES, draw_large_scene, draw_scene, make_shapes
from segatlas.errors import DataError, UsageError


def open_shapes(root, split="train"):
    return create_dataset(DataConfig(name="shapes", root=str(root)), split)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes")


def test_set_opens_with_its_classes(root):
    data = open_shapes(root)
    assert isinstance(data, SegmentationData)
    assert (len(data), len(open_shapes(root, "val")), len(open_shapes(root, "test"))) == (4, 2, 2)
    assert data.classes == ("ground", *SHAPES)
    assert len(data.palette) == 7
    sample = data.load(2)
    scene = draw_scene(1, "train", 2, (48, 64))
    assert np.array_equal(sample.image, scene.image)
    assert np.array_equal(sample.label, scene.classes)
    assert describe_layout(root) == "shapes"


def test_missing_or_empty_root_is_made_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("segatlas.data.datasets.shapes.make_shapes", write_shapes)
    (tmp_path / "empty").mkdir()
    assert len(open_shapes(tmp_path / "empty")) == 4
    assert len(open_shapes(tmp_path / "deep" / "down")) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "empty"]


def test_folder_with_other_things_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="exists and is not empty"):
        make_shapes(tmp_path)
    with pytest.raises(DataError, match=r"is not laid out as data\.name=shapes.*holds mine\.txt"):
        open_shapes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segatlas.data.shapes.write_classes", fail)
    with pytest.raises(DataError, match="No space left on device"):
        write_shapes(tmp_path / "shapes")
    assert not list(tmp_path.iterdir())


def test_scene_depends_on_seed_split_and_index_only(root, tmp_path):
    other = make_shapes(tmp_path / "more", train=3, val=0, test=0, size=(48, 64), seed=1)
    for index in range(3):
        name = f"train/images/{index:04d}.png"
        assert (root / name).read_bytes() == (other / name).read_bytes()
    first = draw_scene(0, "train", 0).image
    for arguments in ((1, "train", 0), (0, "val", 0), (0, "train", 1)):
        assert not np.array_equal(first, draw_scene(*arguments).image)


def test_a_scene_has_as_many_objects_as_asked_for(tmp_path):
    for least, most in ((1, 1), (2, 3)):
        found = {
            len(np.unique(draw_scene(0, "train", index, objects=(least, most)).instances)) - 1 for index in range(8)
        }
        assert found == set(range(least, most + 1))
    drawn = make_shapes(tmp_path / "few", train=2, val=0, test=0, size=(48, 64), objects=(1, 2))
    assert json.loads((drawn / "shapes.json").read_text())["objects"] == [1, 2]
    for wrong in ((0, 3), (3, 2), (1, 1000)):
        with pytest.raises(UsageError, match="expected 1 to 50, rising"):
            make_shapes(tmp_path / "x", objects=wrong)


def test_several_processes_write_the_same_files(tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        make_shapes(tmp_path / name, train=3, val=1, test=0, size=(40, 48), processes=processes)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 4 * 4 + 6 + 2
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    assert sum(path.is_file() for path in (tmp_path / "two").rglob("*")) == len(files)


def test_labels_of_the_three_tasks_agree(root):
    instances_file = json.loads((root / "annotations/instances_train.json").read_text())
    panoptic_file = json.loads((root / "annotations/panoptic_train.json").read_text())
    for entry in panoptic_file["annotations"]:
        name = entry["file_name"]
        classes = read_mask(root / "train/masks" / name)
        instances = read_mask(root / "train/instances" / name)
        colors = read_image(root / "train/panoptic" / name).astype(int)
        ids = colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
        assert np.array_equal(instances // 1000, classes)
        assert np.array_equal(ids, np.where(instances == 0, 1, instances))
        assert [segment["id"] for segment in entry["segments_info"]] == np.unique(ids).tolist()
        for segment in entry["segments_info"]:
            assert segment["area"] == (ids == segment["id"]).sum()
            assert (classes[ids == segment["id"]] == segment["category_id"]).all()
    names = [category["name"] for category in panoptic_file["categories"]]
    assert names == ["ground", *SHAPES]
    assert [category["isthing"] for category in panoptic_file["categories"]] == [0, 1, 1, 1, 1, 1, 1]
    assert [category["name"] for category in instances_file["categories"]] == list(SHAPES)


def test_pycocotools_reads_the_instances(root, capsys):
    coco_module = pytest.importorskip("pycocotools.coco")
    coco = coco_module.COCO(str(root / "annotations/instances_train.json"))
    for image in coco.loadImgs(coco.getImgIds()):
        instances = read_mask(root / "train/instances" / image["file_name"])
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(np.unique(instances[instances > 0]))
        masks = [coco.annToMask(annotation).astype(bool) for annotation in annotations]
        assert np.array_equal(np.any(masks, axis=0), instances > 0)
        for annotation, mask in zip(annotations, masks, strict=True):
            rows, columns = np.nonzero(mask)
            x, y, width, height = annotation["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
            assert annotation["area"] == mask.sum()


def test_scenes_show_every_class_holes_thin_parts_and_small_objects():
    scenes = [draw_scene(0, "train", index) for index in range(24)]
    seen = np.unique(np.concatenate([scene.classes.ravel() for scene in scenes]))
    assert seen.tolist() == list(range(7))
    areas = [np.bincount(scene.instances.ravel())[np.unique(scene.instances[scene.instances > 0])] for scene in scenes]
    assert sum((area < 150).sum() for area in areas) > 20
    assert sum((area > 800).sum() for area in areas) > 20
    ground_fraction = np.mean([(scene.classes == 0).mean() for scene in scenes])
    assert 0.6 < ground_fraction < 0.92


def test_colour_alone_does_not_tell_the_classes_apart():
    """The best table from a colour (12 levels a channel) to a class, made on 40 scenes, is poor on 10 others."""

    def cells(image):
        return np.ravel_multi_index((image // 22).reshape(-1, 3).T, (12, 12, 12))

    counts = np.zeros((12**3, 7))
    for index in range(40):
        scene = draw_scene(0, "train", index)
        np.add.at(counts, (cells(scene.image), scene.classes.ravel()), 1)
    best = counts.argmax(axis=1)
    confusion = np.zeros((7, 7))
    for index in range(10):
        scene = draw_scene(0, "val", index)
        np.add.at(confusion, (scene.classes.ravel(), best[cells(scene.image)]), 1)
    hit = np.diag(confusion)
    iou = hit / (confusion.sum(0) + confusion.sum(1) - hit)
    assert iou.mean() < 0.3


def test_chosen_classes_and_size_are_kept_and_wrong_ones_refused(tmp_path):
    make_shapes(tmp_path / "two", train=3, val=1, test=0, size=(40, 40), classes=("ring", "bar"))
    data = open_shapes(tmp_path / "two")
    assert data.classes == ("ground", "ring", "bar")
    assert data.load(0).image.shape == (40, 40, 3)
    assert max(data.load(index).label.max() for index in range(3)) == 2
    with pytest.raises(DataError, match="split 'test' is empty"):
        open_shapes(tmp_path / "two", "test")
    with pytest.raises(UsageError, match="shapes: star; expected some of disc"):
        make_shapes(tmp_path / "x", classes=("star",))
    with pytest.raises(UsageError, match="at least 32"):
        make_shapes(tmp_path / "x", size=(8, 40))


def test_masks_carry_the_palette(root):
    with Image.open(root / "train/masks/0000.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[3:6] == [230, 75, 60]


def test_a_root_that_is_made_on_first_use_is_told(tmp_path, caplog):
    open_shapes(tmp_path / "new", "val")
    assert f"{tmp_path / 'new'} was missing or empty" in caplog.text
    caplog.clear()
    open_shapes(tmp_path / "new", "val")
    assert not caplog.text


def test_a_large_scene_has_the_objects_of_its_tiles_and_none_ends_at_its_border():
    scene = draw_large_scene(5, (2, 3), (64, 80))
    assert scene.image.shape == (128, 240, 3)
    numbers = np.unique(scene.instances)[1:]
    assert 24 <= len(numbers) <= 36
    assert np.array_equal(scene.instances // 1000, scene.classes)
    assert not any(
        side.any() for side in (scene.classes[0], scene.classes[-1], scene.classes[:, 0], scene.classes[:, -1])
    )
    steps = np.abs(np.diff(scene.image.astype(int), axis=1)).mean(axis=(0, 2))
    assert steps[[79, 159]].max() < 2 * np.median(steps)  # the ground goes on where tiles meet
    assert np.array_equal(draw_large_scene(5, (2, 3), (64, 80)).image, scene.image)
