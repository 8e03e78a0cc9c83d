from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from segatlas.config.transforms import TransformsConfig
from segatlas.data.transforms import warp as warp_module
from segatlas.data.transforms.geometry import (
    AspectJitter,
    Crop,
    Flip,
    FlipVertical,
    Geometry,
    Placement,
    Resize,
    Rotation,
    ScaleJitter,
    Turns,
    identity,
    largest_class_fraction,
    on_source_pixels,
    resized_size,
    rotated,
    turned,
)
from segatlas.data.transforms.pipeline import geometry_of
from segatlas.data.transforms.warp import fill_outside, resize_image, warp_image, warp_label
from segatlas.errors import UsageError

SIZE = (23, 31)


def random_image(seed: int = 0, size: tuple[int, int] = SIZE, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (*size, channels))
    return values.astype(dtype)


def smooth_image(size: tuple[int, int], channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (*size, channels)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5).reshape(noise.shape)


def random_label(seed: int = 0, size: tuple[int, int] = SIZE, classes: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, size).astype(np.uint8)


def crop_at(top: int, left: int, size: tuple[int, int]) -> Placement:
    return Placement(matrix=np.array([[1.0, 0, left], [0, 1, top], [0, 0, 1]]), size=size)


def slow_crop(array: np.ndarray, top: int, left: int, size: tuple[int, int], padding: int) -> np.ndarray:
    out = np.full((*size, *array.shape[2:]), padding, array.dtype)
    for y in range(size[0]):
        for x in range(size[1]):
            if 0 <= y + top < array.shape[0] and 0 <= x + left < array.shape[1]:
                out[y, x] = array[y + top, x + left]
    return out


def slow_nearest(label: np.ndarray, placement: Placement) -> np.ndarray:
    out = np.full(placement.size, 255, label.dtype)
    for y in range(placement.size[0]):
        for x in range(placement.size[1]):
            source = placement.matrix @ [x + 0.5, y + 0.5, 1]
            column, row = math.floor(source[0]), math.floor(source[1])
            if 0 <= row < label.shape[0] and 0 <= column < label.shape[1]:
                out[y, x] = label[row, column]
    return out


def slow_bilinear(image: np.ndarray, placement: Placement) -> np.ndarray:
    height, width = image.shape[:2]
    out = np.empty((*placement.size, image.shape[2]))
    for y in range(placement.size[0]):
        for x in range(placement.size[1]):
            source = (placement.matrix @ [x + 0.5, y + 0.5, 1])[:2] - 0.5
            left, top = np.floor(source).astype(int)
            across, down = source - (left, top)
            rows = np.clip([top, top + 1], 0, height - 1)
            columns = np.clip([left, left + 1], 0, width - 1)
            corners = image[np.ix_(rows, columns)].astype(float)
            upper = corners[0, 0] * (1 - across) + corners[0, 1] * across
            lower = corners[1, 0] * (1 - across) + corners[1, 1] * across
            out[y, x] = upper * (1 - down) + lower * down
    return out


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_identity_gives_the_source_in_new_memory(dtype: str, channels: int) -> None:
    image = random_image(channels=channels, dtype=dtype)
    out = warp_image(image, identity(SIZE))
    np.testing.assert_array_equal(out, image)
    assert out.dtype == image.dtype
    assert not np.shares_memory(out, image)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_flips_are_bit_exact(channels: int) -> None:
    image, label, draws = random_image(channels=channels), random_label(), np.random.default_rng(0)
    across, down = Flip(probability=1).draw(draws, SIZE), FlipVertical(probability=1).draw(draws, SIZE)
    for placement, rows, columns in ((across, 1, -1), (down, -1, 1), (across.then(down), -1, -1)):
        np.testing.assert_array_equal(warp_image(image, placement), image[::rows, ::columns])
        np.testing.assert_array_equal(warp_label(label, placement), label[::rows, ::columns])


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_equal_rot90(quarters: int) -> None:
    image, label = random_image(), random_label()
    placement = turned(SIZE, quarters)
    np.testing.assert_array_equal(warp_image(image, placement), np.rot90(image, quarters))
    np.testing.assert_array_equal(warp_label(label, placement), np.rot90(label, quarters))


