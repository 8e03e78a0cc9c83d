from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile

import pytest
import torch

from segatlas.checkpoint.pickle_bounds import pickle_end
from segatlas.checkpoint.reading import read_state_dict, read_torch
from segatlas.errors import WeightsError


def zipped(content: bytes, storage: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", storage)
    return buffer.getvalue()


def tensor_pickle(count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    def number(value) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]

    def row(values) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    reference = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(count)
    built = b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + b"tQ" + number(offset) + row(size) + row(stride)
    return b"\x80\x02}X\x01\x00\x00\x00a" + built + b"\x89NtRs."


MEMORY = {
    "a memo index": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a memo index in text": b"\x80\x02Np2000000000\n.",
    "a text's length": b"\x80\x02X\xff\xff\xff\x7fa.",
    "a length of eight bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"a.",
    "a byte array": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"a.",
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
    "a long integer": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a call of bytearray": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "a call of torch.Tensor": b"\x80\x02ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R.",
    "sets without end": b"\x80\x04" + b"\x8f" * 2_501 + b".",
}


@pytest.mark.parametrize("content", MEMORY.values(), ids=MEMORY)
def test_a_pickle_that_asks_for_memory_is_refused_without_taking_it(tmp_path, monkeypatch, content):
    monkeypatch.setattr("segatlas.checkpoint.pickle_bounds.MOST_OBJECTS", 10_000)
    for number, data in enumerate((content, zipped(content))):
        file = tmp_path / f"{number}.pth"
        file.write_bytes(data)
        tracemalloc.start()
        with pytest.raises(WeightsError, match=str(file)):
            read_state_dict(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * len(data) + (1 << 22)


def test_a_compressed_pickle_is_refused_before_it_is_inflated(tmp_path):
    file = tmp_path / "w.pth"
    file.write_bytes(zipped(b"\x80\x02" + b"N0" * (1 << 22) + b"N.", compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(WeightsError, match="is compressed, torch never does that"):
        read_state_dict(file)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 0, (100_000, 100_000), (0, 0)), "a tensor of 10,000,000,000 numbers over a storage of 4"),
        ((4, 0, (5,), (1,)), "outside of its storage"),
        ((4, 1, (4,), (1,)), "outside of its storage"),
        ((4, 0, (2,), (1 << 61,)), "outside of its storage"),
        ((4, -1, (2,), (1,)), "below 0"),
        ((4, 0, (2,), (-1,)), "below 0"),
        ((4, 0, (2, 2), (1,)), "damaged"),
        ((4, 0, (1,) * 40, (1,) * 40), "more than 32 dimensions"),
        ((1 << 40, 0, (4,), (1,)), "holds 16 bytes, not"),
    ],
)
def test_a_tensor_larger_than_its_storage_is_refused(tmp_path, shape, message):
    file = tmp_path / "w.pth"
    file.write_bytes(zipped(tensor_pickle(*shape), struct.pack("<4f", 1, 2, 3, 4)))
    with pytest.raises(WeightsError, match=message):
        read_state_dict(file)
    file.write_bytes(zipped(tensor_pickle(4, 0, (2, 2), (2, 1)), struct.pack("<4f", 1, 2, 3, 4)))
    assert read_state_dict(file).tensors["a"].tolist() == [[1, 2], [3, 4]]


def test_many_tensors_over_the_same_numbers_are_refused(tmp_path):
    whole = torch.zeros(1 << 20)
    torch.save({str(i): whole for i in range(10)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="many times as many as the file"):
        read_state_dict(tmp_path / "w.pth")


def test_deep_and_circular_data_is_refused(tmp_path):
    lists = b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."
    deep = [lists, b"\x80\x02})" + b"\x85" * 50_000 + b"Ns."]
    for content in (*deep, b"\x80\x02]q\x00h\x00a.", b"\x80\x02)" + b"\x85" * 900 + b"."):
        (tmp_path / "w.pth").write_bytes(zipped(content))
        with pytest.raises(WeightsError, match=r"deep"):
            read_torch(tmp_path / "w.pth")


def test_attributes_that_a_pickle_sets_change_nothing(tmp_path):
    set_on = b"}X\x0c\x00\x00\x00__defaults__Nsb0"
    names = (
        b"ctorch\nSize\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"cos\nsystem\n",
    )
    (tmp_path / "w.pth").write_bytes(zipped(b"\x80\x02" + b"".join(name + set_on for name in names) + b"}."))
    assert read_torch(tmp_path / "w.pth") == {}
    items = b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb."
    (tmp_path / "w.pth").write_bytes(zipped(items))
    assert dict(read_torch(tmp_path / "w.pth").items()) == {}


def test_the_end_of_a_pickle_is_where_the_interpreter_sees_it():
    for value in ({"a": [1, (2, 3)], "b": {4, 5}, 1 << 70: b"x" * 300}, ["é" * 300] * 3, 1.5, None, (((),),)):
        for protocol in range(6):
            data = pickle.dumps(value, protocol)
            assert pickle_end(data + b"rest") == len(data)
            assert pickle_end(b"before" + data, 6) == len(data) + 6
