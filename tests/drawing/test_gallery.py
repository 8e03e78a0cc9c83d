from __future__ import annotations

import numpy as np
import pytest

from segatlas.drawing import Cell, gallery, heat_image, heat_overlay, with_color_bar
from segatlas.drawing.gallery import columns_for


def cells(count: int, size: tuple[int, int] = (30, 40)) -> list[Cell]:
    return [Cell(image=np.full((*size, 3), 9, np.uint8), title=f"class {i}", note="note") for i in range(count)]


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (5, 3), (7, 4), (12, 4), (20, 6), (151, 10)])
def test_columns_suit_the_number_of_cells(count, columns):
    assert columns_for(count) == columns


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (400, 60), (40, 900)])
def test_images_of_any_size_have_their_whole_place_on_the_sheet(size):
    sheet = gallery(cells(3, size))
    inked = (sheet == 9).all(axis=2)
    columns = np.flatnonzero(inked.any(axis=0))
    assert inked.any()
    assert columns[0] > 0
    assert columns[-1] < sheet.shape[1] - 1
    assert not inked[-1].any()


def test_upright_images_stand_in_narrower_columns():
    assert gallery(cells(3, (400, 60))).shape[1] < gallery(cells(3, (60, 60))).shape[1]


def test_a_title_that_is_too_wide_stays_in_its_cell():
    wide = Cell(image=np.full((20, 20, 3), 9, np.uint8), title="a name without an end " * 9, color=(255, 0, 0))
    sheet = gallery([wide, *cells(1)], cell_width=200)
    between = sheet[:20, 6 + 200 : 6 + 200 + 5]
    assert (between == 255).all()


def test_a_gallery_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one cell"):
        gallery([])


def test_colors_of_heat_are_those_of_its_ends_and_nan_is_black():
    values = np.array([[0.0, 1.0, np.nan]], np.float32)
    image = heat_image(values, "turbo")
    assert tuple(image[0, 2]) == (0, 0, 0)
    assert image[0, 1, 0] > 100 > image[0, 1, 2]  # red
    assert image[0, 0, 2] > image[0, 0, 1]  # dark blue


def test_the_hotter_the_less_of_the_image_is_seen():
    image = np.stack([np.zeros((1, 3, 3)), np.full((1, 3, 3), 255)]).astype(np.uint8)
    heat = np.array([[0.0, 0.5, 1.0]], np.float32)
    black, white = (heat_overlay(one, heat).astype(int) for one in image)
    contrast = (white - black).mean(axis=2)[0]
    assert contrast[0] > contrast[1] > contrast[2] > 0


@pytest.mark.parametrize("width", [20, 300, 2000])
def test_a_color_bar_has_its_texts_whole_whatever_the_width(width):
    figure = np.full((30, width, 3), 255, np.uint8)
    drawn = with_color_bar(figure, "viridis", low="0, sure", high="1, undecided", title="what it is")
    assert drawn.shape[1] >= width
    inked = (drawn < 128).any(axis=2)
    assert inked[30:].any()
    assert not inked[:, [0, -1]].any()
    assert not inked[[0, -1]].any()


def test_images_of_one_row_line_up_at_the_top():
    wide = np.zeros((30, 60, 3), np.uint8)
    with_strip = np.concatenate([wide, np.full((20, 60, 3), 128, np.uint8)])
    sheet = gallery([Cell(image=wide, title=""), Cell(image=with_strip, title="")])
    black = (sheet == 0).all(axis=2)
    middle = sheet.shape[1] // 2
    assert np.array_equal(black[:, :middle].any(axis=1), black[:, middle:].any(axis=1))
