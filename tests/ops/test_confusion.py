from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from segatlas.errors import UsageError
from segatlas.ops import confusion


def slow(prediction, label, num_classes, ignore=255):
    table = np.zeros((num_classes, num_classes), np.int64)
    for guess, truth in zip(prediction.ravel().tolist(), label.ravel().tolist(), strict=True):
        if truth != ignore:
            table[truth, guess] += 1
    return table


def maps(kind: str, classes: int = 7, dtype=np.uint8):
    rng = np.random.default_rng(0)
    if kind == "noise":
        label, prediction = rng.integers(0, classes, (2, 40, 50))
    else:
        label = np.repeat(np.repeat(rng.integers(0, classes, (4, 5)), 10, 0), 10, 1)
        prediction = np.roll(label, 2, 1)
    label[3:9, 5:20] = 255
    prediction[5:7] = classes - 1
    return prediction.astype(dtype), label.astype(dtype)


@pytest.fixture(params=["with hotcoco", "without hotcoco"])
def counter(request, monkeypatch):
    """Both ways: hotcoco's compiled loop, and NumPy alone, as on a platform without its wheel."""
    module = import_module("segatlas.ops.confusion")
    if request.param == "without hotcoco":
        monkeypatch.setattr(module, "_compiled", lambda: None)
    elif module._compiled() is None:
        pytest.skip("hotcoco is not installed")
    return module


@pytest.mark.parametrize("large", [1, 1 << 19])
@pytest.mark.parametrize("kind", ["noise", "runs"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_both_ways_give_the_same_counts_at_any_size(counter, monkeypatch, kind, dtype, large):
    for name in ("SMALL", "LARGE", "STRETCH", "SAMPLED"):
        monkeypatch.setattr(counter, name, large if name in ("SMALL", "LARGE") else 4)
    prediction, label = maps(kind, dtype=dtype)
    assert np.array_equal(confusion(prediction, label, 7), slow(prediction, label, 7))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_a_thousand_classes_are_counted_and_what_is_ignored_is_not(counter, dtype):
    rng = np.random.default_rng(0)
    prediction, label = rng.integers(0, 1000, (2, 3000)).astype(dtype)
    label[5:900] = 1001
    prediction[7] = 5000
    assert np.array_equal(confusion(prediction, label, 1000, ignore=1001), slow(prediction, label, 1000, ignore=1001))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_both_ways_name_the_value_that_is_out_of_range(counter, dtype):
    prediction, label = maps("runs", dtype=dtype)
    label[0, 0] = 9
    with pytest.raises(UsageError, match=r"label holds 9; expected 0\.\.6"):
        confusion(prediction, label, 7)
    label[0, 0], prediction[0, 0] = 1, 11
    with pytest.raises(UsageError, match=r"prediction holds 11; expected 0\.\.6"):
        confusion(prediction, label, 7)


@pytest.mark.parametrize("kind", ["noise", "runs"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_counts_equal_the_loop(kind, dtype):
    prediction, label = maps(kind, dtype=dtype)
    expected = slow(prediction, label, 7)
    ours = confusion(prediction, label, 7)
    assert ours.dtype == np.int64
    assert np.array_equal(ours, expected)
    tensors = confusion(torch.from_numpy(prediction), torch.from_numpy(label), 7)
    assert isinstance(tensors, torch.Tensor)
    assert np.array_equal(tensors.numpy(), expected)


@pytest.mark.parametrize("kind", ["noise", "runs"])
@pytest.mark.parametrize("piece", [1, 7, 2000])
def test_pieces_join_without_a_seam(monkeypatch, kind, piece):
    # the package name `ops.confusion` is the function; the module is reached by import_module
    monkeypatch.setattr(import_module("segatlas.ops.confusion"), "PIECE", piece)
    prediction, label = maps(kind)
    assert np.array_equal(confusion(prediction, label, 7), slow(prediction, label, 7))


def test_rows_are_truth_and_columns_are_prediction():
    table = confusion(np.array([2, 2, 1], np.uint8), np.array([0, 0, 1], np.uint8), 3)
    assert table.tolist() == [[0, 0, 2], [0, 1, 0], [0, 0, 0]]


def test_views_are_counted_like_copies():
    prediction, label = maps("runs")
    assert np.array_equal(confusion(prediction[::2, ::-1], label[::2, ::-1], 7), slow(prediction[::2], label[::2], 7))


def test_more_than_256_classes_are_counted():
    rng = np.random.default_rng(0)
    prediction, label = rng.integers(0, 300, (2, 5000)).astype(np.int32)
    expected = slow(prediction, label, 300, ignore=-1)
    assert np.array_equal(confusion(prediction, label, 300, ignore=-1), expected)


def test_what_is_predicted_at_ignored_pixels_does_not_matter():
    prediction, label = maps("runs")
    expected = confusion(prediction, label, 7)
    prediction[label == 255] = 200
    assert np.array_equal(confusion(prediction, label, 7), expected)


@pytest.mark.parametrize("size", [0, 1])
def test_tiny_maps(size):
    empty = np.zeros((size, 1), np.uint8)
    assert confusion(empty, empty, 2).tolist() == [[size, 0], [0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_values_out_of_range_are_named(dtype):
    good, bad = np.zeros(4, dtype), np.array([0, 1, 9, 0], dtype)
    with pytest.raises(UsageError, match=r"label holds 9; expected 0\.\.2"):
        confusion(good, bad, 3)
    with pytest.raises(UsageError, match=r"prediction holds 9; expected 0\.\.2"):
        confusion(bad, good, 3)


def test_different_shapes_and_floats_are_refused():
    with pytest.raises(UsageError, match="differ in shape"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
    with pytest.raises(UsageError, match="integers"):
        confusion(np.zeros(3, np.float32), np.zeros(3, np.uint8), 2)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_wide_integers_are_counted_as_bytes_where_they_fit_and_as_they_are_where_not(dtype):
    prediction, label = maps("runs", dtype=dtype)
    expected = slow(prediction, label, 7)
    assert np.array_equal(confusion(prediction, label, 7), expected)
    prediction[3, 5] = 300  # an ignored pixel, not looked at
    assert np.array_equal(confusion(prediction, label, 7), expected)
    label[label == 255] = -1
    assert np.array_equal(confusion(prediction, label, 7, ignore=-1), expected)
    prediction[0, 0] = 263  # 7 as a byte
    with pytest.raises(UsageError, match="prediction holds 263"):
        confusion(prediction, label, 7, ignore=-1)