@pytest.mark.parametrize(
    ("top", "left", "size"), [(3, 5, (10, 12)), (-4, 2, (30, 20)), (-2, -6, (40, 50)), (9, 9, SIZE)]
)
def test_whole_pixel_crops_are_bit_exact_and_padded(top: int, left: int, size: tuple[int, int]) -> None:
    image, label = random_image(), random_label()
    placement = crop_at(top, left, size)
    cut = warp_image(image, placement)
    fill_outside(cut, placement, SIZE, 0)
    np.testing.assert_array_equal(cut, slow_crop(image, top, left, size, 0))
    np.testing.assert_array_equal(warp_label(label, placement), slow_crop(label, top, left, size, 255))


def test_places_outside_the_image_repeat_its_edge_until_they_are_filled() -> None:
    image = random_image()
    out = warp_image(image, crop_at(-2, -3, (30, 40)))
    np.testing.assert_array_equal(out, np.pad(image, ((2, 5), (3, 6), (0, 0)), mode="edge"))


def test_flip_turn_crop_flip_in_one_warp_equals_the_steps_one_after_another() -> None:
    image, label = random_image(), random_label()
    flip, flip_vertical = Flip(probability=1), FlipVertical(probability=1)
    draws = np.random.default_rng(0)
    placement = identity(SIZE).then(flip.draw(draws, SIZE)).then(turned(SIZE, 1)).then(crop_at(-3, 4, (20, 18)))
    placement = placement.then(flip_vertical.draw(draws, (20, 18)))
    slow_image = slow_crop(np.rot90(image[:, ::-1]), -3, 4, (20, 18), 0)[::-1]
    slow_label = slow_crop(np.rot90(label[:, ::-1]), -3, 4, (20, 18), 255)[::-1]
    fast = warp_image(image, placement)
    fill_outside(fast, placement, SIZE, 0)
    np.testing.assert_array_equal(fast, slow_image)
    np.testing.assert_array_equal(warp_label(label, placement), slow_label)


@pytest.mark.parametrize("size", [(20, 30), (31, 47), (60, 90), (80, 120), (53, 77), (40, 45)])
def test_resize_agrees_with_opencv_up_to_rounding(size: tuple[int, int]) -> None:
    image = smooth_image((40, 60))
    placement = Resize(target=f"{size[0]}x{size[1]}").draw(np.random.default_rng(0), (40, 60))
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(warp_image(image, placement).astype(int) - expected).max() <= 2
    np.testing.assert_array_equal(resize_image(image, size), expected)


@pytest.mark.parametrize("channels", [1, 6])
def test_resize_of_other_channel_counts_works_channel_by_channel(channels: int) -> None:
    image = smooth_image((40, 60), channels)
    out = resize_image(image, (50, 66))
    assert out.shape == (50, 66, channels)
    for channel in range(channels):
        np.testing.assert_array_equal(out[..., channel], cv2.resize(image[..., channel], (66, 50)))
    assert resize_image(image, (10, 11)).shape == (10, 11, channels)


def test_label_scaled_by_two_repeats_each_value() -> None:
    label = random_label()
    placement = Resize(target="46x62").draw(np.random.default_rng(0), SIZE)
    np.testing.assert_array_equal(warp_label(label, placement), label.repeat(2, axis=0).repeat(2, axis=1))


def test_label_scaled_to_two_thirds_takes_the_pixels_worked_out_by_hand() -> None:
    # centres 0.5, 1.5, 2.5, 3.5 of the new row lie at 0.75, 2.25, 3.75, 5.25 of the old one
    label = np.arange(6, dtype=np.uint8)[None].repeat(6, axis=0)
    placement = Resize(target="4x4").draw(np.random.default_rng(0), (6, 6))
    np.testing.assert_array_equal(warp_label(label, placement), [[0, 2, 3, 5]] * 4)


