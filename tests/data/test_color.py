from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest

from segatlas.data.transforms.color import (
    ColorChange,
    ColorSteps,
    GaussianBlur,
    Photometric,
    PhotometricSteps,
    normalise,
)

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


STEPS = PhotometricSteps(probability=0.5, brightness=32 / 255, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=36)


def test_steps_of_colour_are_each_drawn_by_itself_and_contrast_is_second_or_last() -> None:
    draws = np.random.default_rng(0)
    changes = [(STEPS.draw(draws, (1, 1)) or ColorSteps(steps=())).steps for _ in range(2000)]
    drawn = {
        name: np.array([name in dict(steps) for steps in changes])
        for name in ("brightness", "contrast", "saturation", "hue")
    }
    for name, which in drawn.items():
        assert abs(which.mean() - 0.5) < 0.04
        others = [other for other in drawn if other != name]
        assert all(abs((which & drawn[other]).mean() - 0.25) < 0.04 for other in others)
    orders = [[name for name, _ in steps] for steps in changes if len(steps) == 4]
    seconds = [order.index("contrast") for order in orders]
    assert {tuple(order) for order in orders} == {
        ("brightness", "contrast", "saturation", "hue"),
        ("brightness", "saturation", "hue", "contrast"),
    }
    assert abs(np.mean(np.array(seconds) == 1) - 0.5) < 0.15


def test_steps_of_colour_stay_in_their_ranges_and_hue_in_half_degrees_of_opencv() -> None:
    draws = np.random.default_rng(0)
    amounts: dict[str, list[float]] = {"brightness": [], "contrast": [], "saturation": [], "hue": []}
    for _ in range(4000):
        change = STEPS.draw(draws, (1, 1))
        for name, amount in change.steps if change else ():
            amounts[name].append(amount)
    assert set(amounts["hue"]) == {2.0 * half for half in range(-18, 18)}  # the end itself only backwards
    for name, low, high in (("brightness", -32 / 255, 32 / 255), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5)):
        assert low <= min(amounts[name]) < low + 0.02
        assert high - 0.02 < max(amounts[name]) <= high


def test_steps_of_colour_are_cut_to_8_bits_after_each_with_saturation_and_hue_in_hsv() -> None:
    image = random_image()
    steps = (("brightness", 30.4 / 255), ("contrast", 1.3), ("saturation", 1.4), ("hue", -30.0))
    values = (image.astype(np.float32) + np.float32(30.4)).clip(0, 255).astype(np.uint8)
    values = (values.astype(np.float32) * np.float32(1.3)).clip(0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(values, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] = (hsv[..., 1] * np.float32(1.4)).clip(0, 255)
    hsv = cv2.cvtColor(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), cv2.COLOR_RGB2HSV).astype(int)
    hsv[..., 0] = (hsv[..., 0] - 15) % 180
    expected = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    np.testing.assert_array_equal(ColorSteps(steps=steps).apply(image, 255.0), expected)


@pytest.mark.parametrize(("dtype", "max_value"), [("uint16", 65535.0), ("float32", 1000.0)])
def test_steps_of_colour_on_other_types_are_those_of_8_bits_up_to_its_rounding(dtype: str, max_value: float) -> None:
    image = random_image()
    image[..., 0] |= 64  # no grey, whose hue is noise
    steps = ColorSteps(steps=(("brightness", 0.1), ("saturation", 0.6), ("hue", 24.0), ("contrast", 0.9)))
    wide = (image / 255 * max_value).astype(dtype)
    changed = steps.apply(wide, max_value)
    assert changed.dtype == wide.dtype
    np.testing.assert_allclose(changed / max_value, steps.apply(image, 255.0) / 255, atol=0.03)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_steps_of_colour_leave_saturation_and_hue_of_other_channel_counts(channels: int) -> None:
    image = random_image(channels)
    assert ColorSteps(steps=(("saturation", 0.1), ("hue", 90.0))).apply(image, 255.0) is image
    changed = ColorSteps(steps=(("contrast", 0.5),)).apply(image, 255.0)
    np.testing.assert_array_equal(changed, image // 2)


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
