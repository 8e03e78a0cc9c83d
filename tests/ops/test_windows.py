from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from segatlas.errors import UsageError
from segatlas.ops import slide, slide_scores, window_boxes
from segatlas.structures import Resample, SemanticLogits


class TinyNet:
    """Stride 4, pads right and bottom to a multiple of 4, sees its window only."""

    def __init__(self, classes: int = 5, align_corners: bool = False):
        self.weight = torch.randn(classes, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        self.resample = Resample("bilinear", align_corners)
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, x: torch.Tensor) -> SemanticLogits:
        self.calls.append(tuple(x.shape))
        height, width = x.shape[-2] + -x.shape[-2] % 4, x.shape[-1] + -x.shape[-1] % 4
        x = pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
        return SemanticLogits(conv2d(avg_pool2d(x, 4), self.weight, padding=1), (height, width), self.resample)


def slow(net, image, crop, stride):
    """Add every window at full size, count, divide."""
    total, count = 0, 0
    height, width = image.shape[-2:]
    for top, left, bottom, right in window_boxes((height, width), crop, stride):
        output = net(image[..., top:bottom, left:right])
        full = interpolate(output.logits, output.canvas, mode="bilinear", align_corners=output.resample.align_corners)[
            ..., : bottom - top, : right - left
        ]
        total = total + pad(full, (left, width - right, top, height - bottom))
        count = count + pad(torch.ones(bottom - top, right - left), (left, width - right, top, height - bottom))
    return total / count


CASES = [
    ((40, 60), (24, 24), (16, 16)),
    ((37, 61), (22, 30), (13, 11)),
    ((50, 20), (16, 32), (16, 32)),
    ((10, 12), (24, 24), (16, 16)),
    ((64, 64), (24, 24), (5, 7)),
]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "crop", "stride"), CASES)
def test_class_map_and_scores_equal_the_slow_version(size, crop, stride, align_corners, batch):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    net = TinyNet(align_corners=align_corners)
    expected = slow(net, image, crop, stride)
    scores = slide_scores(net, image, crop, stride, batch=batch)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    result = slide(net, image, crop, stride, batch=batch)
    assert result.dtype == torch.uint8
    assert torch.equal(result.long(), expected.argmax(1))


def test_band_size_does_not_matter(monkeypatch):
    image = torch.randn(1, 3, 40, 60, generator=torch.Generator().manual_seed(1))
    expected = slide(TinyNet(), image, (24, 24), (16, 16))
    monkeypatch.setattr("segatlas.ops.windows.BAND_BYTES", 1)
    assert torch.equal(slide(TinyNet(), image, (24, 24), (16, 16)), expected)


def test_windows_of_a_row_are_predicted_together():
    net = TinyNet()
    slide(net, torch.zeros(2, 3, 24, 56), (24, 24), (16, 16), batch=2)
    assert net.calls == [(4, 3, 24, 24), (2, 3, 24, 24)]


def test_more_than_255_classes_give_int32():
    image = torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    assert slide(TinyNet(300), image, (16, 16), (8, 8)).dtype == torch.int32


@pytest.mark.parametrize(("size", "crop", "stride"), [*CASES, ((1, 1), (8, 8), (8, 8)), ((9, 100), (9, 9), (1, 9))])
def test_boxes_cover_every_pixel_and_stay_inside(size, crop, stride):
    covered = torch.zeros(size, dtype=torch.bool)
    for top, left, bottom, right in window_boxes(size, crop, stride):
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        assert (bottom - top, right - left) == (min(crop[0], size[0]), min(crop[1], size[1]))
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_the_last_window_is_moved_back_inside():
    boxes = window_boxes((1024, 2048), (1024, 1024), (768, 768))
    assert boxes == [(0, 0, 1024, 1024), (0, 768, 1024, 1792), (0, 1024, 1024, 2048)]


@pytest.mark.parametrize(
    ("crop", "stride", "message"),
    [((8, 8), (9, 8), "left out"), ((0, 8), (1, 1), "positive"), ((8, 8), (8, 0), "positive")],
)
def test_windows_that_leave_gaps_are_refused(crop, stride, message):
    with pytest.raises(UsageError, match=message):
        window_boxes((32, 32), crop, stride)


def test_batch_below_one_is_refused():
    with pytest.raises(UsageError, match="batch"):
        slide(TinyNet(), torch.zeros(1, 3, 8, 8), (8, 8), (8, 8), batch=0)
