"""Pickles of NumPy arrays, as Detectron2's zoo has them, are read as data; what else stands in them never runs."""

import pickle

import numpy as np
import pytest
import torch

from segatlas.checkpoint.reading import read_state_dict
from segatlas.errors import WeightsError


def written(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_come_as_tensors_with_what_stands_beside_them(tmp_path, protocol):
    arrays = {
        "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "a.bias": np.array([1.5, -2.5], np.float64),
        "columns": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "none": np.zeros((0, 3), np.float32),
        "one": np.array(7, np.int64),
    }
    file = written(tmp_path / "w.pkl", {"model": arrays, "__author__": "Detectron2 Model Zoo"}, protocol)
    read = read_state_dict(file)
    assert read.meta == {"__author__": "Detectron2 Model Zoo"}
    for name, array in arrays.items():
        assert torch.equal(read.tensors[name], torch.from_numpy(array.copy()))


class Hostile:
    def __reduce__(self):
        return (open, ("made-by-a-pickle", "w"))


def test_a_hostile_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "w.pkl", {"model": {"a": np.zeros(2, np.float32)}, "trap": Hostile()})
    read = read_state_dict(file)
    assert "trap" not in read.meta
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.array([{}, {}], object), "of objects"),
        (np.zeros(2, ">f4"), "type that is not supported"),
        (np.zeros(2, "U3"), "type that is not supported"),
    ],
)
def test_arrays_of_other_things_than_numbers_are_refused(tmp_path, array, told):
    with pytest.raises(WeightsError, match=told):
        read_state_dict(written(tmp_path / "w.pkl", {"model": {"a": array}}))


def test_an_array_with_other_bytes_than_its_shape_is_refused(tmp_path):
    file = written(tmp_path / "w.pkl", {"model": {"a": np.zeros(1001, np.uint8)}}, protocol=4)
    file.write_bytes(file.read_bytes().replace((1001).to_bytes(2, "little"), (1000).to_bytes(2, "little"), 1))
    with pytest.raises(WeightsError, match=r"w\.pkl"):
        read_state_dict(file)


def test_a_truncated_pickle_is_refused(tmp_path):
    file = written(tmp_path / "w.pkl", {"model": {"a": np.zeros(100, np.float32)}})
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(WeightsError, match=r"w\.pkl"):
        read_state_dict(file)
