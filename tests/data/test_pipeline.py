from __future__ import annotations

import cv2
import numpy as np
import pytest

from segatlas.config.transforms import BlurConfig, PhotometricConfig, TransformsConfig
from segatlas.data.sample import Sample, Source
from segatlas.data.transforms import Pipeline, normalise
from segatlas.errors import DataError, UsageError
from segatlas.structures import InputSpec, InstancesTarget, SegmentsTarget, SemanticTarget

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = (24, 32)


def sample(channels: int = 3, dtype: str = "uint8", **fields: object) -> Sample:
    draws = np.random.default_rng(0)
    image = draws.integers(20, 256, (*SIZE, channels)).astype(dtype)
    label = draws.integers(0, 5, SIZE).astype(np.uint8)
    return Sample(**{"image": image, "target": SemanticTarget(label), "key": "a/b", **fields})


BEFORE = InputSpec(name="before")
PRIOR = InputSpec(name="prior", kind="label", channels=1)
HEIGHTS = InputSpec(name="heights", kind="map", channels=1)


def pipeline(channels: int = 3, sources: tuple[InputSpec, ...] = (), **transforms: object) -> Pipeline:
    mean, std = (MEAN, STD) if channels == 3 else ((0.5,) * channels, (0.2,) * channels)
    return Pipeline.from_config(TransformsConfig(**transforms), mean, std, 255.0, channels, sources)


EVERYTHING = {
    "resize": "short:30",
    "scale": (0.5, 2.0),
    "aspect": 0.2,
    "rotation": 15.0,
    "crop": (20, 28),
    "class_balance": 0.6,
    "flip_vertical": 0.5,
    "turns": True,
    "photometric": PhotometricConfig(),
    "blur": BlurConfig(probability=0.5),
}


def test_no_transforms_is_normalise_alone() -> None:
    data = sample()
    out = pipeline(flip=0)(data, np.random.default_rng(0))
    np.testing.assert_array_equal(out.image, normalise(data.image, MEAN, STD, 255.0))
    np.testing.assert_array_equal(out.label, data.label)
    assert out.key == "a/b"


def test_flip_mirrors_image_and_label_together() -> None:
    data = sample()
    out = pipeline(flip=1)(data, np.random.default_rng(0))
    np.testing.assert_array_equal(out.image, normalise(data.image, MEAN, STD, 255.0)[:, ::-1])
    np.testing.assert_array_equal(out.label, data.label[:, ::-1])


@pytest.mark.parametrize(("channels", "dtype"), [(3, "uint8"), (1, "uint8"), (6, "uint16"), (4, "float32")])
def test_everything_at_once_gives_a_contiguous_float_crop(channels: int, dtype: str) -> None:
    out = pipeline(channels, **EVERYTHING)(sample(channels, dtype), np.random.default_rng(3))
    assert out.image.shape == (20, 28, channels)
    assert out.image.dtype == np.float32
    assert out.image.flags.c_contiguous
    assert out.label.shape == (20, 28)
    assert out.label.dtype == np.uint8
    assert set(np.unique(out.label)) <= {0, 1, 2, 3, 4, 255}


