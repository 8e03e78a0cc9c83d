from __future__ import annotations

from importlib import import_module

import pytest
import torch
from fakes.largest import Largest
from torch.nn.functional import interpolate, one_hot

from segatlas import ops
from segatlas.errors import UsageError
from segatlas.ops.class_map import _dense
from segatlas.ops.lattice import Lattice
from segatlas.ops.stored_logits import samples_of

# logits (h, w) -> image (H, W): integer and odd factors, larger and smaller, single samples, long runs, same size.
SIZES = [
    ((8, 9), (32, 36)),
    ((7, 5), (23, 31)),
    ((9, 9), (10, 9)),
    ((16, 12), (8, 6)),
    ((17, 13), (8, 5)),
    ((6, 4), (6, 4)),
    ((1, 1), (70, 90)),
    ((2, 3), (200, 130)),
    ((33, 17), (257, 130)),
    ((5, 40), (40, 5)),
]


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def label_like(count: int, classes: int, height: int, width: int) -> torch.Tensor:
    coarse = torch.randint(
        0, classes, (count, height // 4 + 1, width // 4 + 1), generator=torch.Generator().manual_seed(1)
    )
    label = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width]
    return one_hot(label, classes).permute(0, 3, 1, 2) * 5.0 + noise((count, classes, height, width))


def slow(logits: torch.Tensor, size: tuple[int, int], align_corners: bool = False) -> torch.Tensor:
    return interpolate(logits.float(), size, mode="bilinear", align_corners=align_corners).argmax(1)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("low", "size"), SIZES)
def test_equals_interpolate_and_argmax(low, size, align_corners):
    for logits in (noise((2, 5, *low)), label_like(2, 5, *low)):
        result = ops.class_map(logits, size, align_corners=align_corners)
        assert result.dtype == torch.uint8
        assert torch.equal(result.long(), slow(logits, size, align_corners))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_memory_layout_do_not_matter(dtype, layout):
    logits = label_like(2, 7, 40, 30).to(dtype).to(memory_format=layout)
    expected = interpolate(logits.to(torch.promote_types(dtype, torch.float32)), (160, 117), mode="bilinear").argmax(1)
    assert torch.equal(ops.class_map(logits, (160, 117)).long(), expected)


@pytest.mark.parametrize("classes", [1, 2, 5, 12, 300])
@pytest.mark.parametrize(("low", "size"), SIZES)
def test_channels_last_logits_give_the_same_map_as_planes(low, size, classes):
    for logits in (noise((2, classes, *low)), label_like(2, classes, *low)):
        aside = logits.contiguous(memory_format=torch.channels_last)
        assert torch.equal(ops.class_map(aside, size), ops.class_map(logits, size))


def test_a_class_that_is_the_best_of_no_sample_wins_between_them():
    logits = torch.tensor([[[[4.0, 0.0]], [[0.0, 4.0]], [[3.0, 3.0]], *[[[-1.0, -1.0]]] * 8]])
    aside = logits.contiguous(memory_format=torch.channels_last)
    expected = torch.tensor([[[0, 0, 0, 2, 2, 1, 1, 1]]], dtype=torch.uint8)
    assert torch.equal(ops.class_map(aside, (1, 8)), expected)
    assert torch.equal(ops.class_map(logits, (1, 8)), expected)