@pytest.mark.parametrize("seed", range(4))
def test_one_warp_of_a_drawn_chain_equals_the_slow_loops(seed: int) -> None:
    image, label = smooth_image(SIZE), random_label(seed)
    geometry = Geometry(
        before=(ScaleJitter(low=0.6, high=2), AspectJitter(amount=0.3), Rotation(degrees=40), Turns()),
        crop=Crop(size=(25, 28)),
        after=(Flip(probability=0.5),),
    )
    placement = geometry.draw(np.random.default_rng(seed), SIZE, label)
    assert placement.size == (25, 28)
    np.testing.assert_array_equal(warp_label(label, placement), slow_nearest(label, placement))
    assert np.abs(warp_image(image, placement) - slow_bilinear(image, placement)).max() <= 2


@pytest.mark.parametrize("target", ["180x240", "90x120", "30x40", "26x36"])
def test_a_window_of_a_resize_equals_the_window_of_the_resized_whole(target: str) -> None:
    image = random_image(size=(120, 160))
    placement = Resize(target=target).draw(np.random.default_rng(0), (120, 160))
    whole = warp_image(image, placement).astype(int)
    for top in range(12):
        left = 2 * top
        window = warp_image(image, placement.then(crop_at(top, left, (10, 11))))
        assert np.abs(whole[top : top + 10, left : left + 11] - window).max() <= 1


def resize_by(scale: float, size: tuple[int, int]) -> Placement:
    return ScaleJitter(low=scale, high=scale).draw(np.random.default_rng(0), size)


@pytest.mark.parametrize("scale", [0.5, 0.83, 1.3, 1.9, 3.7])
@pytest.mark.parametrize("flips", [False, True])
def test_a_window_of_whole_source_pixels_equals_the_slow_loops_up_to_its_rim(scale: float, flips: bool) -> None:
    image, label, size = smooth_image((60, 80)), random_label(size=(60, 80)), (21, 26)
    for top, left in ((0, 0), (3, 7), (5, 10)):
        placement = on_source_pixels(resize_by(scale, (60, 80)), crop_at(top, left, size), (60, 80))
        if flips:
            placement = placement.then(Flip(probability=1).draw(np.random.default_rng(0), size))
            placement = placement.then(FlipVertical(probability=1).draw(np.random.default_rng(0), size))
        assert np.abs(warp_image(image, placement) - slow_bilinear(image, placement)).max() <= 2
        np.testing.assert_array_equal(warp_label(label, placement), slow_nearest(label, placement))


def test_a_small_image_in_a_large_crop_is_resized_whole_and_padded() -> None:
    image = smooth_image((40, 60))
    placement = on_source_pixels(resize_by(0.7, (40, 60)), crop_at(-3, -5, (50, 55)), (40, 60))
    out = warp_image(image, placement)
    np.testing.assert_array_equal(out[3:31, 5:47], cv2.resize(image, (42, 28), interpolation=cv2.INTER_LINEAR))
    assert np.abs(out - slow_bilinear(image, placement))[3:31, 5:47].max() <= 2
    np.testing.assert_array_equal(out[:3, 5:47], out[3:4, 5:47].repeat(3, axis=0))
    fill_outside(out, placement, (40, 60), 0)
    assert (out[:3] == 0).all()
    assert (out[31:] == 0).all()


