from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch.nn.functional import interpolate

from segatlas.ops.sampling import make_axis
from segatlas.ops.summed_map import Upsampling, _joint, summed_class_map

WINDOW = 32
# where two windows begin in rows and columns, and the stride of their logits
CASES = {
    "at multiples of the stride": ((0, 0), (8, 12), 4),
    "one axis off by a pixel": ((0, 0), (8, 13), 4),
    "both axes off": ((3, 1), (8, 13), 4),
    "the same place": ((0, 0), (0, 0), 4),
    "logits at full size": ((0, 0), (5, 7), 1),
    "logits of a stride that does not divide": ((0, 0), (8, 12), 5),
}


def windows(stride, classes=6, count=2):
    side = -(-WINDOW // stride)
    return torch.randn(2, count, classes, side, side, generator=torch.Generator().manual_seed(stride))


def part(logits, start, align_corners, common):
    rows, columns = (
        make_axis(logits.shape[-1], WINDOW, align_corners=align_corners).part(a - b, c - b)
        for b, (a, c) in zip(start, common, strict=True)
    )
    return Upsampling(logits=logits, rows=rows, columns=columns)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_map_is_the_argmax_of_the_added_up_full_size_windows(case, align_corners):
    one, other, stride = CASES[case]
    logits = windows(stride)
    common = [(max(a, b), min(a, b) + WINDOW) for a, b in zip(one, other, strict=True)]
    total = 0
    for window, start in zip(logits, (one, other), strict=True):
        full = interpolate(window, (WINDOW, WINDOW), mode="bilinear", align_corners=align_corners)
        (top, bottom), (left, right) = ((a - s, b - s) for (a, b), s in zip(common, start, strict=True))
        total = total + full[..., top:bottom, left:right]
    out = torch.empty(total[:, 0].shape, dtype=torch.uint8)
    summed_class_map([part(w, s, align_corners, common) for w, s in zip(logits, (one, other), strict=True)], out)
    assert torch.equal(out.long(), total.argmax(1))


def test_one_upsampling_is_the_plain_class_map_and_chunks_join_without_a_seam(monkeypatch):
    # the package holds functions of such names; the module is reached by import_module
    monkeypatch.setattr(import_module("segatlas.ops.summed_map"), "copied_samples", lambda classes: 1)
    monkeypatch.setattr(import_module("segatlas.ops.summed_map"), "CHUNK_BYTES", 1)
    for align_corners in (False, True):
        logits = windows(4)[0]
        full = interpolate(logits, (WINDOW, WINDOW), mode="bilinear", align_corners=align_corners)
        out = torch.empty(2, WINDOW, WINDOW, dtype=torch.int32)
        summed_class_map([part(logits, (0, 0), align_corners, [(0, WINDOW)] * 2)], out)
        assert torch.equal(out.long(), full.argmax(1))


def test_windows_at_multiples_of_the_stride_share_a_lattice_and_others_do_not():
    axis = make_axis(8, WINDOW)
    assert _joint([axis.part(8, 32), axis.part(0, 24)]) is not None
    assert _joint([axis.part(9, 32), axis.part(0, 23)]) is None