def test_only_candidates_of_a_cell_are_interpolated_and_in_noise_all_classes():
    planes = noise((12, 3, 4)) * 0.1
    for k, left, right in ((3, 5, 2), (7, 2, 5)):
        planes[k, :, :2], planes[k, :, 2:] = left, right
    samples = samples_of(planes.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    corners = torch.tensor([[1], [2], [5], [6]])
    values, cell, label = samples._candidates(corners)
    assert label.tolist() == [3, 7]
    assert cell.tolist() == [0, 0]
    assert torch.equal(values, planes.flatten(1)[[3, 7]][:, corners[:, 0]].T)
    unordered = noise((12, 3, 4)).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert samples_of(unordered)._candidates(corners) is None


def test_channels_last_logits_are_read_in_place():
    logits = label_like(1, 40, 128, 256).contiguous(memory_format=torch.channels_last)
    with Largest(logits) as watch:
        ops.class_map(logits, (256, 512))
    assert watch.bytes <= logits.nbytes / 2


def test_minus_infinity_never_wins_in_a_smaller_map():
    logits = noise((1, 9, 6, 6))
    logits[:, 1] = -torch.inf
    for layout in (torch.contiguous_format, torch.channels_last):
        found = ops.class_map(logits.contiguous(memory_format=layout), (2, 2))
        assert torch.equal(found.long(), slow(logits.nan_to_num(neginf=-9.0), (2, 2)))


def test_a_cut_out_view_gives_the_same_map_as_its_copy():
    logits = noise((3, 6, 20, 30))[1:, ::2, 3:17, 5:27]
    assert torch.equal(ops.class_map(logits, (50, 70)), ops.class_map(logits.contiguous(), (50, 70)))


def test_chunks_of_copied_logits_join_without_a_seam(monkeypatch):
    # the package name `ops.class_map` is the function; the module is reached by import_module
    monkeypatch.setattr(import_module("segatlas.ops.class_map"), "copied_samples", lambda classes: 1)
    logits = noise((1, 4, 19, 11)).to(memory_format=torch.channels_last)
    assert torch.equal(ops.class_map(logits, (75, 43)).long(), slow(logits, (75, 43)))


@pytest.mark.parametrize("threads", [1, 2, 6])
def test_number_of_threads_does_not_matter(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logits = noise((1, 3, 64, 64))
        assert torch.equal(ops.class_map(logits, (300, 300)).long(), slow(logits, (300, 300)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_no_array_is_larger_than_the_result(layout):
    logits = noise((1, 19, 64, 128)).to(memory_format=layout)
    with Largest(logits) as watch:
        ops.class_map(logits, (768, 1536))
    assert watch.bytes <= 768 * 1536  # the full-size logits would be 76 times that
    with Largest(logits) as watch:
        ops.class_map_with_confidence(logits, (768, 1536))
    assert watch.bytes <= 4 * 768 * 1536


def test_differs_in_at_most_a_millionth_of_a_large_noise_map():
    logits = noise((1, 19, 128, 256))
    different = ops.class_map(logits, (512, 1024)) != slow(logits, (512, 1024))
    assert different.float().mean() <= 1e-6 * 2  # 524 288 pixels: one rounding tie


def test_more_than_255_classes_give_int32():
    logits = noise((1, 300, 4, 5))
    result = ops.class_map(logits, (9, 17))
    assert result.dtype == torch.int32
    assert torch.equal(result.long(), slow(logits, (9, 17)))
    assert result.max() > 255


def test_class_254_is_kept_in_uint8():
    logits = torch.zeros(1, 255, 2, 2)
    logits[:, 254] = 1
    assert (ops.class_map(logits, (4, 4)) == 254).all()


def test_ties_go_to_the_first_class():
    logits = torch.zeros(1, 4, 3, 3)
    logits[:, 2] = logits[:, 1] = 1
    assert (ops.class_map(logits, (12, 12)) == 1).all()


def test_minus_infinity_never_wins():
    logits = noise((1, 3, 6, 6))
    logits[:, 1] = -torch.inf
    assert torch.equal(ops.class_map(logits, (6, 6)).long(), logits.argmax(1))
    assert (ops.class_map(logits, (24, 24)) != 1).all()


def test_canvas_larger_than_size_is_cut():
    logits = noise((2, 5, 8, 8))
    expected = slow(logits, (32, 32))[:, :27, :30]
    assert torch.equal(ops.class_map(logits, (27, 30), canvas=(32, 32)).long(), expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_crop_and_resize_are_composed_to_one_map(align_corners):
    logits = noise((1, 4, 8, 8), seed=3).double()
    size, canvas, crop = (41, 50), (32, 32), (27, 30)
    result = ops.class_map(logits, size, canvas=canvas, crop=crop, align_corners=align_corners)
    expected = torch.empty(size, dtype=torch.long)
    for y in range(size[0]):
        for x in range(size[1]):
            expected[y, x] = point(logits[0], (y, x), size, canvas, crop, align_corners).argmax()
    assert torch.equal(result[0].long(), expected)
    upsampled = ops.upsample_logits(logits, size, canvas=canvas, crop=crop, align_corners=align_corners)
    assert torch.equal(upsampled.argmax(1)[0], expected)


def point(planes, pixel, size, canvas, crop, align_corners):
    """One output pixel, followed through the three steps by hand."""
    taps = []
    for i in range(2):
        n = planes.shape[1 + i]
        if align_corners:
            on_canvas = pixel[i] * (crop[i] - 1) / (size[i] - 1)
            source = on_canvas * (n - 1) / (canvas[i] - 1)
        else:
            on_canvas = min((pixel[i] + 0.5) * crop[i] / size[i] - 0.5, crop[i] - 1)
            source = max((on_canvas + 0.5) * n / canvas[i] - 0.5, 0)
        low = min(int(source), n - 1)
        taps.append(((low, 1 - (source - low)), (min(low + 1, n - 1), source - low)))
    return sum(planes[:, y, x] * wy * wx for y, wy in taps[0] for x, wx in taps[1])


def test_crop_default_is_the_whole_canvas_when_the_image_is_larger():
    logits = noise((1, 5, 8, 8))
    assert torch.equal(ops.class_map(logits, (64, 48), canvas=(32, 32)).long(), slow(logits, (64, 48)))


@pytest.mark.parametrize("size", [(24, 30), (23, 31), (5, 6)])
def test_nearest_equals_torch_nearest(size):
    logits = noise((2, 5, 8, 10))
    expected = interpolate(logits, size, mode="nearest").argmax(1)
    assert torch.equal(ops.class_map(logits, size, mode="nearest").long(), expected)


@pytest.mark.parametrize(("low", "size"), SIZES)
def test_confidence_is_the_softmax_probability_of_the_winner(low, size):
    logits = noise((2, 5, *low)) * 3
    best, confidence = ops.class_map_with_confidence(logits, size)
    probability = interpolate(logits, size, mode="bilinear").softmax(1)
    assert torch.equal(best.long(), probability.argmax(1))
    assert confidence.dtype == torch.float32
    torch.testing.assert_close(confidence, probability.amax(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("low", "size"), SIZES)
def test_the_dense_form_of_other_devices_gives_the_same_map(low, size):
    logits = noise((2, 5, *low))
    dense = _dense(logits, Lattice.of(logits, size), torch.uint8)
    assert torch.equal(dense.long(), slow(logits, size))


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (torch.zeros(3, 4, 4), {}, "N, K, h, w"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.long), {}, "float"),
        (torch.zeros(1, 3, 4, 4), {"mode": "bicubic"}, "bicubic"),
        (torch.zeros(1, 3, 4, 4), {"canvas": (16, 16), "crop": (20, 16)}, "crop 20"),
    ],
)
def test_wrong_arguments_are_named(logits, options, message):
    with pytest.raises(UsageError, match=message):
        ops.class_map(logits, (16, 16), **options)
