from __future__ import annotations

import collections
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segatlas.checkpoint.reading import read_state_dict, read_torch
from segatlas.errors import WeightsError

FORMATS = pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])


def save(content, path, zip_format: bool) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(4, 6, generator=generator)
    return {
        "whole": whole,
        "view": whole[1:3, ::2],
        "turned": whole.t(),
        "half": whole.half(),
        "bfloat": whole.bfloat16(),
        "counter": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.ones(2)),
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


class RunsOnLoading:
    """Pickles to a call of os.system that leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class WithState:
    """A foreign object with attributes, as a whole pickled training program has."""

    def __init__(self):
        self.values = [1, 2]


@FORMATS
def test_a_plain_torch_file_gives_the_tensors_that_were_saved(tmp_path, zip_format):
    save(tensors(), tmp_path / "w.pth", zip_format)
    assert_same(read_state_dict(tmp_path / "w.pth").tensors, tensors())


@FORMATS
def test_code_in_a_pickle_does_not_run_and_the_tensors_beside_it_are_read(tmp_path, zip_format):
    marker = tmp_path / "ran"
    file = tmp_path / "evil.pth"
    save({"state_dict": tensors(), "epoch": 3, "hook": RunsOnLoading(marker), "state": WithState()}, file, zip_format)

    read = read_state_dict(file)

    assert not marker.exists()
    assert_same(read.tensors, tensors())
    assert read.meta == {"epoch": 3}
    torch.load(file, weights_only=False)
    assert marker.exists()  # the file was armed: the ordinary way does run it


@FORMATS
def test_code_inside_the_state_dict_does_not_run_either(tmp_path, zip_format):
    marker = tmp_path / "ran"
    save({"a": torch.ones(2), "b": RunsOnLoading(marker)}, tmp_path / "evil.pth", zip_format)
    assert list(read_state_dict(tmp_path / "evil.pth").tensors) == ["a"]
    assert not marker.exists()


def test_code_in_a_bare_pickle_does_not_run(tmp_path):
    marker, file = tmp_path / "ran", tmp_path / "evil.pth"
    file.write_bytes(pickle.dumps(RunsOnLoading(marker), protocol=2))
    with pytest.raises(WeightsError, match=r"not one written by torch\.save"):
        read_state_dict(file)
    assert not marker.exists()


@FORMATS
def test_foreign_objects_accept_every_pickle_operation_and_keep_nothing(tmp_path, zip_format):
    class Items(list):
        pass

    class Pairs(dict):
        pass

    class Words(set):
        pass

    for local in (Items, Pairs, Words):
        local.__qualname__ = local.__name__
        globals()[local.__name__] = local
    foreign = {"items": Items([1, 2]), "pairs": Pairs(a=1), "words": Words({"a"}), "deque": collections.deque([1], 3)}
    save({"model": {"a": torch.ones(1)}, "foreign": foreign, "note": "kept"}, tmp_path / "w.pth", zip_format)

    read = read_state_dict(tmp_path / "w.pth")

    assert read.meta == {"foreign": {}, "note": "kept"}
    assert list(read.tensors) == ["a"]


@FORMATS
def test_numpy_scalars_beside_the_weights_are_left_out(tmp_path, zip_format):
    import numpy as np

    save({"state_dict": tensors(), "best": np.float64(0.5), "lr": 0.1}, tmp_path / "w.pth", zip_format)
    read = read_state_dict(tmp_path / "w.pth")
    assert_same(read.tensors, tensors())
    assert read.meta == {"lr": 0.1}


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path):
    class OutOfBounds:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (torch.ones(2).storage(), 0, (1000,), (1,), False, {})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save({"a": OutOfBounds(), "b": WithState()}, tmp_path / "w.pth", True)
    with pytest.raises(WeightsError, match="damaged"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list its mapped files")
def test_tensors_of_a_zip_file_are_mapped_instead_of_read(tmp_path):
    torch.save(tensors(), tmp_path / "w.pth")
    read = read_state_dict(tmp_path / "w.pth")
    assert str(tmp_path / "w.pth") in Path("/proc/self/maps").read_text()
    assert torch.equal(read.tensors["flags"], tensors()["flags"])


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_the_usual_wrappers_are_opened_and_what_lies_beside_is_meta(tmp_path, wrapper):
    others = {"epoch": 4, "names": ["a", "b"], "optimizer": {"lr": 0.1, "momentum": torch.ones(3)}}
    torch.save({wrapper: tensors(), **others}, tmp_path / "w.pth")
    read = read_state_dict(tmp_path / "w.pth")
    assert_same(read.tensors, tensors())
    assert read.meta == {"epoch": 4, "names": ["a", "b"], "optimizer": {"lr": 0.1}}


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_a_prefix_that_all_names_share_is_removed(tmp_path, prefix):
    torch.save({"state_dict": {prefix + k: v for k, v in tensors().items()}}, tmp_path / "w.ckpt")
    assert_same(read_state_dict(tmp_path / "w.ckpt").tensors, tensors())


def test_a_prefix_that_one_name_lacks_stays(tmp_path):
    torch.save({"model.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pth")
    assert list(read_state_dict(tmp_path / "w.pth").tensors) == ["model.a", "b"]


def test_safetensors_give_tensors_and_metadata(tmp_path):
    save_file({"module.a": torch.arange(3)}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    read = read_state_dict(tmp_path / "w.safetensors")
    assert torch.equal(read.tensors["a"], torch.arange(3))
    assert read.meta == {"format": "pt"}


def test_data_that_holds_itself_is_an_error_and_not_an_endless_loop(tmp_path):
    content: dict = {"a": torch.ones(1), "list": []}
    content["list"].append(content["list"])
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds itself"):
        read_state_dict(tmp_path / "w.pth")


@FORMATS
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_truncated_file_is_named_and_called_damaged(tmp_path, zip_format, fraction, foreign):
    file = tmp_path / "cut.pth"
    save({"a": torch.ones(500), "b": WithState() if foreign else 1, "c": torch.ones(500)}, file, zip_format)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(WeightsError, match=r"cut\.pth.*(truncated|damaged)"):
        read_state_dict(file)


@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_truncated_safetensors_are_named(tmp_path, fraction):
    file = tmp_path / "cut.safetensors"
    save_file({"a": torch.ones(500)}, file)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(WeightsError, match=r"cut\.safetensors.*truncated or damaged"):
        read_state_dict(file)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "empty"),
        (b"hello, this is text\n", "a text file"),
        (b"<!DOCTYPE html><html>404</html>", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither a safetensors nor a torch file"),
    ],
)
def test_a_file_that_is_no_weights_file_is_named_with_its_fault(tmp_path, content, fault):
    file = tmp_path / "w.pth"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\.pth: .*{fault}"):
        read_state_dict(file)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth: no such file"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(tmp_path)


def test_a_zip_file_of_another_kind_is_told_apart(tmp_path):
    with zipfile.ZipFile(tmp_path / "doc.pth", "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(WeightsError, match=r"doc\.pth: a zip file, but not one written by torch\.save"):
        read_state_dict(tmp_path / "doc.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program_is_told_apart(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "script.pt")
    with pytest.raises(WeightsError, match=r"script\.pt: a TorchScript program"):
        read_state_dict(tmp_path / "script.pt")


def test_one_changed_byte_in_a_file_with_foreign_objects_is_found(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"a": torch.full((100,), 1.5), "b": WithState()}, file)
    data = bytearray(file.read_bytes())
    data[data.index(torch.full((10,), 1.5).numpy().tobytes()) + 5] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=r"w\.pth: damaged .*checksum"):
        read_state_dict(file)


def test_a_file_without_tensors_says_so(tmp_path):
    torch.save({"epoch": 1}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.pth")
    torch.save([torch.ones(1)], tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.pth")


@FORMATS
def test_a_whole_pickled_network_is_told_by_its_class_with_how_to_save_its_weights(tmp_path, zip_format):
    file = tmp_path / "whole.pt"
    save(nn.Sequential(nn.Conv2d(3, 2, 1)), file, zip_format)
    with pytest.raises(WeightsError) as error:
        read_state_dict(file)
    assert str(error.value).startswith(
        f"{file}: a whole pickled network (torch.nn.modules.container.Sequential), not its weights; "
    )
    assert "torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW)" in str(error.value)
    save({"epoch": 3, "model": nn.Linear(2, 2)}, file, zip_format)
    with pytest.raises(
        WeightsError, match=r"\(torch\.nn\.modules\.linear\.Linear\), below 'model', .*\['model'\]\.state"
    ):
        read_state_dict(file)
    save(3.5, file, zip_format)
    with pytest.raises(WeightsError, match="a float where a dictionary"):
        read_state_dict(file)


def test_read_torch_refuses_safetensors(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "w.ckpt")
    with pytest.raises(WeightsError, match="a safetensors file"):
        read_torch(tmp_path / "w.ckpt")
