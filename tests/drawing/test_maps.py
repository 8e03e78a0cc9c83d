import numpy as np
import pytest

from segatlas.drawing import boundary_image, color_mask, confidence_image, error_image, object_boundaries, viewable
from segatlas.drawing.maps import IGNORE_COLOR, LINE, RIGHT, WRONG, blend, boundaries

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))


def random_map(shape=(7, 9), classes=3, ignored=True, seed=0):
    generator = np.random.default_rng(seed)
    label = generator.integers(0, classes, shape).astype(np.uint8)
    if ignored:
        label[generator.random(shape) < 0.2] = 255
    return label


def test_color_mask_is_the_palette_looked_up_pixel_by_pixel():
    label = random_map()
    image = color_mask(label, PALETTE)
    for row, column in np.ndindex(label.shape):
        value = label[row, column]
        assert tuple(image[row, column]) == (PALETTE[value] if value < 3 else IGNORE_COLOR)


def test_color_mask_takes_more_than_255_classes():
    palette = [(i % 256, i // 256, 7) for i in range(300)]
    image = color_mask(np.array([[299, 300]], np.int32), palette)
    assert image.tolist() == [[[43, 1, 7], [0, 0, 0]]]


def test_a_pixel_is_boundary_where_its_right_or_lower_neighbour_differs():
    label = random_map(seed=1)
    expected = np.zeros(label.shape, bool)
    for row, column in np.ndindex(label.shape):
        for other in ((row + 1, column), (row, column + 1)):
            if other[0] < label.shape[0] and other[1] < label.shape[1]:
                expected[row, column] |= label[other] != label[row, column]
    assert np.array_equal(boundaries(label), expected)


def test_boundary_image_draws_the_line_and_leaves_the_rest_alone():
    image = np.full((20, 30, 3), 90, np.uint8)
    label = np.zeros((20, 30), np.uint8)
    label[:, 15:] = 1
    drawn = boundary_image(image, label)
    assert (drawn[:, 14] == LINE).all()
    assert (drawn[:, :10] == 90).all()
    assert (drawn[:, 20:] == 90).all()
    assert (image == 90).all()


def test_line_of_boundary_image_is_wider_on_a_large_image():
    label = np.zeros((4, 4000), np.uint8)
    label[:, 2000:] = 1
    image = boundary_image(np.zeros((4, 4000, 3), np.uint8), label)
    assert (image[1] == LINE).all(axis=1).sum() >= 3


def test_error_image_tells_right_wrong_and_ignored_apart():
    image = error_image(np.array([[1, 1, 1]], np.uint8), np.array([[1, 2, 255]], np.uint8))
    assert image.tolist() == [[list(RIGHT), list(WRONG), list(IGNORE_COLOR)]]


def test_confidence_image_gets_lighter_with_confidence_and_marks_nan_black():
    image = confidence_image(np.linspace(0, 1, 256, dtype=np.float32)[None])
    luma = image[0] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma) > -0.6).all()
    assert luma[-1] - luma[0] > 150
    assert confidence_image(np.array([[np.nan]])).tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_blend_mixes_image_and_class_colour_and_leaves_ignored_untouched(alpha):
    image = np.random.default_rng(2).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    label = random_map(seed=3)
    mixed = blend(image, label, PALETTE, alpha)
    expected = (1 - alpha) * image + alpha * color_mask(label, PALETTE)
    ignored = label == 255
    assert np.abs(mixed[~ignored].astype(float) - expected[~ignored]).max() <= 0.51
    assert np.array_equal(mixed[ignored], image[ignored])


def test_any_image_is_viewable():
    byte = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    assert np.array_equal(viewable(byte), byte[..., :3])
    assert np.array_equal(viewable(byte[..., :1]), np.repeat(byte[..., :1], 3, axis=2))
    deep = viewable(np.linspace(1000, 4000, 300).astype(np.uint16).reshape(10, 10, 3))
    assert deep.dtype == np.uint8
    assert (deep.min(), deep.max()) == (0, 255)
    assert viewable(np.full((2, 2, 1), np.nan, np.float32)).max() == 0


def test_each_object_has_a_line_in_its_classs_colour_inside_itself():
    ids = np.zeros((20, 30), np.int32)
    ids[:, 15:] = 1
    ids[:, :3] = -1
    kinds = np.where(ids < 0, -1, np.array([2, 1])[ids])
    drawn = object_boundaries(np.full((20, 30, 3), 90, np.uint8), ids, kinds, PALETTE, fade=0.0)
    left, right, plain = tuple(PALETTE[2]), tuple(PALETTE[1]), (90, 90, 90)
    row = [tuple(pixel) for pixel in drawn[10].tolist()]
    assert row == [*[plain] * 3, *[left] * 2, *[plain] * 8, *[left] * 2, *[right] * 2, *[plain] * 13]


def test_what_is_no_class_has_no_line():
    ids = np.arange(6, dtype=np.int32).reshape(2, 3)
    drawn = object_boundaries(np.full((2, 3, 3), 90, np.uint8), ids, np.full((2, 3), 3), PALETTE, fade=0.0)
    assert (drawn == 90).all()


def test_pixels_of_no_class_or_of_a_black_one_stay_as_they_are_when_an_image_is_tinted():
    image = np.full((1, 4, 3), 100, np.uint8)
    drawn = blend(image, np.array([[0, 1, 2, 255]], np.uint8), ((0, 0, 0), (200, 0, 0), (1, 0, 0)))
    assert drawn[0].tolist() == [[100] * 3, [150, 50, 50], [50, 50, 50], [100] * 3]