@pytest.mark.parametrize("scale", [0.55, 1.0, 1.47, 2.6])
def test_a_crop_of_a_resized_image_moves_by_half_a_source_pixel_at_most(scale: float) -> None:
    crop, draws = Crop(size=(20, 24)), np.random.default_rng(0)
    before = resize_by(scale, (90, 110))
    for _ in range(50):
        drawn = crop.draw(draws, before.size)
        exact, moved = before.then(drawn), on_source_pixels(before, drawn, (90, 110))
        corners = np.array([[0.0, 24.0], [0.0, 20.0], [1.0, 1.0]])
        ends = (moved.matrix @ corners)[:2]
        np.testing.assert_allclose(ends, np.rint(ends), atol=1e-9)
        assert np.abs(ends - (exact.matrix @ corners)[:2]).max() <= 1.001
        assert np.abs((moved.matrix - exact.matrix)[:2, 2]).max() <= 0.501
        assert ends.min() >= 0
        assert ends[0].max() <= 110
        assert ends[1].max() <= 90


def test_a_crop_without_resize_and_one_of_a_turned_image_do_not_move() -> None:
    for before in (identity((50, 60)), turned((50, 60), 1), rotated((50, 60), 0.3)):
        crop = crop_at(7, 9, (20, 22))
        np.testing.assert_array_equal(on_source_pixels(before, crop, (50, 60)).matrix, before.then(crop).matrix)


def test_crops_of_enlarged_images_need_no_whole_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    areas, original = [], cv2.warpAffine

    def warp(source: np.ndarray, matrix: np.ndarray, size: tuple[int, int], **options: object) -> np.ndarray:
        areas.append(size[0] * size[1])
        return original(source, matrix, size, **options)

    monkeypatch.setattr(warp_module.cv2, "warpAffine", warp)
    geometry = geometry_of(TransformsConfig(scale=(0.5, 2), crop=(40, 50)))
    image = smooth_image((80, 100))
    for seed in range(10):
        warp_image(image, geometry.draw(np.random.default_rng(seed), (80, 100)))
    assert sum(areas) < 0.1 * 10 * 40 * 50


def test_strong_shrinking_averages_blocks() -> None:
    image = random_image(size=(60, 80))
    placement = Resize(target="15x20").draw(np.random.default_rng(0), (60, 80))
    means = image.reshape(15, 4, 20, 4, 3).mean(axis=(1, 3))
    assert np.abs(warp_image(image, placement) - means).max() <= 0.51
    assert np.abs(resize_image(image, (15, 20)) - means).max() <= 0.51


def test_strong_shrinking_keeps_the_mean_where_blocks_do_not_fit() -> None:
    image = np.full((61, 83, 3), 77, np.uint8)
    placement = Resize(target="9x11").draw(np.random.default_rng(0), (61, 83))
    assert (warp_image(image, placement) == 77).all()


def test_rotation_by_a_quarter_about_the_centre_equals_rot90_of_a_square() -> None:
    label = random_label(size=(16, 16))
    np.testing.assert_array_equal(warp_label(label, rotated((16, 16), math.pi / 2)), np.rot90(label))


def test_rotation_pads_image_and_label_at_the_same_pixels() -> None:
    image, label = random_image() // 2 + 100, random_label()
    placement = rotated(SIZE, 0.4)
    out = warp_image(image, placement)
    fill_outside(out, placement, SIZE, 0)
    padded = warp_label(label, placement) == 255
    assert padded.any()
    assert not padded.all()
    np.testing.assert_array_equal((out == 0).all(axis=2), padded)


def test_every_label_value_after_any_warp_is_a_source_value_or_255() -> None:
    label = np.random.default_rng(5).choice(np.array([3, 9, 200], np.uint8), SIZE)
    geometry = Geometry(before=(ScaleJitter(low=0.3, high=3), Rotation(degrees=180)), crop=Crop(size=(24, 24)))
    for seed in range(20):
        placement = geometry.draw(np.random.default_rng(seed), SIZE, label)
        assert set(np.unique(warp_label(label, placement))) <= {3, 9, 200, 255}


def test_labels_of_any_integer_type_keep_their_values() -> None:
    label = np.random.default_rng(0).integers(0, 10**6, SIZE).astype(np.int32)
    np.testing.assert_array_equal(warp_label(label, turned(SIZE, 1)), np.rot90(label))


