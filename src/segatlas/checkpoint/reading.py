"""Read a weights file of unknown origin safely: nothing that stands in it ever runs.

Formats: safetensors, and both formats of `torch.save` (zip since torch 1.6, legacy before). Torch files are read by
`checkpoint.unpickling`, which leaves foreign objects out, maps the numbers where the format allows it, and takes no
more memory than a file's size justifies; torch's own strict reader gives no such bound (nine bytes can take 2.5 GB).
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from segatlas.checkpoint.prefixes import without_wrappers
from segatlas.checkpoint.safetensors_header import check_header
from segatlas.checkpoint.strangers import stranger_by_class, stranger_by_keys
from segatlas.checkpoint.unpickling import Inert, Unsupported, read_foreign
from segatlas.errors import WeightsError
from segatlas.printable import printable, shortened

_WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "params", "weights"),
    *("ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema", "ema"),
)
"""Keys under which training programs put the state dict, in the order they are looked for."""

_DEPTH = 3
"""Wrappers inside wrappers that are unwrapped at most."""

_MOST_TIMES, _ALWAYS = 8, 1 << 24
"""Tensors may share numbers of the file; all together they have at most so many times its bytes, or so many bytes."""

_MOST_ITEMS = 1_000_000
"""Items of plain data at most, shared parts counted wherever they stand: some readers walk over all of it."""

_NOT_PLAIN = object()


@dataclass(frozen=True, kw_only=True)
class ReadWeights:
    """What a weights file holds.

    tensors: name -> tensor on the CPU, wrappers and common prefixes removed, file order. Tensors of a torch zip file
        are mapped from the file: reading costs no memory until they are used.
    meta: the plain data found beside them (strings, numbers, lists, dictionaries); everything else is left out.
    others: keys of further state dicts beside the one that was taken, such as averaged weights.
    """

    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    others: tuple[str, ...] = ()


def read_state_dict(path: str | Path) -> ReadWeights:
    """Read the tensors of a weights file.

    A state dict under one of the usual keys (`state_dict`, `model`, ...) is unwrapped; what training programs put
    before all names (`module.`, `model.`, `net.`) or into them (`_orig_mod.`) is removed.

    Raises:
        WeightsError: missing, empty, truncated or damaged file, not a weights file, no tensors in it, or tensors that
            are sparse, quantised, or larger than the file justifies.
    """
    path = Path(path)
    if _kind(path) == "safetensors":
        tensors, meta = _read_safetensors(path)
        others: list[str] = []
    else:
        tensors, meta, others = _split(path, read_torch(path))
    _require_sizes(path, tensors)
    return ReadWeights(tensors=without_wrappers(tensors), meta=meta, others=tuple(others))


def read_torch(path: Path) -> Any:
    """Return the content of a torch file as it was saved, with foreign objects replaced by inert stand-ins.

    Raises:
        WeightsError: missing or damaged file, or not written by `torch.save`.
    """
    if _kind(path) != "torch":
        raise WeightsError(f"{printable(path)}: a safetensors file; expected one written by torch.save")
    return read_foreign(path)


def _kind(path: Path) -> str:
    """Tell the format from the first bytes: "safetensors" or "torch"."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise WeightsError(f"{printable(path)}: no regular file (a pipe, socket or device)")
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise WeightsError(f"{printable(path)}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    if not head:
        raise WeightsError(f"{printable(path)}: is empty (0 bytes)")
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise WeightsError(
                f"{printable(path)}: truncated torch file (its table of contents, at the end, is missing)"
            )
        return "torch"
    if head.startswith(b"\x80"):
        return "torch"
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{printable(path)}: a Git LFS pointer, not the weights; fetch the file with: git lfs pull")
    if head[257:262] == b"ustar":
        raise WeightsError(f"{printable(path)}: a tar archive, not weights; save it anew by torch")
    kind = "a text file" if _is_text(head) else "neither a safetensors nor a torch file"
    raise WeightsError(f"{printable(path)}: {kind}, not weights (first bytes {head[:12]!r})")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        check_header(path)
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, KeyError, TypeError) as error:
        raise WeightsError(f"{printable(path)}: truncated or damaged safetensors file ({error})") from error


