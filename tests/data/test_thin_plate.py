"""segatlas.data.transforms.thin_plate: the spline of `layers.tps`, and what it does to samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segatlas.config.transforms import TransformsConfig
from segatlas.data.sample import Sample, Source
from segatlas.data.transforms import Pipeline, ThinPlateWarp, warp_label
from segatlas.data.transforms.targets import warp_target
from segatlas.data.transforms.thin_plate import bent
from segatlas.layers.tps import fit, lattice_points
from segatlas.structures import InputSpec, InstancesTarget, SemanticTarget

SIZE = (30, 40)


def test_it_is_the_spline_of_the_layers():
    moves = np.random.default_rng(0).normal(0, 0.1, (9, 2))
    grid = bent(SIZE, moves).grid
    at = lattice_points(3, 1.0, torch.zeros(1, dtype=torch.float64))
    plate = fit(at, at + torch.from_numpy(moves))
    x, y = (np.arange(40) + 0.5) / 20 - 1, (np.arange(30) + 0.5) / 15 - 1
    centres = np.stack(np.broadcast_arrays(x, y[:, None]), axis=-1)
    expected = (plate(torch.from_numpy(centres).flatten(0, 1)).numpy().reshape(30, 40, 2) + 1) * (20, 15)
    np.testing.assert_allclose(grid, expected, atol=1e-5)


def test_no_move_is_the_identity_and_a_common_one_a_shift():
    codes = np.random.default_rng(1).integers(0, 7, SIZE).astype(np.uint8)
    assert np.array_equal(warp_label(codes, bent(SIZE, np.zeros((16, 2)))), codes)
    moved = warp_label(codes, bent(SIZE, np.full((16, 2), (0.1, 0.2))))  # 2 columns, 3 rows
    assert np.array_equal(moved[:-3, :-2], codes[3:, 2:])
    assert (moved[-3:] == 255).all()


def test_the_fraction_of_bent_samples_is_the_probability_and_seeds_repeat():
    step, draws = ThinPlateWarp(probability=0.25), np.random.default_rng(0)
    bends = [step.draw(draws, SIZE).grid is not None for _ in range(200)]
    assert 0.15 < np.mean(bends) < 0.35
    same = [ThinPlateWarp(probability=1).draw(np.random.default_rng(3), SIZE).grid for _ in range(2)]
    assert np.array_equal(*same)


def test_image_sources_and_truth_of_any_type_are_bent_alike():
    """Where values are constant over blocks, each kind shows the value of the same block, but near their edges."""
    blocks = np.kron(np.arange(12).reshape(3, 4), np.ones((10, 10))).astype(np.uint8)
    config = TransformsConfig(flip=0, tps={"probability": 1, "sigma": 0.08})
    specs = (InputSpec(name="map", kind="map", channels=1), InputSpec(name="prior", kind="label", channels=1))
    pipeline = Pipeline.from_config(config, (0.0,), (1.0,), 1.0, 1, specs)
    sample = Sample(
        image=blocks[..., None].astype(np.float32),
        target=SemanticTarget(blocks),
        key="a",
        sources={
            "map": Source(array=blocks[..., None].astype(np.float32), kind="map"),
            "prior": Source(array=blocks, kind="label"),
        },
    )
    found = pipeline(sample, np.random.default_rng(2))
    assert np.array_equal(found.sources["prior"], found.label)
    assert (found.label != blocks).mean() > 0.05
    inside = found.label != 255
    for values in (found.image[..., 0], found.sources["map"][..., 0]):
        assert (np.abs(values - found.label)[inside] < 1e-3).mean() > 0.6
    placement = ThinPlateWarp(probability=1, sigma=0.08).draw(np.random.default_rng(2), SIZE)
    objects = InstancesTarget(blocks == np.arange(12)[:, None, None], np.zeros(12, np.int64), np.zeros(12, bool))
    moved, codes = warp_target(objects, placement), warp_label(blocks, placement)
    for mask in np.asarray(moved.masks):  # and so their boxes, which are made of masks
        assert len(set(codes[mask])) == 1
    assert np.array_equal(np.asarray(moved.masks).any(0), codes != 255)


@pytest.mark.parametrize("wrong", [{"sigma": 0}, {"points": 1}, {"probability": 2}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TransformsConfig(tps=wrong)
