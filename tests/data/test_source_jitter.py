"""Further inputs moved by themselves: image and truth stay, the source moves, and all follows from the generator."""

from __future__ import annotations

import numpy as np
import pytest

from segatlas.config.transforms import TransformsConfig
from segatlas.data.sample import Sample, Source
from segatlas.data.transforms.pipeline import Pipeline
from segatlas.data.transforms.source_jitter import SourceJitter
from segatlas.errors import ConfigError, UsageError
from segatlas.recipe import Config
from segatlas.structures import InputSpec, SemanticTarget

SIZE = (24, 32)
CODES = np.random.default_rng(0).integers(0, 4, SIZE).astype(np.uint8)
IMAGE = np.repeat(CODES[..., None] * 60, 3, axis=2)
SPECS = (
    InputSpec(name="prior", kind="label", channels=1, required=False),
    InputSpec(name="before", kind="image"),
    InputSpec(name="heights", kind="map", channels=1),
)


def sample(prior=CODES):
    sources = {
        "prior": Source(array=prior, kind="label"),
        "before": Source(array=IMAGE),
        "heights": Source(array=CODES.astype(np.float32), kind="map"),
    }
    return Sample(image=IMAGE, target=SemanticTarget(CODES), key="a", sources=sources)


def prepared(seed=1, given=None, **transforms):
    pipeline = Pipeline.from_config(TransformsConfig(**transforms), (0.0,) * 3, (1.0,) * 3, 255.0, 3, SPECS)
    return pipeline(given or sample(), np.random.default_rng(seed))


def test_without_jitter_all_move_alike_and_with_it_the_rest_stays_as_it_was():
    common = {"rotation": 20, "crop": (20, 20), "flip": 0.5}
    plain = prepared(**common)
    assert np.array_equal(plain.sources["prior"], plain.label)
    moved = prepared(**common, source_jitter={"prior": {"shift": 0.3}})
    assert np.array_equal(moved.image, plain.image)
    assert np.array_equal(moved.label, plain.label)
    for name in ("before", "heights"):
        assert np.array_equal(moved.sources[name], plain.sources[name])
    assert not np.array_equal(moved.sources["prior"], plain.sources["prior"])


def test_a_shift_moves_by_its_fraction_of_the_sides_and_padding_follows():
    moved = [prepared(seed, flip=0, source_jitter={"prior": {"shift": 0.25}}).sources["prior"] for seed in range(30)]
    gone = [(codes == 255).any(axis=1).mean() for codes in moved]
    for codes in moved:
        rows, columns = np.nonzero(codes != 255)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert (height, width) >= (18, 24)
        assert np.array_equal(
            codes[codes != 255].reshape(height, width),
            CODES[slice(*((24 - height, 24) if rows.min() == 0 else (0, height))),
                  slice(*((32 - width, 32) if columns.min() == 0 else (0, width)))],
        )  # fmt: skip
    assert max(gone) > 0


@pytest.mark.parametrize("name", ["prior", "before", "heights"])
@pytest.mark.parametrize("jitter", [{"scale": (0.5, 0.7)}, {"rotation": 40}, {"bend": 0.1}])
def test_each_kind_of_source_takes_each_kind_of_jitter(name, jitter):
    plain = prepared(flip=0).sources[name]
    moved = prepared(flip=0, source_jitter={name: jitter}).sources[name]
    assert moved.shape == plain.shape
    assert moved.dtype == plain.dtype
    assert not np.array_equal(moved, plain)
    assert np.array_equal(moved, prepared(flip=0, source_jitter={name: jitter}).sources[name])
    never = prepared(flip=0, source_jitter={name: {**jitter, "probability": 0}}).sources[name]
    assert np.array_equal(never, plain)


def test_a_scale_below_1_makes_what_it_shows_smaller():
    placement = SourceJitter(scale=(0.5, 0.5)).draw(np.random.default_rng(0), SIZE)
    assert placement.shown(np.array(16.0), np.array(12.0)) == (16.0, 12.0)
    assert placement.shown(np.array(8.0), np.array(6.0)) == (0.0, 0.0)


def test_where_the_image_is_padding_a_moved_source_is_too():
    out = prepared(crop=(40, 48), flip=0, source_jitter={"prior": {"shift": 0.4}})
    padded = np.abs(out.image).sum(axis=2) == 0
    outside = out.label == 255
    assert outside.any()
    assert padded[outside].all()
    assert (out.sources["prior"][outside] == 255).all()


def test_codes_that_are_ignored_everywhere_count_as_absent():
    assert prepared().present == {"prior": True}
    assert prepared(given=sample(np.full(SIZE, 255, np.uint8))).present == {"prior": False}
    almost = np.full(SIZE, 255, np.uint8)
    almost[3, 4] = 0
    assert prepared(given=sample(almost)).present == {"prior": True}


def test_jitter_of_what_is_no_source_or_of_wrong_numbers_is_named():
    with pytest.raises(UsageError, match="'priors' is no source of the network, which takes: prior, before, heights"):
        prepared(source_jitter={"priors": {"shift": 0.1}})
    recipe = {"model": {"name": "fc_siam"}, "data": {"name": "pairs"}}
    with pytest.raises(ConfigError, match="fc_siam takes no source 'prior'; besides the image it takes: before"):
        Config.load({**recipe, "transforms": {"source_jitter": {"prior": {"shift": 0.1}}}})
    with pytest.raises(ConfigError, match=r"source_jitter\.before\.scale"):
        Config.load({**recipe, "transforms": {"source_jitter": {"before": {"scale": [2, 1]}}}})
