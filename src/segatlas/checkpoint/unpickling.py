"""Read a torch file without running anything that stands in it, in memory that follows from the file's size.

A pickle is a small program that names functions and calls them. Here only a handful of harmless names exist (ordered
dictionaries and the functions that rebuild a tensor, in versions of our own); every other name, `os.system` as well
as `mmengine.HistoryBuffer`, becomes an inert stand-in: calling it does nothing and it keeps nothing. Before it is
loaded, a pickle is walked over by `pickle_bounds`. While it is loaded, tensors are notes of where their numbers lie;
they become tensors once the pickle is done with, and only where sizes, strides and the storage agree.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from segatlas.checkpoint.numpy_pickles import FUNCTIONS, ArrayNote
from segatlas.checkpoint.pickle_bounds import MOST_OBJECTS, MOST_PICKLE_BYTES, pickle_end
from segatlas.checkpoint.torch_zip import Member, members
from segatlas.errors import WeightsError
from segatlas.printable import printable

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickled value of a torch file in the format used before torch 1.6."""

MOST_DIMENSIONS = 32
MOST_DEPTH = 200
"""Containers inside containers at most."""

_MOST_NAMED, _MOST_LETTERS = 32, 200
"""Foreign classes whose names are kept, and letters of such a name, at most."""

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
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}

_NEWER_DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "uint16", "uint32", "uint64"),
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
    )
    if hasattr(torch, name)
}
"""Types of tensors over storages that have none of their own."""

_UNSUPPORTED = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without numbers (of the meta device)",
    "_rebuild_wrapper_subclass": "a tensor of a special kind",
    "_rebuild_device_tensor_from_numpy": "a tensor of another device",
    "_rebuild_device_tensor_from_cpu_tensor": "a tensor of another device",
}
"""Functions of torch that rebuild what no importer takes -> what that is."""


class Inert:
    """Stands for any object of a class that we do not build. Accepts every pickle operation and ignores it.

    origin: the class's name with its module, "" where it is not kept.
    """

    __slots__ = ()
    origin: ClassVar[str] = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Accept any arguments."""
        return object.__new__(cls)

    def _ignore(self, *args: Any) -> None:
        return None

    __init__ = __setstate__ = __setitem__ = append = extend = add = _ignore


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Stands for a tensor that cannot be given; `kind` says in words what it is."""

    kind: str

    def __setstate__(self, state: Any) -> None:
        """Ignore what a pickle wants to set."""


