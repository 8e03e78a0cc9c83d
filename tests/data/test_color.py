from __future__ import annotations

import colorsys

import numpy as np
import pytest

from segatlas.data.transforms.color import ColorChange, GaussianBlur, Photometric, normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_image(channels: int = 3, dtype: str = "uint8", high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, (13, 17, channels)).astype(dtype)


def slow_normalise(values: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    return (values - np.array(mean)) / np.array(std)


@pytest.mark.parametrize(("dtype", "max_value"), [("uint8", 255.0), ("uint16", 65535.0), ("float32", 1000.0)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_normalise_is_value_over_max_minus_mean_over_std(dtype: str, max_value: float, channels: int) -> None:
    image = random_image(channels, dtype)
    mean, std = (
        tuple(0.1 * channel for channel in range(channels)),
        tuple(0.2 + 0.1 * channel for channel in range(channels)),
    )
    out = normalise(image, mean, std, max_value)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    np.testing.assert_allclose(out, slow_normalise(image / max_value, mean, std), rtol=1e-5, atol=1e-6)


def test_normalise_in_pieces_covers_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_image()
    whole = normalise(image, MEAN, STD, 255.0)
    monkeypatch.setattr("segatlas.data.transforms.color.PIECE", 120)
    np.testing.assert_array_equal(normalise(image, MEAN, STD, 255.0), whole)


def test_normalise_without_change_does_not_clip() -> None:
    image = np.array([[[-2.0], [3.0]]], np.float32)
    np.testing.assert_allclose(normalise(image, (0.0,), (1.0,), 1.0), image)


def test_normalise_refuses_a_wrong_number_of_means() -> None:
    with pytest.raises(ValueError, match="4 channels, but 3 means"):
        normalise(random_image(4), MEAN, STD, 255.0)


def test_a_change_equals_its_steps_one_after_another_clipped_then_normalised() -> None:
    image = random_image()
    change = ColorChange(brightness=0.1, contrast=1.3, saturation=0.6, hue=15)
    values = (image / 255.0 + 0.1) * 1.3
    grey = (values * [0.299, 0.587, 0.114]).sum(axis=2, keepdims=True)
    values = grey + 0.6 * (values - grey)
    angle = np.radians(15)
    axis = np.full(3, 1 / np.sqrt(3))
    along = (values @ axis)[..., None] * axis
    values = along + np.cos(angle) * (values - along) + np.sin(angle) * np.cross(axis, values)
    assert (values < 0).any() or (values > 1).any()
    expected = slow_normalise(values.clip(0, 1), MEAN, STD)
    np.testing.assert_allclose(normalise(image, MEAN, STD, 255.0, change), expected, atol=1e-5)


def test_a_change_of_other_channel_counts_is_brightness_and_contrast_per_channel() -> None:
    image = random_image(5)
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (0.2, 0.3, 0.4, 0.5, 0.6)
    change = ColorChange(brightness=-0.1, contrast=1.4, saturation=0.2, hue=90)
    expected = slow_normalise(((image / 255.0 - 0.1) * 1.4).clip(0, 1), mean, std)
    np.testing.assert_allclose(normalise(image, mean, std, 255.0, change), expected, atol=1e-5)


def test_no_change_is_the_identity() -> None:
    np.testing.assert_allclose(ColorChange().matrix(3), np.eye(3, 4), atol=1e-12)
    np.testing.assert_array_equal(ColorChange().matrix(5), np.eye(5, 6))


@pytest.mark.parametrize("hue", [-120, 33, 180])
def test_hue_and_saturation_leave_grey_alone(hue: float) -> None:
    change = ColorChange(saturation=0.3, hue=hue).matrix(3)
    np.testing.assert_allclose(change @ [0.4, 0.4, 0.4, 1], 0.4, atol=1e-12)


def test_hue_of_120_degrees_makes_red_green() -> None:
    np.testing.assert_allclose(ColorChange(hue=120).matrix(3) @ [1, 0, 0, 1], [0, 1, 0], atol=1e-12)
    red, green, blue = np.clip(ColorChange(hue=20).matrix(3) @ [0.8, 0.4, 0.4, 1], 0, 1)
    assert 0 < colorsys.rgb_to_hsv(red, green, blue)[0] * 360 < 40


def test_saturation_zero_gives_grey() -> None:
    red, green, blue = ColorChange(saturation=0).matrix(3) @ [0.9, 0.1, 0.3, 1]
    assert red == pytest.approx(green) == pytest.approx(blue)


def test_photometric_draws_its_share_and_stays_in_its_ranges() -> None:
    draws = np.random.default_rng(0)
    photometric = Photometric(probability=0.3, brightness=0.2, contrast=(0.5, 1.5), saturation=(0.8, 1.1), hue=9)
    changes = [photometric.draw(draws, (1, 1)) for _ in range(1000)]
    drawn = [change for change in changes if change is not None]
    assert abs(len(drawn) / 1000 - 0.3) < 0.05
    for name, low, high in (
        ("brightness", -0.2, 0.2),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.8, 1.1),
        ("hue", -9, 9),
    ):
        values = np.array([getattr(change, name) for change in drawn])
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high


def test_blur_draws_its_fraction() -> None:
    draws, blur = np.random.default_rng(0), GaussianBlur(probability=0.2, sigma=(0.5, 1.0))
    sigmas = [blur.draw(draws, (1, 1)) for _ in range(1000)]
    assert abs(np.mean([sigma is not None for sigma in sigmas]) - 0.2) < 0.05
    assert all(0.5 <= sigma <= 1.0 for sigma in sigmas if sigma is not None)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_blur_spreads_a_point_as_a_gaussian(channels: int) -> None:
    image = np.zeros((21, 21, channels), np.float32)
    image[10, 10] = 1
    out = GaussianBlur.apply(image, 1.2)
    y, x = np.mgrid[-10:11, -10:11]
    expected = np.exp(-(x**2 + y**2) / (2 * 1.2**2))
    assert out.shape == image.shape
    np.testing.assert_allclose(out, (expected / expected.sum())[..., None].repeat(channels, 2), atol=2e-3)
