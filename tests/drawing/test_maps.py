import numpy as np
import pytest

from segatlas.drawing import boundary_picture, color_mask, confidence_picture, error_picture, viewable
from segatlas.drawing.maps import LINE, RIGHT, VOID, WRONG, blend, boundaries

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))


def random_map(shape=(7, 9), classes=3, void=True, seed=0):
    generator = np.random.default_rng(seed)
    label = generator.integers(0, classes, shape).astype(np.uint8)
    if void:
        label[generator.random(shape) < 0.2] = 255
    return label


def test_color_mask_is_the_palette_looked_up_pixel_by_pixel():
    label = random_map()
    picture = color_mask(label, PALETTE)
    for row, column in np.ndindex(label.shape):
        value = label[row, column]
        assert tuple(picture[row, column]) == (PALETTE[value] if value < 3 else VOID)


def test_color_mask_takes_more_than_255_classes():
    palette = [(i % 256, i // 256, 7) for i in range(300)]
    picture = color_mask(np.array([[299, 300]], np.int32), palette)
    assert picture.tolist() == [[[43, 1, 7], [0, 0, 0]]]


def test_a_pixel_is_boundary_where_its_right_or_lower_neighbour_differs():
    label = random_map(seed=1)
    expected = np.zeros(label.shape, bool)
    for row, column in np.ndindex(label.shape):
        for other in ((row + 1, column), (row, column + 1)):
            if other[0] < label.shape[0] and other[1] < label.shape[1]:
                expected[row, column] |= label[other] != label[row, column]
    assert np.array_equal(boundaries(label), expected)


def test_boundary_picture_draws_the_line_and_leaves_the_rest_alone():
    image = np.full((20, 30, 3), 90, np.uint8)
    label = np.zeros((20, 30), np.uint8)
    label[:, 15:] = 1
    picture = boundary_picture(image, label)
    assert (picture[:, 14] == LINE).all()
    assert (picture[:, :10] == 90).all()
    assert (picture[:, 20:] == 90).all()
    assert (image == 90).all()


def test_line_of_boundary_picture_is_wider_on_a_large_picture():
    label = np.zeros((4, 4000), np.uint8)
    label[:, 2000:] = 1
    picture = boundary_picture(np.zeros((4, 4000, 3), np.uint8), label)
    assert (picture[1] == LINE).all(axis=1).sum() >= 3


def test_error_picture_tells_right_wrong_and_void_apart():
    picture = error_picture(np.array([[1, 1, 1]], np.uint8), np.array([[1, 2, 255]], np.uint8))
    assert picture.tolist() == [[list(RIGHT), list(WRONG), list(VOID)]]


def test_confidence_picture_gets_lighter_with_confidence_and_marks_nan_black():
    picture = confidence_picture(np.linspace(0, 1, 256, dtype=np.float32)[None])
    luma = picture[0] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma) > -0.6).all()
    assert luma[-1] - luma[0] > 150
    assert confidence_picture(np.array([[np.nan]])).tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_blend_mixes_picture_and_class_colour_and_leaves_void_untouched(alpha):
    image = np.random.default_rng(2).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    label = random_map(seed=3)
    mixed = blend(image, label, PALETTE, alpha)
    expected = (1 - alpha) * image + alpha * color_mask(label, PALETTE)
    void = label == 255
    assert np.abs(mixed[~void].astype(float) - expected[~void]).max() <= 0.51
    assert np.array_equal(mixed[void], image[void])


def test_any_picture_is_viewable():
    byte = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    assert np.array_equal(viewable(byte), byte[..., :3])
    assert np.array_equal(viewable(byte[..., :1]), np.repeat(byte[..., :1], 3, axis=2))
    deep = viewable(np.linspace(1000, 4000, 300).astype(np.uint16).reshape(10, 10, 3))
    assert deep.dtype == np.uint8
    assert (deep.min(), deep.max()) == (0, 255)
    assert viewable(np.full((2, 2, 1), np.nan, np.float32)).max() == 0