def test_large_outputs_are_warped_in_tiles_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth_image((40, 50))
    placement = Resize(target="70x85").draw(np.random.default_rng(0), (40, 50)).then(rotated((70, 85), 0.2))
    whole = warp_image(image, placement)
    monkeypatch.setattr(warp_module, "TILE", 32)
    assert np.abs(warp_image(image, placement).astype(int) - whole).max() <= 1


def test_a_side_beyond_opencv_limit_is_warped() -> None:
    image = np.repeat(np.arange(40000, dtype=np.uint16)[None, :, None], 2, axis=0)
    placement = Resize(target="2x50000").draw(np.random.default_rng(0), (2, 40000))
    out = warp_image(image, placement)
    expected = (np.arange(50000) + 0.5) * 0.8 - 0.5
    assert np.abs(out[0, :, 0] - np.clip(expected, 0, 39999)).max() <= 1


@pytest.mark.parametrize(
    ("target", "size", "expected"),
    [
        ("short:100", (200, 300), (100, 150)),
        ("short:100", (300, 200), (150, 100)),
        ("long:100", (200, 300), (67, 100)),
        ("10x20", (7, 9), (10, 20)),
        ("long:10", (1, 1000), (1, 10)),
        ("fit:512x2048", (480, 640), (512, 683)),
        ("fit:2048x512", (640, 480), (683, 512)),
        ("fit:512x2048", (100, 1000), (205, 2048)),
        ("fit:1025x2049", (1024, 2048), (1025, 2049)),
    ],
)
def test_resize_targets_mean_what_they_say(target: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(target, size) == expected


@pytest.mark.parametrize("target", ["short", "short:0", "wide:3", "3x", "0x5", "3x4x5", "fit:3", "fit:0x4"])
def test_an_unknown_resize_target_is_named_in_the_error(target: str) -> None:
    with pytest.raises(UsageError, match=target):
        resized_size(target, (3, 4))


def test_scale_jitter_is_log_uniform() -> None:
    jitter, draws = ScaleJitter(low=0.5, high=2), np.random.default_rng(0)
    factors = np.array([jitter.draw(draws, (1000, 1000)).size[0] / 1000 for _ in range(2000)])
    assert factors.min() >= 0.5
    assert factors.max() <= 2
    assert abs(np.mean(factors < 1) - 0.5) < 0.04
    assert abs(np.mean(factors < math.sqrt(0.5)) - 0.25) < 0.04


def test_scale_jitter_is_uniform_where_it_is_asked_for() -> None:
    jitter, draws = ScaleJitter(low=0.5, high=2, uniform=True), np.random.default_rng(0)
    factors = np.array([jitter.draw(draws, (1000, 1000)).size[0] / 1000 for _ in range(2000)])
    assert factors.min() >= 0.5
    assert factors.max() <= 2
    for limit in (0.875, 1.25, 1.625):
        assert abs(np.mean(factors < limit) - (limit - 0.5) / 1.5) < 0.04


def test_aspect_jitter_keeps_the_area_and_stays_in_its_range() -> None:
    jitter, draws = AspectJitter(amount=0.5), np.random.default_rng(0)
    sizes = np.array([jitter.draw(draws, (1000, 1000)).size for _ in range(500)], float)
    ratios = sizes[:, 1] / sizes[:, 0]
    assert np.abs(sizes.prod(axis=1) / 1e6 - 1).max() < 0.01
    assert ratios.min() > 1 / 1.51
    assert ratios.max() < 1.51
    assert abs(np.mean(ratios < 1) - 0.5) < 0.08


def test_crop_reaches_every_place_and_no_other() -> None:
    crop, draws = Crop(size=(4, 9)), np.random.default_rng(0)
    places = [crop.draw(draws, (6, 7)).matrix[:2, 2] for _ in range(300)]
    assert {int(top) for _, top in places} == {0, 1, 2}
    assert {int(left) for left, _ in places} == {-2, -1, 0}


def test_a_crop_with_padding_at_the_end_has_a_smaller_image_in_its_top_left_corner() -> None:
    geometry = geometry_of(TransformsConfig(crop=(4, 9), crop_padding="end", flip=0))
    draws = np.random.default_rng(0)
    places = [geometry.draw(draws, (6, 7)).matrix[:2, 2] for _ in range(60)]
    assert {(int(top), int(left)) for left, top in places} == {(0, 0), (1, 0), (2, 0)}


def test_turns_reach_all_four_directions() -> None:
    draws = np.random.default_rng(0)
    seen = {tuple(warp_label(np.array([[1, 2]], np.uint8), Turns().draw(draws, (1, 2))).ravel()) for _ in range(50)}
    shapes = {Turns().draw(draws, (1, 2)).size for _ in range(50)}
    assert seen == {(1, 2), (2, 1)}
    assert shapes == {(1, 2), (2, 1)}


def test_largest_class_fraction_is_that_of_the_labelled_pixels() -> None:
    label = np.full((20, 40), 255, np.uint8)
    label[:, :8] = 3
    label[:15, 8:12] = 1
    assert largest_class_fraction(label, identity((20, 40))) == pytest.approx(160 / 220)
    assert largest_class_fraction(label, crop_at(0, 20, (5, 5))) == 1.0


def test_class_balance_avoids_crops_of_one_class() -> None:
    label = np.zeros((64, 64), np.uint8)
    label[40:, 40:] = 1
    wins = {}
    for limit in (1.0, 0.9):
        crop = Crop(size=(24, 24), class_balance=limit)
        fractions = [
            largest_class_fraction(label, crop.draw_balanced(np.random.default_rng(seed), identity((64, 64)), label))
            for seed in range(60)
        ]
        wins[limit] = np.mean(np.array(fractions) <= 0.9)
    assert wins[1.0] < 0.5
    assert wins[0.9] > 0.9


def test_class_balance_gives_up_after_ten_redraws_where_it_cannot_win() -> None:
    label, draws, plain = np.zeros((64, 64), np.uint8), np.random.default_rng(0), np.random.default_rng(0)
    Crop(size=(8, 8), class_balance=0.5).draw_balanced(draws, identity((64, 64)), label)
    for _ in range(11):
        Crop(size=(8, 8)).draw(plain, (64, 64))
    assert draws.random() == plain.random()


def test_the_same_generator_state_draws_the_same_placement() -> None:
    config = TransformsConfig(scale=(0.5, 2), aspect=0.2, rotation=10, crop=(16, 16), flip_vertical=0.5, turns=True)
    geometry = geometry_of(config)
    first, again, other = (geometry.draw(np.random.default_rng(seed), SIZE) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert not np.array_equal(first.matrix, other.matrix)


def test_the_steps_of_a_recipe_come_in_the_order_it_states() -> None:
    config = TransformsConfig(
        resize="short:30",
        scale=(0.5, 2),
        aspect=0.2,
        rotation=10,
        turns=True,
        crop=(16, 18),
        class_balance=0.75,
        flip=0.3,
        flip_vertical=0.4,
    )
    assert geometry_of(config) == Geometry(
        before=(
            Resize(target="short:30"),
            ScaleJitter(low=0.5, high=2),
            AspectJitter(amount=0.2),
            Rotation(degrees=10),
            Turns(),
        ),
        crop=Crop(size=(16, 18), class_balance=0.75),
        after=(Flip(probability=0.3), FlipVertical(probability=0.4)),
    )


def test_a_recipe_without_transforms_but_flip_draws_only_flips() -> None:
    assert geometry_of(TransformsConfig()) == Geometry(after=(Flip(probability=0.5),))
    assert geometry_of(TransformsConfig(flip=0)) == Geometry()
