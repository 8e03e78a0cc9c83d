import numpy as np
import pytest

from segatlas.drawing import sample_row, sheet, side_by_side

PALETTE = ((10, 20, 30), (200, 0, 0))


def flat(height, width, color):
    return np.full((height, width, 3), color, np.uint8)


def count(image, color):
    return int((image == color).all(axis=2).sum())


def test_sheet_scales_each_image_to_its_cell_with_its_ratio_kept():
    red, blue = (255, 0, 0), (0, 0, 255)
    image = sheet([[flat(50, 100, red), flat(100, 50, blue)]], cell_width=200)
    assert count(image, red) == 100 * 200
    assert count(image, blue) == 400 * 200


def test_sheet_leaves_the_cell_of_a_missing_image_empty():
    red = (255, 0, 0)
    whole = sheet([[flat(10, 10, red), flat(10, 10, red)]], cell_width=100)
    holed = sheet([[flat(10, 10, red), None]], cell_width=100)
    assert whole.shape == holed.shape
    assert count(holed, red) * 2 == count(whole, red)


def test_titles_and_row_titles_add_room_for_text():
    bare = sheet([[flat(10, 10, 0)]], cell_width=100)
    titled = sheet([[flat(10, 10, 0)]], titles=["image"], row_titles=["a file"], cell_width=100)
    assert titled.shape[0] > bare.shape[0]
    assert titled.shape[1] == bare.shape[1]


def test_a_sheet_without_images_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        sheet([[None]])


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_images_fit_on_a_sheet(size):
    assert side_by_side([flat(*size, 7)], ["x"]).ndim == 3


def test_sample_row_shows_ignored_black_in_truth_and_error():
    label = np.array([[0, 1, 255]], np.uint8)
    _, truth, prediction, error = sample_row(flat(1, 3, 9), label, np.array([[0, 0, 1]], np.uint8), PALETTE)
    assert truth.tolist() == [[[10, 20, 30], [200, 0, 0], [0, 0, 0]]]
    assert prediction.tolist() == [[[10, 20, 30], [10, 20, 30], [200, 0, 0]]]
    assert error[0, 2].tolist() == [0, 0, 0]
    assert error[0, 0].tolist() != error[0, 1].tolist()
