from __future__ import annotations

import json
import struct
import warnings

import pytest
import torch
from safetensors.torch import save

from segatlas.checkpoint.fitting import require_finite, require_fit
from segatlas.checkpoint.reading import read_state_dict
from segatlas.errors import WeightsError
from segatlas.hub.loading import load_pretrained

ONE = torch.ones(2, 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([ONE], "a list where a dictionary of tensors is expected"),
        (ONE, "a Tensor where a dictionary of tensors is expected"),
        ({}, "an empty dictionary"),
        ({0: ONE}, "a tensor is called 0, which is not a text"),
        ({"a": ONE, 3: ONE}, "a tensor is called 3, which is not a text"),
        ({"a": 3}, "no tensors in it"),
        ({"teacher": {"a": ONE}}, "tensors are below 'teacher'"),
        ({"a": ONE.to_sparse()}, "the tensor a is a sparse tensor"),
        ({"model": {"a": ONE.to_sparse_csr()}}, "the tensor a is a sparse tensor"),
        ({"a": torch.quantize_per_tensor(ONE, 0.1, 0, torch.qint8)}, "the tensor a is a quantised tensor"),
        ({"a": torch.empty(2, device="meta")}, "the tensor a is a tensor without numbers"),
    ],
)
def test_what_is_no_state_dict_of_dense_tensors_is_told(tmp_path, content, message, zip_format):
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zip_format)
    with pytest.raises(WeightsError, match=f"w\\.pth: .*{message}"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16])
def test_newer_types_are_read_with_their_values(tmp_path, dtype, zip_format):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"a": torch.arange(6.0).to(dtype)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zip_format)
    found = read_state_dict(tmp_path / "w.pth").tensors["a"]
    assert found.dtype == dtype
    assert found.float().tolist() == [0, 1, 2, 3, 4, 5]


def header(text: bytes, data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = b'{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(b"{}", length=1 << 62), "its header has"),
        (header(b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}"), "the key 'a' is given twice"),
        (header(b'{"a":' + ENTRY + b',"b":' + ENTRY + b"}"), "b: begins at 0, but"),
        (header(b'{"a":' + ENTRY.replace(b"[4]", b"[4294967296]") + b"}"), "16 bytes for a tensor of shape"),
        (header(b'{"a":' + ENTRY.replace(b"F32", b"X") + b"}"), "the type X is not known"),
        (header(b'{"a":' + ENTRY.replace(b"[4]", b"[-4]") + b"}"), "no whole numbers"),
        (header(b'{"a":' + ENTRY + b"}", b"\0" * 20), "its tensors end at 16"),
        (header(b'{"a":[' * 50_000), "nested too deeply"),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, data, message):
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(save({"a": ONE}))
    assert torch.equal(read_state_dict(tmp_path / "w.safetensors").tensors["a"], ONE)


def test_nan_is_refused_with_the_tensors_name_and_large_sums_are_not(tmp_path):
    with pytest.raises(WeightsError, match="w: NaN or infinite values in 1 tensors: b"):
        require_finite({"a": ONE, "b": ONE * float("nan"), "n": torch.tensor(1)}, where="w")
    with pytest.raises(WeightsError, match="b"):
        require_finite({"b": torch.tensor([1.0, -float("inf"), float("inf")])}, where="w")
    require_finite({"a": torch.full((4,), 1e308, dtype=torch.float64), "e": torch.zeros(0)}, where="w")


def test_complex_numbers_do_not_fit_a_network():
    with pytest.raises(WeightsError, match="of another kind: a: file complex numbers, network real numbers"):
        require_fit({"a": ONE}, {"a": ONE.to(torch.complex64)}, where="w", network="the unet")
    require_fit({"a": ONE}, {"a": ONE.half()}, where="w", network="the unet")


def test_a_pipe_is_no_weights_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no regular file"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("field", ["mean", "std", "max_value", "resize"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e-300, 0, -1, "x", [1e9, 1e99, 1], None, {}, 10**400])
def test_no_card_gives_numbers_that_no_image_has(tmp_path, field, value):
    from segatlas.checkpoint.card import Card

    given = [value] * 3 if field in ("mean", "std") and not isinstance(value, list) else value
    norm = {"mean": [0.5] * 3, "std": [0.5] * 3, field: given}
    data = {"architecture": "unet", "config": {}, "classes": ["a"], "palette": [[0, 0, 0]], "preprocessing": norm}
    (tmp_path / "card.json").write_text(json.dumps(data))
    fine = (field == "mean" and value in (0, -1)) or (field == "resize" and value is None)
    if fine:
        assert Card.read(tmp_path).architecture == "unet"
        return
    with pytest.raises(WeightsError, match=r"card\.json: (not a valid card|not a JSON)"):
        Card.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"classes": [], "palette": []}, "classes: 0 names"),
        ({"classes": ["a"] * 20_000, "palette": [[0, 0, 0]] * 20_000}, "classes: 20,000 items"),
        ({"config": {"width": 10**9}}, "config.width: got 1000000000, expected at most 65,536"),
        ({"config": {"width": [[10**400]]}}, r"config\.width\.0\.0"),
        ({"config": {"rates": [1] * 5000}}, "config.rates: 5,000 items"),
        ({"inference": {"mode": "slide", "crop": [0, 64]}}, "inference.crop: got"),
        ({"task": "sorting"}, "task: got sorting"),
        ({"inputs": [{"channels": 0}]}, "inputs: channels are 1 to"),
    ],
)
def test_absurd_facts_of_a_card_are_refused_before_a_network_is_built(change, fault):
    from segatlas.checkpoint.card import Card

    data = {"architecture": "unet", "config": {}, "classes": ["a"], "palette": [[0, 0, 0]], **change}
    with pytest.raises(WeightsError, match=fault):
        Card.from_dict(data)


def test_a_config_of_many_more_layers_than_the_file_has_is_given_up():
    from segatlas.build.assembling import assemble
    from segatlas.checkpoint.card import Card

    config = {"num_classes": 1, "encoder": "hrnet_w18", "channels": 0}
    card = Card(architecture="upernet", config=config, classes=("a",), palette=((0, 0, 0),))
    with pytest.raises(WeightsError, match=r"cannot be built|does not fit"):
        assemble(card, {"a": ONE}, where="w")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"state_dict": [ONE]}, "its weights are a list"),
        ({"ema_state_dict": "abc", "state_dict": {"net.a": ONE}}, "its weights are a str"),
        ({"ema_state_dict": ONE}, "its weights are a Tensor"),
        ({"state_dict": {1: ONE}}, "a tensor is called 1, which is not a text"),
        ({"state_dict": {"net.a": ONE.to_sparse()}}, "the tensor net.a is a sparse tensor"),
    ],
)
def test_a_training_checkpoint_whose_weights_are_no_tensors_by_name_is_told(tmp_path, weights, message):
    torch.save({"card": {}, **weights}, tmp_path / "w.ckpt")
    with pytest.raises(WeightsError, match=f"w\\.ckpt: .*{message}"):
        load_pretrained(tmp_path / "w.ckpt")