def _split(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Separate the state dict from what lies around it; also return the keys of further ones."""
    meta: dict[str, Any] = {}
    others: list[str] = []
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            break
        wrappers = [key for key in _WRAPPERS if _holds_tensors(content.get(key), _DEPTH)]
        wrapper, others = (wrappers[0] if wrappers else None), others + wrappers[1:]
        meta.update(_plain({key: value for key, value in content.items() if key != wrapper}))
        if wrapper is None:
            tensors = named_tensors(path, content)
            if tensors:
                return tensors, meta, others
            break
        content = content[wrapper]
    raise WeightsError(f"{printable(path)}: {_seen(content)}")


def named_tensors(path: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict. WeightsError where one is of a kind that no network here has."""
    for name, value in state.items():
        if isinstance(value, Tensor) and not isinstance(name, str):
            raise WeightsError(f"{printable(path)}: a tensor is called {shortened(repr(name))}, which is not a text")
        if isinstance(value, Unsupported):
            raise WeightsError(
                f"{printable(path)}: the tensor {shortened(name)} is {value.kind}; only dense tensors are read"
            )
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


_SAVE = "save one with torch.save(net.state_dict(), FILE)"


def _seen(content: Any) -> str:
    """Say what a file holds in place of a state dict, and what to do."""
    if isinstance(content, Inert):
        return _whole_network(content, "")
    if not isinstance(content, Mapping):
        return f"holds no state dict (a {type(content).__name__} where a dictionary of tensors is expected); {_SAVE}"
    if told := stranger_by_keys(content):
        return told
    if not content:
        return f"holds no state dict (an empty dictionary); {_SAVE}"
    inner = [key for key, value in content.items() if isinstance(key, str) and _holds_tensors(value, 1)]
    if inner:
        named = ", ".join(shortened(repr(key)) for key in inner[:5])
        return f"holds no state dict under a usual name (tensors are below {named}); save one of these alone"
    for key in _WRAPPERS:
        if isinstance(value := content.get(key), Inert):
            return _whole_network(value, f"[{key!r}]")
    return f"holds no state dict (no tensors in it; pickled modules and other objects are not read); {_SAVE}"


def _whole_network(stand_in: Inert, place: str) -> str:
    """Say that a pickled object lies where weights are expected. place: in the file, as Python indexes it."""
    told = stranger_by_class(stand_in.origin)
    kind = f" ({shortened(stand_in.origin)})" if stand_in.origin else ""
    below = f", below {place[1:-1]}" if place else ""
    advice = (
        "nothing in a file is executed, so save its weights where its library is installed, if you trust it: "
        f"torch.save(torch.load(FILE, weights_only=False){place}.state_dict(), NEW)"
    )
    return f"a whole pickled network{kind}{below}, not its weights; {told or advice}"


def _require_sizes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that share numbers so often that copies of them would need many times the file's size."""
    wanted, most = sum(t.numel() * t.itemsize for t in tensors.values()), _MOST_TIMES * path.stat().st_size
    if wanted > max(most, _ALWAYS):
        raise WeightsError(
            f"{printable(path)}: refused, its tensors have {wanted:,} bytes, many times as many as the file"
        )


def _holds_tensors(value: Any, depth: int) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    inner = (value.get(key) for key in _WRAPPERS)
    found = any(isinstance(item, Tensor | Unsupported) for item in value.values())
    return found or any(_holds_tensors(i, depth - 1) for i in inner)


def _plain(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Copy strings, numbers and containers of them; leave out the rest, and what has too many items."""
    copier = _Copier()
    copied = {key: copier.copy(item) for key, item in value.items() if isinstance(key, str)}
    return {key: item for key, (item, size) in copied.items() if item is not _NOT_PLAIN and size <= _MOST_ITEMS}


class _Copier:
    """Copies plain data with its size; what was shared stays shared."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, int]] = {}

    def copy(self, value: Any) -> tuple[Any, int]:
        """Return the copy and the number of items in it, shared parts counted wherever they stand."""
        if value is None or isinstance(value, int | float):
            return value, 1
        if isinstance(value, str):
            return value, 1 + len(value) // 64
        if id(value) not in self._done:
            self._done[id(value)] = self._container(value)
        return self._done[id(value)]

    def _container(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, Mapping):
            pairs = {key: self.copy(item) for key, item in value.items() if isinstance(key, str | int | float)}
            kept = {key: item for key, (item, _) in pairs.items() if item is not _NOT_PLAIN}
            return kept, 1 + sum(size for _, size in pairs.values())
        if isinstance(value, list | tuple):
            items = [self.copy(item) for item in value]
            return [item for item, _ in items if item is not _NOT_PLAIN], 1 + sum(size for _, size in items)
        return _NOT_PLAIN, 1
