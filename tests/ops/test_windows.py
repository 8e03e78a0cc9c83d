import numpy as np
import pytest

from segatlas.errors import UsageError
from segatlas.ops.windows import window_starts


@pytest.mark.parametrize("whole", [1, 5, 32, 33, 64, 100, 131])
@pytest.mark.parametrize(("side", "step"), [(32, 32), (32, 20), (48, 17), (64, 1)])
def test_windows_cover_every_pixel_and_stay_inside(whole, side, step):
    hits = np.zeros(whole, int)
    for start in window_starts(whole, side, step):
        assert 0 <= start <= max(whole - side, 0)
        hits[start : start + side] += 1
    assert hits.min() >= 1


def test_windows_lie_where_the_published_rule_puts_them():
    # 2048 pixels, windows of 1024 every 768: three of them, the last moved back to the border
    assert window_starts(2048, 1024, 768) == [0, 768, 1024]


def test_no_window_is_repeated_when_the_step_divides():
    assert window_starts(128, 64, 64) == [0, 64]


@pytest.mark.parametrize("step", [0, 33])
def test_a_step_that_would_leave_pixels_out_is_an_error(step):
    with pytest.raises(UsageError, match="window step"):
        window_starts(64, 32, step)
