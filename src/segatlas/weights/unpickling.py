"""Read a torch file that the strict reader refuses, without running anything that stands in it.

A pickle is a small program that names functions and calls them. Here only seven harmless names exist (ordered
dictionaries and the functions that rebuild a tensor, in versions of our own); every other name, `os.system` as well
as `mmengine.HistoryBuffer`, becomes an inert stand-in: calling it does nothing and it keeps nothing.
"""

from __future__ import annotations

import collections
import pickle
import sys
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from segatlas.errors import WeightsError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickled value of a torch file in the format used before torch 1.6."""

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class Inert:
    """Stands for any object of a class that we do not build. Accepts every pickle operation and ignores it."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Accept any arguments."""
        return object.__new__(cls)

    def _ignore(self, *args: Any) -> None:
        return None

    __init__ = __setstate__ = __setitem__ = append = extend = add = _ignore


def read_foreign(path: Path) -> Any:
    """Return what a torch file holds: tensors, plain containers and values, `Inert` for everything else.

    Raises:
        WeightsError: the file is damaged or no torch file; names the file and the fault.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive)
        with path.open("rb") as file:
            return _read_legacy(file, path.stat().st_size)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle may raise anything at all
        raise WeightsError(f"{path}: damaged ({type(error).__name__}: {error})") from error


class _Unpickler(pickle.Unpickler, ABC):
    """Builds tensors and plain containers. Subclasses say where the numbers of a storage come from."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return self._rebuild_parameter
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch", "Size"):
            return tuple
        return Inert

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise WeightsError("damaged (a reference that is no storage)")
        dtype, key, count = pid[1], pid[2], int(pid[4])
        if not isinstance(dtype, torch.dtype):
            raise WeightsError("holds numbers of a type that is not supported")
        view = pid[5] if len(pid) > 5 else None
        return self._storage(dtype, str(key), count, view)

    @abstractmethod
    def _storage(self, dtype: torch.dtype, key: str, count: int, view: tuple[str, int, int] | None) -> Tensor:
        """Return the flat tensor that a storage's key names."""

    @staticmethod
    def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        # as_strided refuses what lies outside the storage
        return storage.as_strided(tuple(size), tuple(stride), offset)

    @staticmethod
    def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
        return data


class _ZipUnpickler(_Unpickler):
    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, root: str):
        super().__init__(file)
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def _storage(self, dtype: torch.dtype, key: str, count: int, view: tuple[str, int, int] | None) -> Tensor:
        if key not in self._storages:
            entry = self._archive.getinfo(f"{self._root}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise WeightsError("damaged (numbers are compressed, torch never does that)")
            data = bytearray(self._archive.read(entry))
            if len(data) != count * dtype.itemsize:
                raise WeightsError(f"damaged (storage {key} holds {len(data)} bytes, not {count * dtype.itemsize})")
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _read_zip(archive: zipfile.ZipFile) -> Any:
    names = archive.namelist()
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError("a zip file, but not one written by torch.save")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise WeightsError("a TorchScript program, not weights; save its state_dict() instead")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder").decode() != sys.byteorder:
        raise WeightsError("written on a machine with another byte order")
    with archive.open(pickles[0]) as file:
        return _ZipUnpickler(file, archive, root).load()


class _LegacyUnpickler(_Unpickler):
    """The numbers follow after the pickle: storages are made empty and filled later."""

    def __init__(self, file: IO[bytes], limit: int):
        super().__init__(file)
        self._left = limit
        self.storages: dict[str, Tensor] = {}

    def _storage(self, dtype: torch.dtype, key: str, count: int, view: tuple[str, int, int] | None) -> Tensor:
        if key not in self.storages:
            self._left -= count * dtype.itemsize
            if count < 0 or self._left < 0:
                raise WeightsError("truncated (announces more numbers than the file holds)")
            self.storages[key] = torch.empty(count, dtype=dtype)
        if view is None:
            return self.storages[key]
        _, offset, length = view
        return self.storages[key][offset : offset + length]


def _read_legacy(file: IO[bytes], size: int) -> Any:
    if _LegacyUnpickler(file, size).load() != LEGACY_MAGIC:
        raise WeightsError("a Python pickle, but not one written by torch.save")
    _LegacyUnpickler(file, size).load()  # protocol version
    _LegacyUnpickler(file, size).load()  # sizes of C types where it was written
    content = _LegacyUnpickler(file, size)
    value = content.load()
    for key in _LegacyUnpickler(file, size).load():
        storage = content.storages[str(key)]
        count = int.from_bytes(file.read(8), "little", signed=True)
        data = bytearray(file.read(storage.numel() * storage.itemsize))
        if count != storage.numel() or len(data) != storage.numel() * storage.itemsize:
            raise WeightsError(f"truncated (storage {key} is not complete)")
        if data:
            storage.copy_(torch.frombuffer(data, dtype=storage.dtype))
    return value
