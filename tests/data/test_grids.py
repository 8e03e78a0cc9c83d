"""Placements that carry a dense grid: what an affine does they do alike, and they move image, sources and truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from segatlas.data.sample import Sample, Source
from segatlas.data.transforms.geometry import (
    Crop,
    Flip,
    Geometry,
    Placement,
    Resize,
    Rotation,
    ScaleJitter,
    Turns,
    identity,
    largest_class_fraction,
)
from segatlas.data.transforms.pipeline import Pipeline
from segatlas.data.transforms.warp import fill_outside, warp_image, warp_label
from segatlas.structures import InputSpec, SemanticTarget

SIZE = (46, 62)
CODES = np.random.default_rng(1).integers(0, 7, SIZE).astype(np.uint8)


def smooth_image():
    noise = np.random.default_rng(0).uniform(0, 255, (*SIZE, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3).clip(0, 255)


@dataclass(frozen=True, kw_only=True)
class Elastic:
    """Moves every point by smooth noise of up to `amount` pixels."""

    amount: float

    def draw(self, generator, size):
        plain = identity(size)
        noise = generator.uniform(-1, 1, (4, 4, 2)).astype(np.float32)
        bend = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float64)
        return Placement(matrix=plain.matrix, size=size, grid=plain.points() + self.amount * bend)


def as_grid(placement):
    return Placement(matrix=placement.matrix, size=placement.size, grid=placement.points())


GEOMETRIES = {
    "rotation": (Rotation(degrees=30),),
    "resize": (Resize(target="31x90"),),
    "shrink": (Resize(target="15x20"),),
    "flip": (Flip(probability=1),),
    "turns": (Turns(),),
    "crop": (Crop(size=(20, 30)),),
    "beyond": (Crop(size=(60, 80)), Rotation(degrees=10)),
    "all": (ScaleJitter(low=0.6, high=1.6), Rotation(degrees=40), Crop(size=(40, 50)), Flip(probability=1)),
}


def drawn(steps, seed=5):
    return Geometry(before=steps).draw(np.random.default_rng(seed), SIZE)


@pytest.mark.parametrize("steps", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_grid_of_an_affine_does_what_the_affine_does(steps):
    affine = drawn(steps)
    grid = as_grid(affine)
    assert np.array_equal(warp_label(CODES, grid), warp_label(CODES, affine))
    image = smooth_image()
    for kind in (np.uint8, np.float32):
        got, wanted = (warp_image(image.astype(kind), placement).astype(float) for placement in (grid, affine))
        for out, placement in ((got, grid), (wanted, affine)):
            fill_outside(out, placement, SIZE, -1)
        assert np.abs(got - wanted).max() <= 1
    assert largest_class_fraction(CODES, grid) == largest_class_fraction(CODES, affine)


@pytest.mark.parametrize("before", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("after", ["rotation", "beyond", "resize", "turns"])
def test_grids_and_affines_compose_in_any_order(before, after):
    first = drawn(before)
    second = Geometry(before=GEOMETRIES[after]).draw(np.random.default_rng(6), first.size)
    wanted = first.then(second).points()
    for one, two in ((as_grid(first), second), (first, as_grid(second)), (as_grid(first), as_grid(second))):
        composed = one.then(two)
        assert composed.size == second.size
        assert np.allclose(composed.points(), wanted, atol=1e-9)
        assert np.allclose(composed.matrix, first.matrix @ second.matrix)


def test_a_bend_is_seen_where_the_steps_around_it_put_it():
    elastic = Elastic(amount=4).draw(np.random.default_rng(0), SIZE)
    flip = Flip(probability=1).draw(np.random.default_rng(0), SIZE)
    crop = Placement(matrix=np.array([[1.0, 0, 7], [0, 1, 3], [0, 0, 1]]), size=(20, 30))
    chain = flip.then(elastic).then(crop)
    wanted = elastic.grid[3:23, 7:37] * [-1, 1] + [SIZE[1], 0]
    assert np.allclose(chain.grid, wanted)


def test_pixels_take_the_nearest_label_and_outside_is_padded():
    grid = np.stack(np.meshgrid(np.linspace(-5, 66, 40), np.linspace(-3, 50, 30)), axis=-1)
    placement = Placement(matrix=np.eye(3), size=(30, 40), grid=grid)
    wanted = np.full((30, 40), 255, np.uint8)
    for row, column in np.ndindex(30, 40):
        x, y = np.floor(grid[row, column]).astype(int)
        if 0 <= x < SIZE[1] and 0 <= y < SIZE[0]:
            wanted[row, column] = CODES[y, x]
    assert np.array_equal(warp_label(CODES, placement), wanted)
    image = warp_image(np.full((*SIZE, 3), 9, np.uint8), placement)
    fill_outside(image, placement, SIZE, 0)
    assert np.array_equal(image[..., 0] == 0, wanted == 255)


def test_a_bent_sample_moves_image_sources_and_truth_together():
    image = np.repeat(CODES[..., None], 3, axis=2) * np.uint8(20)
    specs = (
        InputSpec(name="before", kind="image"),
        InputSpec(name="heights", kind="map", channels=1),
        InputSpec(name="prior", kind="label", channels=1),
    )
    sample = Sample(
        image=image,
        target=SemanticTarget(CODES),
        key="a",
        sources={
            "before": Source(array=image),
            "heights": Source(array=image[..., 0].astype(np.float32), kind="map"),
            "prior": Source(array=CODES, kind="label"),
        },
    )
    geometry = Geometry(before=(Rotation(degrees=20), Elastic(amount=5)), crop=Crop(size=(40, 44), class_balance=0.5))
    pipeline = Pipeline(geometry=geometry, mean=(0.0,) * 3, std=(1.0,) * 3, sources=specs)
    out = pipeline(sample, np.random.default_rng(2))
    assert out.image.shape == (40, 44, 3)
    assert np.array_equal(out.sources["before"], out.image)
    assert np.array_equal(out.sources["prior"], out.label)
    assert np.allclose(out.sources["heights"][..., 0], out.image[..., 0] * 255, atol=1.5)
    assert (out.image[out.label == 255] == 0).all()
    assert 0 < (out.label == 255).mean() < 0.5
    again = pipeline(sample, np.random.default_rng(2))
    assert np.array_equal(again.image, out.image)
