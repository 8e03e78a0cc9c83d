from __future__ import annotations

import cv2
import numpy as np
import pytest

from segatlas.config.transforms import BlurConfig, PhotometricConfig, TransformsConfig
from segatlas.data.sample import Sample, Source
from segatlas.data.transforms import EvalPipeline, Pipeline, normalise
from segatlas.data.transforms import pipeline as pipeline_module
from segatlas.errors import DataError, UsageError
from segatlas.structures import IGNORE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = (24, 32)


def sample(channels: int = 3, dtype: str = "uint8", **fields: object) -> Sample:
    draws = np.random.default_rng(0)
    image = draws.integers(20, 256, (*SIZE, channels)).astype(dtype)
    label = draws.integers(0, 5, SIZE).astype(np.uint8)
    return Sample(**{"image": image, "label": label, "key": "a/b", **fields})


def pipeline(channels: int = 3, **transforms: object) -> Pipeline:
    mean, std = (MEAN, STD) if channels == 3 else ((0.5,) * channels, (0.2,) * channels)
    return Pipeline.from_config(TransformsConfig(**transforms), mean, std, 255.0, channels)


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
    "blur": BlurConfig(fraction=0.5),
}


def test_the_ignore_value_is_that_of_structures() -> None:
    assert pipeline_module.IGNORE == IGNORE


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


@pytest.mark.parametrize("extra", [{}, {"photometric": PhotometricConfig(fraction=1), "blur": BlurConfig(fraction=1)}])
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
    for run in (pipeline(**EVERYTHING), pipeline(flip=0), EvalPipeline(mean=MEAN, std=STD)):
        out = run(data, np.random.default_rng(0))
        out.image[:] = 0
        out.label[:] = 0
    np.testing.assert_array_equal(data.image, image)
    np.testing.assert_array_equal(data.label, label)


def test_photometric_is_applied_to_its_fraction_of_samples() -> None:
    run, data = pipeline(flip=0, photometric=PhotometricConfig(fraction=0.5)), sample()
    plain = normalise(data.image, MEAN, STD, 255.0)
    changed = [not np.array_equal(run(data, np.random.default_rng(seed)).image, plain) for seed in range(40)]
    assert 8 < sum(changed) < 32


def test_blur_is_that_of_opencv_on_stored_values() -> None:
    data = sample()
    out = pipeline(flip=0, blur=BlurConfig(fraction=1, sigma=(0.9, 0.9)))(data, np.random.default_rng(0))
    blurred = cv2.GaussianBlur(data.image, (0, 0), 0.9, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(out.image, normalise(blurred, MEAN, STD, 255.0))


def test_sources_go_through_the_geometry_of_the_image() -> None:
    image, label = sample().image, sample().label
    sources = {"before": Source(array=image), "prior": Source(array=label, kind="label")}
    run = Pipeline.from_config(
        TransformsConfig(**EVERYTHING | {"photometric": None, "blur": None}), MEAN, STD, 255.0, 3
    )
    out = run(sample(sources=sources), np.random.default_rng(4))
    np.testing.assert_array_equal(out.sources["prior"].array, out.label)
    before = normalise(out.sources["before"].array, MEAN, STD, 255.0)
    inside = out.label != 255
    np.testing.assert_array_equal(before[inside], out.image[inside])
    assert (out.sources["before"].array[~inside] == 0).all()


def test_a_sample_without_truth_gets_a_label_of_255() -> None:
    assert (pipeline(crop=(8, 8))(sample(label=None), np.random.default_rng(0)).label == np.full((8, 8), 255)).all()
    assert (EvalPipeline(mean=MEAN, std=STD)(sample(label=None)).label == np.full(SIZE, 255)).all()


def test_evaluation_resizes_the_image_and_leaves_the_label() -> None:
    data = sample(sources={"prior": Source(array=sample().label, kind="label")})
    out = EvalPipeline(mean=MEAN, std=STD, resize="short:48")(data)
    np.testing.assert_array_equal(out.image, normalise(cv2.resize(data.image, (64, 48)), MEAN, STD, 255.0))
    np.testing.assert_array_equal(out.label, data.label)
    np.testing.assert_array_equal(out.sources["prior"].array, data.label.repeat(2, axis=0).repeat(2, axis=1))


def test_evaluation_without_resize_is_normalise_alone() -> None:
    data = sample()
    out = EvalPipeline(mean=MEAN, std=STD)(data)
    np.testing.assert_array_equal(out.image, normalise(data.image, MEAN, STD, 255.0))


def test_a_wrong_number_of_means_is_named_with_its_key() -> None:
    with pytest.raises(UsageError, match=r"model\.input\.mean: got 3 values, expected 4"):
        Pipeline.from_config(TransformsConfig(), MEAN, STD, 255.0, 4)


@pytest.mark.parametrize(
    "fields",
    [
        {"image": np.zeros((*SIZE, 4), np.uint8)},
        {"image": np.zeros(SIZE, np.uint8)},
        {"label": np.zeros((5, 5), np.uint8)},
        {"sources": {"prior": Source(array=np.zeros((5, 5), np.uint8), kind="label")}},
    ],
)
def test_arrays_that_do_not_fit_are_an_error_that_names_the_sample(fields: dict[str, object]) -> None:
    for run in (pipeline(), EvalPipeline(mean=MEAN, std=STD)):
        with pytest.raises(DataError, match="a/b"):
            run(sample(**fields), np.random.default_rng(0))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2)])
def test_tiny_and_thin_images_go_through(size: tuple[int, int]) -> None:
    data = sample(image=np.full((*size, 3), 9, np.uint8), label=np.ones(size, np.uint8))
    for seed in range(4):
        out = pipeline(**EVERYTHING)(data, np.random.default_rng(seed))
        assert out.image.shape == (20, 28, 3)
        assert set(np.unique(out.label)) <= {1, 255}
