"""What is chosen from images and masks: pure functions of an `Extent`, and the look at the data that gives one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.folder import write_folder
from fakes.shapes import write_shapes
from fakes.thin import write_thin

from segatlas.config.schema import DataConfig
from segatlas.config.transforms import TransformsConfig
from segatlas.data import choices, create_dataset
from segatlas.data.choices import (
    NO_UP,
    Extent,
    choose_crop,
    choose_scale,
    chosen_transforms,
    look_at,
    typical_thickness,
)
from segatlas.data.thickness import border_lengths, thickness

OPEN = TransformsConfig(crop="auto", scale="auto")


def extent(size: tuple[int, int], *thick: float | None, ground: int | None = 0, count: int = 3) -> Extent:
    """Return the extent of images of one size, of which class 0 is the ground and others are so thick."""
    areas, borders = [1e6], [1e3]
    for one in thick:
        areas.append(0 if one is None else 1000)
        borders.append(0 if one is None else 2000 / one)
    return Extent(sizes=(size,) * count, areas=tuple(areas), borders=tuple(borders), ground=ground)


def train_of(root: Path, **keys: object):
    return create_dataset(DataConfig(root=str(root), **keys), "train")


# ---- thickness
def test_strips_of_any_direction_have_their_width_and_a_disc_its_radius() -> None:
    y, x = np.mgrid[:200, :200] - 100.0
    for degrees in (0, 20, 45, 70, 90):
        angle = np.deg2rad(degrees)
        strip = (np.abs(x * np.cos(angle) + y * np.sin(angle)) < 10).astype(np.uint8)
        assert thickness(strip.sum(), border_lengths(strip)[1]) == pytest.approx(20, rel=0.13)
    disc = (x**2 + y**2 < 30**2).astype(np.uint8)
    assert thickness(disc.sum(), border_lengths(disc)[1]) == pytest.approx(30, rel=0.05)
    assert thickness(200.0, border_lengths(np.ones((10, 20), np.uint8))[1]) is None


def test_a_border_counts_for_both_sides_and_the_image_s_edge_for_none() -> None:
    label = np.zeros((50, 40), np.uint8)
    label[:, 20:] = 255
    lengths = border_lengths(label)
    assert lengths[0] == lengths[255] == pytest.approx(50, rel=0.07)
    assert lengths[1] == 0


# ---- crop and scale
@pytest.mark.parametrize(
    ("kind", "seen", "crop", "scale", "why"),
    [
        ("large photographs", extent((3000, 4000), 200, 90, 400), (512, 512), (0.5, 2.0), "usual one of photographs"),
        ("photographs a bit larger", extent((800, 900), 60), (512, 512), (0.64, 1.56), "most of a sample empty"),
        ("small photographs", extent((360, 480), 60, 3, 25), (360, 480), (0.67, 1.5), "most of a sample empty"),
        ("tiny images", extent((32, 48), 12), (32, 48), (0.67, 1.5), "most of a sample empty"),
        ("membranes", extent((512, 512), 6), (512, 512), None, "line is 6.0 pixels thick, and 8 should be left"),
        ("thin in large ones", extent((2000, 2000), 3), (512, 512), None, "line is 3.0 pixels thick"),
        ("roads from above", extent((2000, 2000), 12), (512, 512), (0.67, 1.5), "line is 12.0 pixels thick"),
        ("one class absent", extent((3000, 4000), 20, None), (512, 512), (0.5, 2.0), "photographs"),
        ("ground alone", extent((3000, 4000)), (512, 512), (0.5, 2.0), "photographs"),
        ("a narrow strip of an image", extent((100, 900), 60), (100, 512), (0.67, 1.5), "most of a sample empty"),
    ],
)  # fmt: skip
def test_crop_and_scale_follow_from_sizes_and_thickness(kind, seen, crop, scale, why) -> None:
    found, _ = choose_crop(seen)
    assert found == crop, kind
    found, told = choose_scale(seen, ("ground", "line", "b", "c"), found)
    assert found == scale, kind
    assert why in told


def test_the_reason_of_a_crop_says_which_image() -> None:
    assert choose_crop(extent((300, 400)))[1] == "the images whole"
    assert choose_crop(extent((300, 4000)))[1] == "of 300x4000, the images; no side above 512"
    mixed = Extent(sizes=((100, 200), (300, 200), (301, 900)), areas=(1.0,), borders=(0.0,), ground=0)
    assert choose_crop(mixed) == ((300, 200), "the median image whole")


def test_the_median_class_besides_the_ground_counts_and_of_objects_each_class() -> None:
    assert typical_thickness(extent((64, 64), 20, 3, 8)) == (3, pytest.approx(8))
    assert typical_thickness(extent((64, 64), 3, 20)) == (1, pytest.approx(3))
    assert typical_thickness(extent((64, 64))) is None
    assert typical_thickness(extent((64, 64), ground=None)) == (0, pytest.approx(2000))


# ---- the look at the data
def test_thin_grey_structures_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = train_of(write_thin(tmp_path, counts={"train": 3, "val": 1}, size=(96, 128), width=2, curves=3))
    transforms, lines = chosen_transforms(OPEN, data)
    assert (transforms.crop, transforms.scale) == ((96, 128), None)
    assert lines[0] == "chosen transforms.crop=[96,128]: the images whole"
    assert lines[1].startswith("chosen transforms.scale=null: line is ")
    assert lines[2] == NO_UP
    seen = look_at(data)
    assert 2 < (thickness(seen.areas[1], seen.borders[1]) or 0) < 6
    assert look_at(data, count=1).sizes == ((96, 128),)
    assert sum(seen.areas) == 3 * 96 * 128
    monkeypatch.setattr(choices, "LARGEST_LOOK", 50)
    part = look_at(data)
    assert (part.sizes, sum(part.areas)) == (seen.sizes, 3 * 50 * 50)


def test_what_the_recipe_states_is_left_and_a_resize_comes_first(tmp_path: Path) -> None:
    data = train_of(write_thin(tmp_path, counts={"train": 2, "val": 1}, size=(48, 64), width=2, curves=2))
    stated = TransformsConfig(crop=(40, 40), scale=(0.1, 0.2))
    assert chosen_transforms(stated, data) == (stated, [])
    one, lines = chosen_transforms(TransformsConfig(crop=(40, 40), scale="auto", turns=True), data)
    assert (one.crop, one.scale, len(lines)) == ((40, 40), None, 1)
    larger = chosen_transforms(OPEN.model_copy(update={"resize": "short:480"}), data)[0]
    assert (larger.crop, larger.scale) == ((480, 512), (0.67, 1.5))
    before, after = look_at(data), look_at(data, "short:480")
    ratio = (thickness(after.areas[1], after.borders[1]) or 0) / (thickness(before.areas[1], before.borders[1]) or 1)
    assert ratio == pytest.approx(10)


def test_samples_that_cannot_be_loaded_are_left_out(tmp_path: Path) -> None:
    data = train_of(write_folder(tmp_path, counts={"train": 3, "val": 1}))
    for index in range(3):
        assert look_at(data).sizes == ((32, 48),) * (3 - index)
        data.files(index)[0].write_bytes(b"no image")
    transforms, lines = chosen_transforms(OPEN, data)
    assert (transforms.crop, transforms.scale) == ((512, 512), (0.5, 2.0))
    assert "no image could be looked at" in lines[0]


def test_objects_have_a_thickness_too(tmp_path: Path) -> None:
    write_shapes(tmp_path)
    of_objects = create_dataset(DataConfig(root=str(tmp_path), name="folder"), "train", target="InstancesTarget")
    seen = look_at(of_objects)
    assert seen.ground is None
    assert typical_thickness(seen) is not None