def test_the_same_generator_gives_the_same_sample_and_another_one_does_not() -> None:
    run, data = pipeline(**EVERYTHING), sample()
    first, again, other = (run(data, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize(
    "extra", [{}, {"photometric": PhotometricConfig(probability=1), "blur": BlurConfig(probability=1)}]
)
@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_padding_is_exactly_zero_where_the_label_is_255(extra: dict[str, object], rotation: float) -> None:
    run = pipeline(crop=(40, 40), rotation=rotation, **extra)
    for seed in range(5):
        out = run(sample(), np.random.default_rng(seed))
        padded = out.label == 255
        assert padded.any()
        assert (out.image[padded] == 0).all()
        assert (out.image[~padded] != 0).any(axis=1).all()


def test_the_samples_own_arrays_are_not_touched() -> None:
    data = sample()
    image, label = data.image.copy(), data.label.copy()
    for run in (pipeline(**EVERYTHING), pipeline(flip=0)):
        out = run(data, np.random.default_rng(0))
        out.image[:] = 0
        out.label[:] = 0
    np.testing.assert_array_equal(data.image, image)
    np.testing.assert_array_equal(data.label, label)


def test_photometric_is_applied_to_its_fraction_of_samples() -> None:
    run, data = pipeline(flip=0, photometric=PhotometricConfig(probability=0.5)), sample()
    plain = normalise(data.image, MEAN, STD, 255.0)
    changed = [not np.array_equal(run(data, np.random.default_rng(seed)).image, plain) for seed in range(40)]
    assert 8 < sum(changed) < 32


def test_blur_is_that_of_opencv_on_stored_values() -> None:
    data = sample()
    out = pipeline(flip=0, blur=BlurConfig(probability=1, sigma=(0.9, 0.9)))(data, np.random.default_rng(0))
    blurred = cv2.GaussianBlur(data.image, (0, 0), 0.9, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(out.image, normalise(blurred, MEAN, STD, 255.0))


@pytest.mark.parametrize("seed", range(4))
def test_sources_go_through_geometry_and_colour_of_the_image(seed: int) -> None:
    data = sample()
    sources = {"before": Source(array=data.image), "prior": Source(array=data.label, kind="label")}
    run = pipeline(sources=(BEFORE, PRIOR), **EVERYTHING)
    out = run(sample(sources=sources), np.random.default_rng(seed))
    np.testing.assert_array_equal(out.sources["prior"], out.label)
    np.testing.assert_array_equal(out.sources["before"], out.image)
    assert out.present == {}
    alone = pipeline(**EVERYTHING)(data, np.random.default_rng(seed))
    np.testing.assert_array_equal(out.image, alone.image)


def test_values_reach_the_network_as_stored() -> None:
    heights = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE)
    run = pipeline(sources=(HEIGHTS,), flip=1, photometric=PhotometricConfig())
    out = run(sample(sources={"heights": Source(array=heights, kind="map")}), np.random.default_rng(0))
    assert out.sources["heights"].dtype == np.float32
    np.testing.assert_array_equal(out.sources["heights"], heights[:, ::-1, None])


def test_sources_that_the_network_does_not_take_never_reach_it() -> None:
    data = sample(sources={"before": Source(array=sample().image)})
    assert pipeline()(data, np.random.default_rng(0)).sources == {}


@pytest.mark.parametrize(("kind", "padding"), [("map", 0), ("label", 255)])
def test_an_optional_source_that_is_missing_is_padding_and_said_to_be_missing(kind: str, padding: int) -> None:
    spec = InputSpec(name="further", kind=kind, channels=1, required=False)
    run = pipeline(sources=(spec,), crop=(8, 8))
    there = sample(sources={"further": Source(array=np.ones(SIZE, np.uint8), kind=kind)})
    assert run(there, np.random.default_rng(0)).present == {"further": True}
    out = run(sample(), np.random.default_rng(0))
    assert out.present == {"further": False}
    assert (out.sources["further"] == padding).all()
    assert out.sources["further"].shape[:2] == (8, 8)


@pytest.mark.parametrize("seed", range(4))
def test_truths_of_every_type_move_as_labels_do(seed: int) -> None:
    labels = sample().label
    things, none = np.ones(5, bool), np.zeros(5, bool)
    segments = SegmentsTarget(labels.astype(np.int32), np.arange(5), things, none)
    objects = InstancesTarget(labels == np.arange(5)[:, None, None], np.arange(5), none)
    runs = [
        pipeline(**EVERYTHING | {"class_balance": 1.0})(sample(target=target), np.random.default_rng(seed))
        for target in (SemanticTarget(labels), segments, objects)
    ]
    moved, ids, masks = runs[0].label, runs[1].target.ids, runs[2].target.masks
    np.testing.assert_array_equal(ids, np.where(moved == 255, -1, moved.astype(int)))
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(masks, moved == runs[2].target.classes[:, None, None])
    np.testing.assert_array_equal(runs[2].image, runs[0].image)
    beyond = np.zeros(moved.shape, bool) if runs[2].target.padding is None else runs[2].target.padding
    np.testing.assert_array_equal(beyond, moved == 255)


def test_the_padding_of_objects_is_known_and_there_is_none_inside_an_image() -> None:
    objects = InstancesTarget(np.zeros((0, *SIZE), bool), np.zeros(0, np.int64), np.zeros(0, bool))
    larger = pipeline(crop=(30, 40), crop_padding="end", flip=0)(sample(target=objects), np.random.default_rng(0))
    expected = np.ones((30, 40), bool)
    expected[: SIZE[0], : SIZE[1]] = False
    np.testing.assert_array_equal(larger.target.padding, expected)
    inside = pipeline(crop=(8, 8))(sample(target=objects), np.random.default_rng(0))
    assert inside.target.padding is None


def test_instances_that_vanish_are_dropped_with_their_rows() -> None:
    masks = np.zeros((3, *SIZE), bool)
    masks[0, :4, :4] = masks[2, :, 20:] = True
    data = sample(target=InstancesTarget(masks, np.array([5, 6, 7]), np.array([False, False, True])))
    target = pipeline(resize="12x16", flip=1)(data, np.random.default_rng(0)).target
    assert target.classes.tolist() == [5, 7]
    assert target.crowd.tolist() == [False, True]
    np.testing.assert_array_equal(target.masks[0], np.pad(np.ones((2, 2), bool), ((0, 10), (14, 0))))


def test_a_truth_of_another_type_has_no_label() -> None:
    objects = InstancesTarget(np.ones((1, *SIZE), bool), np.array([0]), np.array([False]))
    data = sample(target=objects)
    assert data.label is None
    with pytest.raises(TypeError, match="InstancesTarget"):
        _ = pipeline()(data, np.random.default_rng(0)).label


def test_a_sample_without_truth_gets_a_label_of_255() -> None:
    assert (pipeline(crop=(8, 8))(sample(target=None), np.random.default_rng(0)).label == np.full((8, 8), 255)).all()


def test_a_wrong_number_of_means_is_named_with_its_key() -> None:
    with pytest.raises(UsageError, match=r"model\.input\.mean: got 3 values, expected 4"):
        Pipeline.from_config(TransformsConfig(), MEAN, STD, 255.0, 4)


@pytest.mark.parametrize(
    "fields",
    [
        {"image": np.zeros((*SIZE, 4), np.uint8)},
        {"image": np.zeros(SIZE, np.uint8)},
        {"target": SemanticTarget(np.zeros((5, 5), np.uint8))},
        {"sources": {"prior": Source(array=np.zeros((5, 5), np.uint8), kind="label")}},
        {"sources": {"prior": Source(array=np.zeros((*SIZE, 3), np.uint8), kind="image")}},
        {"sources": {"prior": Source(array=np.zeros((*SIZE, 3), np.uint8), kind="label")}},
        {"sources": {}},
    ],
)
def test_arrays_that_do_not_fit_are_an_error_that_names_the_sample(fields: dict[str, object]) -> None:
    prior = {"prior": Source(array=sample().label, kind="label")}
    run = pipeline(sources=(PRIOR,))
    run(sample(sources=prior), np.random.default_rng(0))
    with pytest.raises(DataError, match="a/b"):
        run(sample(**{"sources": prior} | fields), np.random.default_rng(0))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2)])
def test_tiny_and_thin_images_go_through(size: tuple[int, int]) -> None:
    data = sample(image=np.full((*size, 3), 9, np.uint8), target=SemanticTarget(np.ones(size, np.uint8)))
    for seed in range(4):
        out = pipeline(**EVERYTHING)(data, np.random.default_rng(seed))
        assert out.image.shape == (20, 28, 3)
        assert set(np.unique(out.label)) <= {1, 255}


def test_photometric_in_steps_changes_colours_before_normalisation_and_padding_stays_zero() -> None:
    config = PhotometricConfig(kind="steps", probability=1, hue=36)
    plain, changed = pipeline(flip=0, crop=(40, 60)), pipeline(flip=0, crop=(40, 60), photometric=config)
    first, second = plain(sample(), np.random.default_rng(3)), changed(sample(), np.random.default_rng(3))
    np.testing.assert_array_equal(first.label, second.label)
    inside = first.image != 0
    assert not np.array_equal(first.image, second.image)
    assert (second.image[~inside.any(axis=2)] == 0).all()
