import numpy as np
import pytest

from segatlas.errors import UsageError
from segatlas.ops.windows import window_boxes


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (64, 64), (65, 63), (100, 131)])
@pytest.mark.parametrize(("crop", "stride"), [((32, 32), (32, 32)), ((32, 48), (20, 17)), ((64, 64), (1, 63))])
def test_windows_cover_every_pixel_and_stay_inside(size, crop, stride):
    hits = np.zeros(size, int)
    for top, left, bottom, right in window_boxes(size, crop, stride):
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        assert (bottom - top, right - left) == (min(crop[0], size[0]), min(crop[1], size[1]))
        hits[top:bottom, left:right] += 1
    assert hits.min() >= 1


def test_windows_lie_where_the_published_rule_puts_them():
    # 1024x2048 with crop 1024 and stride 768: three windows, the last shifted back to the border
    boxes = window_boxes((1024, 2048), (1024, 1024), (768, 768))
    assert [box[1] for box in boxes] == [0, 768, 1024]


def test_no_window_is_repeated_when_the_stride_divides():
    assert window_boxes((64, 128), (64, 64), (64, 64)) == [(0, 0, 64, 64), (0, 64, 64, 128)]


@pytest.mark.parametrize("stride", [(0, 8), (8, 33)])
def test_a_stride_that_would_leave_pixels_out_is_an_error(stride):
    with pytest.raises(UsageError, match="stride"):
        window_boxes((64, 64), (32, 32), stride)