class _Dict(dict[Any, Any]):
    """A dictionary, ordered or not, that takes items and no attributes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        return None


class _Function:
    """A function that a pickle may call and not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Storage:
    """A flat row of numbers in the file: `count` of `dtype`, the part from `first` on of what `key` names."""

    key: str
    dtype: torch.dtype
    first: int
    count: int

    def __setstate__(self, state: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Note:
    """A tensor to be: where its numbers lie, in elements of `dtype`."""

    storage: _Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __setstate__(self, state: Any) -> None:
        return None


def read_foreign(path: Path) -> Any:
    """Return what a torch file holds: tensors, plain containers and values, `Inert` for everything else.

    Tensors that are sparse, quantised or otherwise special are `Unsupported`. Tensors of a zip file are mapped from the
    file: reading costs no memory until they are used.

    Raises:
        WeightsError: the file is damaged, no torch file, or asks for memory that its size does not justify; names the
            file and the fault.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] == b"PK\x03\x04":
                return _read_zip(path, data)
            return _read_legacy(data)
    except WeightsError as error:
        raise WeightsError(f"{printable(path)}: {error}") from None
    except MemoryError:
        raise
    except RecursionError:
        raise WeightsError(f"{printable(path)}: damaged (its data holds itself)") from None
    except Exception as error:  # a damaged pickle may raise anything at all
        raise WeightsError(f"{printable(path)}: damaged ({type(error).__name__}: {error})") from error


class _Unpickler(pickle.Unpickler):
    """Builds plain containers and notes of tensors."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="utf-8", errors="surrogateescape")
        self.storages: dict[str, _Storage] = {}
        self._items = 0
        self._inert: dict[str, type[Inert]] = {}
        self._names: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _Function(self._ordered),
            ("torch", "Size"): _Function(self._numbers),
            ("torch._utils", "_rebuild_tensor"): _Function(self._tensor),
            ("torch._utils", "_rebuild_tensor_v2"): _Function(self._tensor),
            ("torch._utils", "_rebuild_tensor_v3"): _Function(self._typed_tensor),
            ("torch._utils", "_rebuild_parameter"): _Function(_first),
            ("torch._utils", "_rebuild_parameter_with_state"): _Function(_first),
            ("torch._tensor", "_rebuild_from_type_v2"): _Function(_of_subclass),
            **{name: _Function(call) for name, call in FUNCTIONS.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        known = self._names.get((module, name))
        if known is None and module in ("torch", "torch.storage"):
            known = _DTYPES.get(name) or (_NEWER_DTYPES.get(name) if module == "torch" else None)
        if known is None and module in ("torch._utils", "torch") and name in _UNSUPPORTED:
            kind = _UNSUPPORTED[name]
            known = _Function(lambda *_: Unsupported(kind))
        return self._stand_in(f"{module}.{name}") if known is None else known

    def _stand_in(self, origin: str) -> type[Inert]:
        """Return what stands for a class; of the first classes met, among them that of the whole, with its name."""
        if origin not in self._inert and len(self._inert) < _MOST_NAMED and len(origin) <= _MOST_LETTERS:
            self._inert[origin] = type("Inert", (Inert,), {"__slots__": (), "origin": origin})
        return self._inert.get(origin, Inert)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":  # of the legacy format: a class
            return pid[1] if isinstance(pid[1], type) and issubclass(pid[1], Inert) else Inert
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise WeightsError("damaged (a reference that is no storage)")
        dtype, key, count = pid[1], _key(pid[2]), _whole(pid[4])
        if not isinstance(dtype, torch.dtype):
            raise WeightsError("holds numbers of a type that is not supported")
        whole = _Storage(key, dtype, 0, count)
        if self.storages.setdefault(key, whole) != whole:
            raise WeightsError(f"damaged (storage {key} is given with two types or sizes)")
        if len(pid) < 6 or pid[5] is None:
            return whole
        _, first, length = pid[5]
        if _whole(first) + _whole(length) > count:
            raise WeightsError(f"damaged (a view outside of storage {key})")
        return _Storage(key, dtype, first, length)

    def _ordered(self, items: Any = ()) -> _Dict:
        """Make a dictionary; Python 2 gives its items here, others set them later."""
        self._items += len(items)
        if self._items > MOST_OBJECTS:
            raise WeightsError(f"refused, it holds more than {MOST_OBJECTS:,} objects besides its tensors")
        return _Dict(items)

    @staticmethod
    def _numbers(items: Sequence[Any] = ()) -> tuple[int, ...]:
        if not isinstance(items, list | tuple) or len(items) > MOST_DIMENSIONS:
            raise WeightsError(f"damaged (a tensor of more than {MOST_DIMENSIONS} dimensions)")
        return tuple(_whole(item) for item in items)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        if not isinstance(storage, _Storage):
            raise WeightsError("damaged (a tensor without a storage)")
        return _Note(storage, storage.dtype, _whole(offset), self._numbers(size), self._numbers(stride))

    def _typed_tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
    ) -> Any:
        if not isinstance(dtype, torch.dtype):
            raise WeightsError("holds numbers of a type that is not supported")
        note = self._tensor(storage, offset, size, stride)
        return _Note(note.storage, dtype, note.offset, note.size, note.stride)


def _whole(value: Any) -> int:
    """Return a count, a place or a size. WeightsError where it is none."""
    if not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise WeightsError("damaged (a size or a place that is no whole number, or below 0)")
    return int(value)


def _key(value: Any) -> str:
    if not isinstance(value, str | int):
        raise WeightsError("damaged (a storage whose name is no text)")
    return str(value)


def _first(data: Any, *_: Any) -> Any:
    """Give a parameter as the tensor that it holds."""
    return data if isinstance(data, _Note | Unsupported) else Inert()


def _of_subclass(build: Any, kind: Any, args: Any, *_: Any) -> Any:
    """Give a tensor of a subclass as the plain tensor that it holds."""
    return build(*args) if isinstance(build, _Function) and isinstance(args, tuple) else Inert()


class _Numbers(ABC):
    """Makes tensors of notes: says where the numbers of a storage come from."""

    def __init__(self) -> None:
        self._made: dict[_Storage, Tensor] = {}

    @abstractmethod
    def flat(self, whole: _Storage) -> Tensor:
        """Return a storage's bytes, `(count * itemsize,)` uint8, in memory that suits its type."""

    def tensor(self, note: _Note, storages: Mapping[str, _Storage]) -> Tensor:
        """Return the tensor. WeightsError where it reaches outside of its storage or has more numbers than that."""
        part, whole = note.storage, storages[note.storage.key]
        if whole not in self._made:
            self._made[whole] = self.flat(whole)
        start = part.first * part.dtype.itemsize
        data = self._made[whole][start : start + part.count * part.dtype.itemsize]
        held = len(data) // note.dtype.itemsize
        wanted = math.prod(note.size)
        reach = (
            0 if wanted == 0 else note.offset + sum((n - 1) * s for n, s in zip(note.size, note.stride, strict=True))
        )
        if len(note.stride) != len(note.size) or (wanted and reach >= held):
            raise WeightsError(f"damaged (a tensor reaches outside of its storage {part.key})")
        if wanted > held:
            raise WeightsError(f"refused, a tensor of {wanted:,} numbers over a storage of {held:,} (an expanded view)")
        if wanted == 0:
            return torch.empty(note.size, dtype=note.dtype)
        numbers = data[: held * note.dtype.itemsize].view(note.dtype)
        return numbers.as_strided(note.size, note.stride, numbers.storage_offset() + note.offset)


def _copied(data: mmap.mmap, start: int, size: int) -> Tensor:
    with memoryview(data) as whole, whole[start : start + size] as part:  # a slice of the map would be a copy more
        held = bytearray(part)
    return torch.frombuffer(held, dtype=torch.uint8) if held else torch.empty(0, dtype=torch.uint8)


class _Mapped(_Numbers):
    """Numbers in the members of a zip file: mapped, where they lie at a place that suits their type."""

    def __init__(self, path: Path, data: mmap.mmap, archive: Mapping[str, Member], root: str):
        super().__init__()
        self._path, self._data, self._archive, self._root = path, data, archive, root
        self._file: Any = None  # a storage over the whole file, whose parts keep it mapped

    def flat(self, whole: _Storage) -> Tensor:
        name, size = f"{self._root}data/{whole.key}", whole.count * whole.dtype.itemsize
        member = self._archive.get(name)
        if member is None:
            raise WeightsError(f"damaged ({name} is missing)")
        if member.size != size:
            raise WeightsError(f"damaged (storage {whole.key} holds {member.size} bytes, not {size})")
        member.check(self._data)
        if not size or member.start % 8:
            return _copied(self._data, member.start, size)
        if self._file is None:
            self._file = torch.UntypedStorage.from_file(str(self._path), shared=False, nbytes=len(self._data))
        return torch.empty(0, dtype=torch.uint8).set_(self._file[member.start : member.start + size])


class _Following(_Numbers):
    """Numbers that follow after the pickle, in the legacy format."""

    def __init__(self, data: mmap.mmap, starts: Mapping[str, int]):
        super().__init__()
        self._data, self._starts = data, starts

    def flat(self, whole: _Storage) -> Tensor:
        start, size = self._starts[whole.key], whole.count * whole.dtype.itemsize
        return _copied(self._data, start, size)


def _read_zip(path: Path, data: mmap.mmap) -> Any:
    archive = members(path, data)
    pickles = [name for name in archive if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError("a zip file, but not one written by torch.save")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive:
        raise WeightsError("a TorchScript program, not weights; save its state_dict() instead")
    order = archive.get(f"{root}byteorder")
    if order is not None and data[order.start : order.start + order.size].decode() != sys.byteorder:
        raise WeightsError("written on a machine with another byte order")
    member = archive[pickles[0]]
    member.check(data)
    content = data[member.start : member.start + member.size]
    pickle_end(content)
    reader = _Unpickler(content)
    return _filled(reader.load(), reader.storages, _Mapped(path, data, archive, root))


def _read_legacy(data: mmap.mmap) -> Any:
    magic, place = _load(data, 0, max(len(data), MOST_PICKLE_BYTES))
    if isinstance(magic, dict):  # arrays of NumPy, whose numbers lie in the pickle itself
        return _filled(magic, {}, _Following(data, {}))
    if not isinstance(magic, int) or magic != LEGACY_MAGIC:
        raise WeightsError("a Python pickle, but not one written by torch.save")
    _, place = _load(data, place)  # protocol version
    _, place = _load(data, place)  # sizes of C types where it was written
    end = pickle_end(data, place)
    reader = _Unpickler(data[place:end])
    value = reader.load()
    keys, place = _load(data, end)
    if not isinstance(keys, list):
        raise WeightsError("damaged (no list of storages after the pickle)")
    starts: dict[str, int] = {}
    for key in map(_key, keys):
        storage = reader.storages.get(key)
        if storage is None or key in starts:
            raise WeightsError(f"damaged (storage {key} is not used, or given twice)")
        count = int.from_bytes(data[place : place + 8], "little", signed=True)
        starts[key], place = place + 8, place + 8 + storage.count * storage.dtype.itemsize
        if count != storage.count or place > len(data):
            raise WeightsError(f"truncated (storage {key} is not complete)")
    if missing := reader.storages.keys() - starts.keys():
        raise WeightsError(f"truncated (storage {min(missing)} is missing)")
    return _filled(value, reader.storages, _Following(data, starts))


def _load(data: mmap.mmap, start: int, most: int = MOST_PICKLE_BYTES) -> tuple[Any, int]:
    """Return the value that is pickled at `start`, of `most` bytes at most, and where its pickle ends."""
    end = pickle_end(data, start, most)
    return _Unpickler(data[start:end]).load(), end


def _filled(value: Any, storages: Mapping[str, _Storage], numbers: _Numbers) -> Any:
    """Copy what was unpickled with tensors in place of notes. What two places share, they share afterwards."""
    done: dict[int, Any] = {}

    def fill(item: Any, depth: int) -> Any:
        if not isinstance(item, _Note | ArrayNote | dict | list | tuple):
            return item
        if id(item) in done:
            return done[id(item)]
        if depth > MOST_DEPTH:
            raise WeightsError(f"refused, its data holds itself or is nested more than {MOST_DEPTH} deep")
        made: Any
        if isinstance(item, _Note):
            made = numbers.tensor(item, storages)
        elif isinstance(item, ArrayNote):
            made = item.tensor()
        elif isinstance(item, dict):
            made = {key: fill(inner, depth + 1) for key, inner in item.items()}
        else:
            made = type(item)(fill(inner, depth + 1) for inner in item)
        done[id(item)] = made
        return made

    return fill(value, 0)
