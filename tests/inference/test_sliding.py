import pytest
import torch

from segatlas.errors import UsageError
from segatlas.inference.sliding import (
    Windows,
    _finished_rows,
    card_windows,
    make_windows,
    slide,
    slide_class_map,
)
from segatlas.weights.card import InferenceMode


def positional(window):
    """Logits that depend on where in the window a pixel lies, so that windows disagree."""
    rows = torch.arange(window.shape[-2]).view(-1, 1) * 0.37
    columns = torch.arange(window.shape[-1]) * 0.11
    return torch.cat([window, -window * (rows + columns).sin(), (rows - columns).cos() * torch.ones_like(window)], 1)


def slow_mean(images, crop, stride):
    """Every window on its own; the last of a row or column ends at the edge."""
    height, width = images.shape[-2:]
    sums, hits = torch.zeros(len(images), 3, height, width), torch.zeros(height, width)
    tops = sorted({max(0, min(top, height - crop[0])) for top in range(0, height, stride[0])})
    lefts = sorted({max(0, min(left, width - crop[1])) for left in range(0, width, stride[1])})
    for top in tops:
        for left in lefts:
            area = (slice(top, top + crop[0]), slice(left, left + crop[1]))
            sums[..., area[0], area[1]] += positional(images[..., area[0], area[1]])
            hits[area] += 1
    return sums / hits


CASES = [
    ((20, 30), (8, 8), (5, 5)),
    ((20, 30), (7, 11), (7, 3)),
    ((5, 30), (8, 8), (4, 4)),
    ((1, 40), (4, 16), (3, 11)),
]


@pytest.mark.parametrize(("size", "crop", "stride"), CASES)
def test_slide_is_the_mean_over_all_windows_that_cover_a_pixel(size, crop, stride):
    images = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    result = slide(images, Windows(crop=crop, stride=stride), positional)
    assert torch.allclose(result, slow_mean(images, crop, stride), atol=1e-6)


@pytest.mark.parametrize(("size", "crop", "stride"), CASES)
def test_class_map_by_windows_is_the_argmax_of_the_mean(size, crop, stride):
    images = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    labels, confidence = slide_class_map(images, Windows(crop=crop, stride=stride), positional, confidence=True)
    probabilities = slow_mean(images, crop, stride).softmax(1)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), probabilities.argmax(1))
    assert torch.allclose(confidence, probabilities.amax(1), atol=1e-6)


def test_windows_that_would_leave_gaps_are_refused():
    with pytest.raises(UsageError, match="1 up to the size"):
        card_windows(InferenceMode(mode="slide", crop=(8, 8), stride=(8, 9)))


def test_no_more_rows_than_one_window_are_held():
    images = torch.zeros(1, 1, 100, 10)
    bands = [band.shape[2] for band in _finished_rows(images, Windows(crop=(16, 10), stride=(8, 10)), positional)]
    assert sum(bands) == 100
    assert max(bands) <= 16


def test_windows_of_a_card_overlap_by_a_third_where_it_names_no_stride():
    assert card_windows(InferenceMode()) is None
    assert card_windows(InferenceMode(mode="slide", crop=(9, 12))) == Windows(crop=(9, 12), stride=(6, 8))
    given = InferenceMode(mode="slide", crop=(9, 12), stride=(5, 5))
    assert card_windows(given) == Windows(crop=(9, 12), stride=(5, 5))


def test_overlap_decides_the_step():
    assert make_windows(10, 0.0).stride == (10, 10)
    assert make_windows((10, 20), 0.5) == Windows(crop=(10, 20), stride=(5, 10))
    assert make_windows(1, 0.9).stride == (1, 1)


@pytest.mark.parametrize(("window", "overlap"), [(0, 0.5), ((4, -1), 0.5), (8, 1.0), (8, -0.1)])
def test_windows_out_of_range_are_refused(window, overlap):
    with pytest.raises(UsageError):
        make_windows(window, overlap)
