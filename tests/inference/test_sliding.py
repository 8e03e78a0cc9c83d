import pytest
import torch
import torch.nn.functional as F
from fakes.largest import Largest
from fakes.views import sees, undo

from segatlas.checkpoint.preprocessing import InferenceMode
from segatlas.errors import UsageError
from segatlas.inference.sliding import (
    Tile,
    WindowRows,
    Windows,
    card_windows,
    make_windows,
    slide,
    slide_class_map,
)
from segatlas.inference.tta import View
from segatlas.ops import upsample_logits
from segatlas.structures import Resample, SemanticLogits

POSES = [View(turns=turns, flip=flip) for turns in range(4) for flip in (False, True)]


class Images:
    """A batch at hand, with a note of what was asked for."""

    def __init__(self, count, height, width, seed=0):
        self.images = torch.randn(count, 2, height, width, generator=torch.Generator().manual_seed(seed))
        self.size = (height, width)
        self.asked = []

    def part(self, top, left, height, width):
        self.asked.append((top, left, height, width))
        return self.images[..., top : top + height, left : left + width]


class Network:
    """Logits at a stride, padded right and bottom, that depend on where in the window a pixel lies."""

    def __init__(self, stride=4, classes=5, align_corners=False):
        self.stride, self.resample = stride, Resample("bilinear", align_corners)
        self.mix = torch.randn(classes, 2, generator=torch.Generator().manual_seed(9))
        self.batches = []

    def __call__(self, windows):
        self.batches.append(tuple(windows.shape))
        padded = F.pad(windows, (0, -windows.shape[-1] % self.stride, 0, -windows.shape[-2] % self.stride))
        coarse = F.avg_pool2d(padded, self.stride)
        rows = torch.arange(coarse.shape[-2]).view(-1, 1) * 0.7
        logits = torch.einsum("kc,nchw->nkhw", self.mix, coarse) * (rows + torch.arange(coarse.shape[-1]) * 0.3).cos()
        return SemanticLogits(logits, (padded.shape[-2], padded.shape[-1]), self.resample)

    def full(self, windows):
        """Logits of windows at the windows' size, step by step."""
        logits, canvas, (mode, align_corners), _ = self(windows)
        upsampled = F.interpolate(logits, canvas, mode=mode, align_corners=align_corners)
        return upsampled[..., : windows.shape[-2], : windows.shape[-1]]


def slow_mean(images, network, crop, stride, size=None):
    """Every window on its own; the last of a row or column ends at the edge; upsampled again where sizes differ."""
    height, width = images.shape[-2:]
    sums, hits = 0, torch.zeros(height, width)
    tops = sorted({max(0, min(top, height - crop[0])) for top in range(0, height, stride[0])})
    lefts = sorted({max(0, min(left, width - crop[1])) for left in range(0, width, stride[1])})
    for top in tops:
        for left in lefts:
            window = network.full(images[..., top : top + crop[0], left : left + crop[1]])
            right, bottom = width - left - window.shape[-1], height - top - window.shape[-2]
            sums = sums + F.pad(window, (left, right, top, bottom))
            hits[top : top + crop[0], left : left + crop[1]] += 1
    mean = sums / hits
    return mean if size is None else F.interpolate(mean, size, mode="bilinear", align_corners=False)


# image, window, step: every pixel of the stride, multiples of it, one window, one row, no overlap
CASES = [
    ((20, 30), (8, 8), (5, 5)),
    ((24, 32), (16, 16), (8, 8)),
    ((26, 35), (16, 12), (8, 8)),
    ((20, 30), (7, 11), (7, 3)),
    ((5, 30), (8, 8), (4, 4)),
    ((9, 9), (16, 16), (8, 8)),
    ((1, 40), (4, 16), (3, 11)),
]


@pytest.mark.parametrize(("size", "crop", "stride"), CASES)
def test_slide_is_the_mean_over_all_windows_that_cover_a_pixel(size, crop, stride):
    images, network = Images(2, *size), Network()
    result = slide(images.images, Windows(crop=crop, stride=stride), network.full)
    assert torch.allclose(result, slow_mean(images.images, network, crop, stride), atol=1e-6)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("network_stride", [1, 4])
@pytest.mark.parametrize(("size", "crop", "stride"), CASES)
def test_class_map_by_windows_is_the_argmax_of_the_mean(size, crop, stride, network_stride, align_corners):
    images, network = Images(2, *size, seed=1), Network(network_stride, align_corners=align_corners)
    windows = Windows(crop=crop, stride=stride)
    probabilities = slow_mean(images.images, network, crop, stride).softmax(1)
    labels, none = slide_class_map(images, windows, network, size)
    again, confidence = slide_class_map(images, windows, network, size, confidence=True)
    assert none is None
    assert labels.dtype == again.dtype == torch.uint8
    assert torch.equal(labels.long(), probabilities.argmax(1))
    assert torch.equal(again, labels)
    assert torch.allclose(confidence, probabilities.amax(1), atol=1e-6)


@pytest.mark.parametrize("size", [(13, 50), (40, 60), (61, 17)])
def test_a_result_of_another_size_is_the_mean_upsampled_once_more(size):
    images, network = Images(1, 26, 35), Network()
    labels, confidence = slide_class_map(images, Windows(crop=(16, 12), stride=(8, 8)), network, size, confidence=True)
    wanted = slow_mean(images.images, network, (16, 12), (8, 8), size)
    assert torch.equal(labels.long(), wanted.argmax(1))
    assert torch.allclose(confidence, wanted.softmax(1).amax(1), atol=1e-5)
    assert torch.equal(slide_class_map(images, Windows(crop=(16, 12), stride=(8, 8)), network, size)[0], labels)


