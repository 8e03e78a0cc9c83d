"""Read a weights file of unknown origin safely: nothing that stands in it ever runs.

Formats: safetensors, and both formats of `torch.save` (zip since torch 1.6, legacy before). Torch files are first read
by torch's own strict reader (`weights_only=True`, memory-mapped where the format allows it); what that refuses because
it holds foreign objects is read by `segatlas.weights.unpickling`, which leaves those objects out.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segatlas.errors import WeightsError
from segatlas.weights.unpickling import read_foreign

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs put the state dict, in the order they are looked for."""

_DEPTH = 3
"""Wrappers inside wrappers that are unwrapped at most."""

_PREFIXES = ("module.", "model.")
"""Left by DistributedDataParallel and by a Lightning module that holds its network as `model`."""

_NOT_PLAIN = object()


@dataclass(frozen=True, kw_only=True)
class ReadWeights:
    """What a weights file holds.

    tensors: name -> tensor on the CPU, wrappers and common prefixes removed, file order. Tensors of a torch zip file
        are mapped from the file: reading costs no memory until they are used.
    meta: the plain data found beside them (strings, numbers, lists, dictionaries); everything else is left out.
    """

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def read_state_dict(path: str | Path) -> ReadWeights:
    """Read the tensors of a weights file.

    A state dict under `state_dict`, `model_state_dict` or `model` is unwrapped; a prefix `module.` or `model.` that all
    names share is removed.

    Raises:
        WeightsError: missing, empty, truncated or damaged file, not a weights file, or no tensors in it.
    """
    path = Path(path)
    if _kind(path) == "safetensors":
        tensors, meta = _read_safetensors(path)
    else:
        try:
            tensors, meta = _split(path, read_torch(path))
        except RecursionError:
            raise WeightsError(f"{path}: damaged (its data holds itself)") from None
    return ReadWeights(tensors=_strip_prefixes(tensors), meta=meta)


def read_torch(path: Path) -> Any:
    """Return the content of a torch file as it was saved, with foreign objects replaced by inert stand-ins.

    Raises:
        WeightsError: missing or damaged file, or not written by `torch.save`.
    """
    if _kind(path) != "torch":
        raise WeightsError(f"{path}: a safetensors file; expected one written by torch.save")
    is_zip = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except MemoryError:
        raise
    except Exception:  # foreign objects or a fault of any kind: the second reader reads the one and names the other
        return read_foreign(path)


def _kind(path: Path) -> str:
    """Tell the format from the first bytes: "safetensors" or "torch"."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise WeightsError(f"{path}: is empty (0 bytes)")
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise WeightsError(f"{path}: truncated torch file (its table of contents, at the end, is missing)")
        return "torch"
    if head.startswith(b"\x80"):
        return "torch"
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: a Git LFS pointer, not the weights; fetch the file with: git lfs pull")
    kind = "a text file" if _is_text(head) else "neither a safetensors nor a torch file"
    raise WeightsError(f"{path}: {kind}, not weights (first bytes {head[:12]!r})")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: truncated or damaged safetensors file ({error})") from error


def _split(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Separate the state dict from what lies around it."""
    meta: dict[str, Any] = {}
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            break
        wrapper = next((key for key in _WRAPPERS if _holds_tensors(content.get(key), _DEPTH)), None)
        meta.update(_plain({key: value for key, value in content.items() if key != wrapper}, {}))
        if wrapper is None:
            tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors, meta
            break
        content = content[wrapper]
    raise WeightsError(f"{path}: holds no state dict (a dictionary of tensors); save one with net.state_dict()")


def _holds_tensors(value: Any, depth: int) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    inner = (value.get(key) for key in _WRAPPERS)
    return any(isinstance(item, Tensor) for item in value.values()) or any(_holds_tensors(i, depth - 1) for i in inner)


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Copy strings, numbers and containers of them; leave out the rest. `done` keeps shared parts shared."""
    if value is None or isinstance(value, str | int | float):
        return value
    if id(value) not in done:
        if isinstance(value, Mapping):
            pairs = ((key, _plain(item, done)) for key, item in value.items() if isinstance(key, str | int | float))
            done[id(value)] = {key: item for key, item in pairs if item is not _NOT_PLAIN}
        elif isinstance(value, list | tuple):
            items = [_plain(item, done) for item in value]
            done[id(value)] = [item for item in items if item is not _NOT_PLAIN]
        else:
            done[id(value)] = _NOT_PLAIN
    return done[id(value)]


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None)
    if prefix is None:
        return tensors
    return _strip_prefixes({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
