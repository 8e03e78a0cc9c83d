"""Masks that GrabCut makes of boxes, and what happens where it is not believed."""

from __future__ import annotations

import json

import numpy as np
from fakes.weak import write_weak
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.box_masks import grab_object, label_of_boxes, label_of_objects
from segatlas.structures import InstancesTarget


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return an image of a bright disc on dark ground, with a little noise, and where the disc is."""
    rows, columns = np.mgrid[:48, :64]
    disc = (rows - 24) ** 2 + (columns - 30) ** 2 < 144
    noise = np.random.default_rng(0).integers(-12, 13, (48, 64, 3))
    return np.clip(np.where(disc[..., None], 190, 50) + noise, 0, 255).astype(np.uint8), disc


def test_the_object_is_cut_out_of_its_box_with_a_ring_that_is_not_known():
    image, disc = scene()
    found, sure = grab_object(image, (17, 11, 44, 38))
    inside = disc[11:38, 17:44]
    assert sure
    known = found != 255
    np.testing.assert_array_equal(found[known] == 1, inside[known])
    assert 0.02 < (~known).mean() < 0.3


def test_where_nothing_differs_the_middle_of_the_box_is_taken():
    plain = np.full((40, 40, 3), 90, np.uint8)
    found, sure = grab_object(plain, (10, 10, 30, 20))
    assert not sure
    assert (found[2:8, 4:16] == 1).all()
    assert (found[[0, 1, 8, 9]] == 255).all()
    tiny, sure = grab_object(plain, (3, 3, 5, 5))
    assert (sure, set(np.unique(tiny).tolist()) <= {1, 255}, (tiny == 1).any()) == (False, True, True)
    whole, sure = grab_object(plain, (0, 0, 40, 40))
    assert (sure, whole.shape) == (False, (40, 40))


def test_of_boxes_that_overlap_the_smaller_counts_and_outside_is_background_or_not_known():
    image, _ = scene()
    boxes = [(2, (28, 22, 33, 27)), (1, (17, 11, 44, 38))]
    label, _ = label_of_boxes(image, boxes, 0)
    assert label[24, 30] == 2
    assert label[16, 30] == 1
    assert (label[:8] == 0).all()
    assert (label_of_boxes(image, boxes, None)[0][:8] == 255).all()
    assert (label_of_boxes(image, [], 0)[0] == 0).all()
    grey16 = (image[..., :1].astype(np.uint16)) * 200
    np.testing.assert_array_equal(label_of_boxes(grey16, boxes[1:], 0)[0][24, 28:33], 1)


def test_what_was_not_told_apart_is_not_known_and_objects_without_a_pixel_have_no_box():
    image, _ = scene()
    masks = np.zeros((3, 48, 64), bool)
    masks[0, 2:8, 40:60], masks[1, 11:38, 17:44] = True, True
    objects = InstancesTarget(masks, np.array([1, 2, 1]), np.array([True, False, False]))
    label, _ = label_of_objects(image, objects, 0)
    assert (label[2:8, 40:60] == 255).all()
    assert label[24, 30] == 2
    assert (label[40:] == 0).all()


def test_the_command_makes_a_folder_that_any_recipe_reads(tmp_path):
    write_weak(tmp_path / "boxes", "boxes", train=2, val=1)
    done = CliRunner().invoke(app, ["data", "grabcut", str(tmp_path / "boxes"), str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["train"] == 2
    data = create_dataset(DataConfig(name="folder", root=str(tmp_path / "out")), "train")
    assert set(np.unique(data.load(0).label).tolist()) <= {0, 1, 2, 255}
    refused = CliRunner().invoke(app, ["data", "grabcut", str(tmp_path / "boxes"), str(tmp_path / "out")])
    assert refused.exit_code == 2