def test_more_than_255_classes_give_int32():
    images, network = Images(1, 12, 12), Network(classes=300)
    labels, _ = slide_class_map(images, Windows(crop=(8, 8), stride=(4, 4)), network, (12, 12))
    assert labels.dtype == torch.int32
    assert torch.equal(labels.long(), slow_mean(images.images, network, (8, 8), (4, 4)).argmax(1))


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_windows_of_a_row_share_a_pass_and_the_result_stays_the_same(batch):
    images, network = Images(2, 16, 40), Network()
    windows = Windows(crop=(8, 8), stride=(8, 8))
    wanted = slow_mean(images.images, network, (8, 8), (8, 8)).argmax(1)
    network.batches.clear()
    labels, _ = slide_class_map(images, windows, network, (16, 40), batch=batch)
    assert torch.equal(labels.long(), wanted)
    assert [shape[0] // 2 for shape in network.batches] == 2 * ([batch] * (5 // batch) + [5 % batch] * (5 % batch > 0))


@pytest.mark.parametrize(("limit", "passes"), [(1, 5), (2 * 2 * 64, 3), (1 << 20, 1)])
def test_by_default_a_pass_has_as_many_windows_as_suit_the_processor(monkeypatch, limit, passes):
    monkeypatch.setattr("segatlas.inference.sliding.BATCH_PIXELS", limit)
    network = Network()
    slide_class_map(Images(2, 8, 40), Windows(crop=(8, 8), stride=(8, 8)), network, (8, 40))
    assert len(network.batches) == passes


@pytest.mark.parametrize("view", POSES)
def test_rows_of_a_turned_view_are_those_of_its_logits_turned_back(view):
    network, images = Network(), Images(2, 11, 18).images
    seen = view.apply(images)
    covered = (seen.shape[-2], seen.shape[-1])
    for size in ((11, 18), (23, 30)):
        output = network(seen)
        tile = Tile(output=output, size=size, covered=covered, view=view)
        wanted = undo(view, upsample_logits(output.logits, sees(view, size), canvas=output.canvas, crop=covered))
        rows = torch.cat([tile.rows(first, min(first + 4, size[0])) for first in range(0, size[0], 4)], 2)
        assert torch.allclose(rows, wanted, atol=1e-5)


@pytest.mark.parametrize("view", POSES)
def test_windows_of_a_turned_view_lie_where_they_would_on_the_turned_image(view):
    images, network = Images(1, 23, 30), Network()
    windows = Windows(crop=(12, 8), stride=(7, 5))
    seen = view.apply(images.images)
    wanted = undo(view, slow_mean(seen, network, windows.crop, windows.stride))
    rows = WindowRows(images, windows, network, (23, 30), view=view)
    assert torch.allclose(torch.cat([rows.rows(y, min(y + 6, 23)) for y in range(0, 23, 6)], 2), wanted, atol=1e-5)


@pytest.mark.parametrize("confidence", [False, True])
def test_no_array_is_near_the_size_of_the_full_logits(confidence):
    images, network = Images(1, 384, 768), Network(classes=24)
    with Largest(images.images) as watch:
        slide_class_map(
            images, Windows(crop=(64, 64), stride=(48, 48)), network, (384, 768), confidence=confidence, batch=1
        )
    assert watch.bytes <= 4 * 384 * 768  # the mean logits would be 24 times that


def test_no_more_than_the_windows_that_reach_the_current_rows_are_held():
    images = Images(1, 104, 10)
    rows = WindowRows(images, Windows(crop=(16, 10), stride=(8, 10)), Network(), (104, 10))
    held = []
    for first in range(0, 104, 2):
        rows.rows(first, first + 2)
        held.append(len(rows.tiles))
    assert max(held) == 2
    assert len(images.asked) == 12


def test_windows_that_would_leave_gaps_are_refused():
    with pytest.raises(UsageError, match="1 up to the size"):
        card_windows(InferenceMode(mode="slide", crop=(8, 8), stride=(8, 9)))


def test_windows_of_a_card_overlap_by_a_third_where_it_names_no_stride():
    assert card_windows(InferenceMode()) is None
    assert card_windows(InferenceMode(mode="slide", crop=(9, 12))) == Windows(crop=(9, 12), stride=(6, 8))
    given = InferenceMode(mode="slide", crop=(9, 12), stride=(5, 5))
    assert card_windows(given) == Windows(crop=(9, 12), stride=(5, 5))


def test_overlap_decides_the_step():
    assert make_windows(10, 0.0).stride == (10, 10)
    assert make_windows((10, 20), 0.5) == Windows(crop=(10, 20), stride=(5, 10))
    assert make_windows(1, 0.9).stride == (1, 1)
    # from 64 pixels on: the nearest multiple of 16
    assert make_windows((1024, 512)).stride == (688, 336)
    assert make_windows((64, 100), 0.0).stride == (64, 96)
    assert make_windows((64, 500), 0.99).stride == (16, 16)
    assert make_windows(70, 0.0).stride == (64, 64)


@pytest.mark.parametrize(("window", "overlap"), [(0, 0.5), ((4, -1), 0.5), (8, 1.0), (8, -0.1)])
def test_windows_out_of_range_are_refused(window, overlap):
    with pytest.raises(UsageError):
        make_windows(window, overlap)
