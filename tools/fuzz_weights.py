"""Hostile and changed checkpoints and cards, through the functions behind the command line; counts what goes wrong.

    python tools/fuzz_weights.py --checkpoints 250 --cards 400 --seed 1

Faults: an error that is no SegAtlasError, code of a file that ran, memory or time over the bound, and a tensor that
differs from the one that wrote the file without an error. Exit code 1 on any.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import torch
from safetensors.torch import save

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.checkpoint.model_folder import read_card
from segatlas.checkpoint.reading import read_state_dict
from segatlas.conversion.converting import convert_file, tensors_of
from segatlas.errors import SegAtlasError
from segatlas.hub.loading import find_model, load_pretrained

MEMORY = 1 << 30
"""Bytes that one file may take above what the process has when it begins."""

SECONDS = 20
"""Seconds of processor time that one file may take."""
NASTY: tuple[Any, ...] = (
    *(None, [], {}, "", "x", "\x1b[2J\n\u202e", 0, -1, 1, True, False, 0.5, -0.5, 1e-300, 1e300),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        10**9,
        10**30,
        10**400,
        [None],
        [[]],
        [{}],
        {"a": None},
        "a" * 100_000,
    ),
    *([0] * 100_000, ["a"] * 3, {"name": 5}, [1e9, 1e9, 1e9], [float("nan")] * 3, [0, 0, 0]),
)


class Canary:
    """Unpickled by an ordinary reader, it makes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def zipped(content: bytes, storages: dict[str, bytes] | None = None, *, compress: bool = False) -> bytes:
    """Return a zip file as torch writes it, around a pickle and storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/byteorder", sys.byteorder)
        for key, data in (storages or {}).items():
            archive.writestr(f"a/data/{key}", data)
        archive.writestr("a/version", "3\n")
    return buffer.getvalue()


def tensor_pickle(count: Any, offset: Any, size: Any, stride: Any, storage: str = "FloatStorage") -> bytes:
    """Return the pickle of {"a": tensor} with any numbers in it."""

    def number(value: int) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]

    def row(values: Any) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    reference = b"(X\x07\x00\x00\x00storagectorch\n" + storage.encode() + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    reference += number(count) + b"tQ"
    arguments = b"(" + reference + number(offset) + row(size) + row(stride) + b"\x89N"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"tRs."


def pickles(rng: random.Random) -> list[bytes]:
    """Return pickles that ask for memory, nest without end, or call what they should not."""
    deep = rng.choice([10_000, 200_000])
    length = rng.choice([2**31 - 1, 2**32 - 1, 2**30])
    grow = b"".join(b"(lq" + bytes([i]) + (b"h" + bytes([i - 1])) * 2 * (i > 0) + b"" for i in range(1, 30))
    return [
        b"\x80\x02Nr" + struct.pack("<I", length) + b".",
        b"\x80\x02Np" + str(length).encode() + b"\n.",
        b"\x80\x02X" + struct.pack("<I", length) + b"abc.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc.",
        b"\x80\x05\x96" + struct.pack("<Q", rng.choice([2**40, 2**63])) + b"abc.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
        b"\x80\x02)" + b"\x85" * deep + b".",
        b"\x80\x02})" + b"\x85" * deep + b"Ns.",
        b"\x80\x02" + b"(" * deep + b"t" * deep + b".",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
        b"\x80\x02" + grow + b".",
        b"\x80\x04" + b"\x8f" * 300_000 + b".",
        b"\x80\x02}" * 300_000 + b".",
        b"\x80\x02c__builtin__\nbytearray\n" + pickle.dumps(10**10, 2)[2:-1] + b"\x85R.",
        b"\x80\x02ctorch\nTensor\n" + pickle.dumps(10**10, 2)[2:-1] + b"\x85R.",
        b"\x80\x02ccollections\nOrderedDict\n]\x85R}X\x05\x00\x00\x00itemsNsb.",
        b"\x80\x02ctorch\nSize\n}X\x0c\x00\x00\x00__defaults__NsbN.",
        b"\x80\x02I" + b"9" * 5000 + b"\n.",
        b"\x80\x02.",
        b"\x80\x02",
        b"\x80\x09N.",
        b"\x80\x02aN.",
        b"\x80\x02h\x05.",
        b"\x80\x02K\x01K\x02s.",
    ]


def odd_states(trace: Path) -> list[Any]:
    """Return what people save that is no plain state dict."""
    one = torch.ones(2, 2)
    cyclic: dict[str, Any] = {"state_dict": {"a": one}}
    cyclic["state_dict"]["self"] = cyclic
    return [
        [one, one],
        {0: one, 1: one},
        {"a": one.to_sparse()},
        {"a": one.to_sparse_csr()},
        {"a": one.to(torch.complex64)},
        {"a": torch.empty(3, 3, device="meta")},
        {"a": torch.quantize_per_tensor(one, 0.1, 0, torch.qint8)},
        {},
        None,
        {"a": 3, "b": "text"},
        {"a": torch.tensor(1.0)},
        {"a": one.bfloat16()},
        {"a": one.to(torch.float8_e4m3fn)},
        {"a": torch.nn.Parameter(one)},
        {"state_dict": None},
        {"state_dict": {}},
        {"model": one},
        one,
        "text",
        cyclic,
        {"state_dict": {"a": one}, "meta": {"CLASSES": Canary(trace), "cfg": "a=[1]\nb=[a]*9\n"}},
        {"state_dict": {"a": one, "b": Canary(trace)}},
        {"a": one, None: one, ("t",): one},
        {"a": one.expand(5, 2, 2)},
        {"\x1b[2J\nfake": one},
        {"a": torch.zeros(0)},
        {"a" * 100_000: one},
        {"teacher": {"a": one}},
    ]


def tensor_attacks() -> list[bytes]:
    """Return files whose tensor asks for more than its storage holds."""
    data = struct.pack("<4f", 1, 2, 3, 4)
    shapes = [
        (4, 0, (10**5, 10**5), (0, 0)),
        (4, 0, (2**40, 2**40), (0, 0)),
        (4, 0, (10**10,), (0,)),
        (4, 0, (5,), (1,)),
        (4, 1, (4,), (1,)),
        (4, -1, (2,), (1,)),
        (4, 0, (-1,), (1,)),
        (4, 0, (2,), (-1,)),
        (4, 2**62, (1,), (1,)),
        (4, 0, (2,), (2**62,)),
        (4, 0, (2, 2), (1,)),
        (10**10, 0, (10**10,), (1,)),
        (-4, 0, (2,), (1,)),
        (4, 0, (1,) * 100, (1,) * 100),
        (4, 0, (0, 2**62), (1, 1)),
        (4, 0, (3,), (1,)),
    ]
    return [zipped(tensor_pickle(*shape), {"0": data}) for shape in shapes]


def safetensors_attacks() -> list[bytes]:
    """Return files whose header lies."""

    def file(header: bytes, data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
        return struct.pack("<Q", len(header) if length is None else length) + header + data

    entry = b'{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    huge = b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}'
    return [
        file(b"{}", length=2**62),
        file(b'{"a":' + entry + b"}", length=2**40),
        file(b'{"a":' + entry + b',"a":' + entry + b"}"),
        file(b'{"a":' + entry + b',"b":' + entry + b"}"),
        file(huge),
        file(b"{" + b" " * 1000),
        file(b'{"a":[' * 50_000),
        file(b'{"a":' + entry.replace(b"16", b"-16") + b"}"),
        file(b'{"a":' + entry.replace(b"F32", b"F4") + b"}"),
        file(b'{"a":' + entry.replace(b"[4]", b"[true]") + b"}"),
        file(b'{"a":null}'),
        file(b'{"__metadata__":{"a":3}}', b""),
        file(b'{"a":' + entry + b"}", b"\0" * 15),
        file(b'{"a":' + entry + b"}", b"\0" * 17),
        file(b"{}", b""),
    ]


def good_files(state: dict[str, torch.Tensor], trace: Path) -> dict[str, bytes]:
    """Return the same tensors in every container, some of them wrapped as training programs do."""

    def written(content: Any, zip_format: bool = True) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zip_format)
        return buffer.getvalue()

    lightning = {f"model.{name}": tensor for name, tensor in state.items()}
    lightning |= {"mean": torch.tensor([0.5]).expand(3).clone(), "std": torch.full((3,), 0.25)}
    return {
        "zip": written(state),
        "legacy": written(state, False),
        "safetensors": save(state),
        "wrapped": written({"state_dict": lightning, "epoch": 3, "hparams": Canary(trace)}),
        "compiled": written({f"module._orig_mod.{name}": tensor for name, tensor in state.items()}),
    }


def changed(rng: random.Random, data: bytes, *, before: int | None = None) -> bytes:
    """Return the file with bytes flipped, cut, doubled or replaced, within its first `before` bytes."""
    out, end = bytearray(data), min(len(data), before or len(data))
    for _ in range(rng.choice([1, 1, 2, 8])):
        at, size = rng.randrange(end), rng.choice([1, 4, 8, 64])
        kind = rng.randrange(5)
        if kind == 0:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + size] = rng.randbytes(min(size, len(out) - at)) if at < len(out) else b""
        elif kind == 2:
            out[at : at + size] = b"\xff" * min(size, max(0, len(out) - at))
        elif kind == 3 and len(out) > 64:
            del out[max(32, at) : max(32, at) + size]
        else:
            out = out[: max(32, rng.randrange(len(out)))]
        end = min(end, len(out))
    return bytes(out)


def checkpoints(
    rng: random.Random, count: int, state: dict[str, torch.Tensor], trace: Path
) -> Iterator[tuple[str, bytes, bool]]:
    """Yield (kind, content, whether a changed tensor must be noticed): each attack once, then changed good files."""
    made: list[tuple[str, bytes, bool]] = []
    for content in pickles(rng):
        made += [("pickle", content, False), ("pickle in zip", zipped(content), False)]
    made += [("compressed", zipped(b"\x80\x02" + b"N0" * (1 << 24) + b"N.", compress=True), False)]
    made += [("tensor", content, False) for content in tensor_attacks()]
    made += [("safetensors header", content, False) for content in safetensors_attacks()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in odd_states(trace):
            for is_zip in (True, False):
                buffer = io.BytesIO()
                try:
                    torch.save(value, buffer, _use_new_zipfile_serialization=is_zip)
                except Exception:  # this torch does not write that
                    continue
                made.append(("odd state", buffer.getvalue(), False))
    made += [("other file", data, False) for data in (b"", b"PK", b"PK\x03\x04", b"\x80", b"text", b"{", b"\0" * 600)]
    good = good_files(state, trace)
    made += [(f"good {kind}", data, True) for kind, data in good.items()]
    rng.shuffle(made)
    yield from made[:count]
    for _ in range(count - len(made)):
        kind = rng.choice(list(good))
        # without a checksum in the format, only what lies before the numbers can be noticed
        before = None if kind in ("zip", "wrapped", "compiled") else 4096 if kind == "safetensors" else 400
        yield f"changed {kind}", changed(rng, good[kind], before=before), before is None


def cards(rng: random.Random, count: int, card: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, content): each field with each nasty value in turn, nested fields too, then broken JSON."""
    text = json.dumps(card).encode()
    broken = [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        text[:-5],
        b"\xff\xfe" + text,
        b"null",
        b"3",
        b'"x"',
        b"",
        text + text,
        text.replace(b'"task"', b'"classes"'),
        text.replace(b'"architecture"', b'"\\ud800"', 1),
        b"1" * 100_000,
        json.dumps({**card, "classes": ["a"] * 1_000_000, "palette": [[0, 0, 0]] * 1_000_000}).encode(),
    ]
    yield from (("broken JSON", data) for data in broken[:count])
    places = list(_places(card))
    combinations = [(place, value) for place in places for value in NASTY]
    rng.shuffle(combinations)
    for place, value in combinations[: max(0, count - len(broken))]:
        edited = copy.deepcopy(card)
        inner: Any = edited
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        yield ".".join(map(str, place[:1])), json.dumps(edited).encode()


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(pairs)[:40]:
        yield from _places(item, (*path, key))


class TooLongError(BaseException):
    """A file took more than its time."""


@contextmanager
def bounded() -> Iterator[None]:
    """Limit memory and time of what runs inside."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGPROF, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, previous)


def _too_long(*_: Any) -> None:
    raise TooLongError


def outcome(work: Callable[[], None], trace: Path, place: Path) -> tuple[str, str]:
    """Run, and return (what came of it, the trace of a fault)."""
    told = ""
    try:
        with bounded(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            work()
        found = "read"
    except SegAtlasError as error:
        safe = all(c in "\n\t" or c.isprintable() or not c.isascii() for c in str(error)) and len(str(error)) < 20_000
        found, told = (
            ("refused", "") if safe and str(place.parent) in str(error) else ("RAW", f"unclear: {error!s:.300}")
        )
    except DifferentError as error:
        found, told = "DIFFERENT", str(error)
    except MemoryError:
        found, told = "MEMORY", traceback.format_exc()
    except TooLongError:
        found, told = "TIME", traceback.format_exc()
    except Exception as error:
        memory = "allocate" in str(error) or "memory" in str(error).lower()
        found, told = "MEMORY" if memory else "RAW", traceback.format_exc()
    if trace.exists():
        found = "RAN"
        shutil.rmtree(trace)
    return found, told


class DifferentError(Exception):
    """A tensor that is not the one that was written."""


def require_equal(found: dict[str, torch.Tensor], written: dict[str, torch.Tensor]) -> None:
    for name, tensor in found.items():
        if name in written and (tensor.shape != written[name].shape or not torch.equal(tensor, written[name])):
            raise DifferentError(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=250)
    parser.add_argument("--cards", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that showed a fault")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    counts: dict[str, Counter[str]] = {}
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace = folder / "ran"
        net = create_model("unet", encoder="resnet18", num_classes=2, decoder_channels=(8, 8, 8, 8, 8))
        state = {key: value.clone() for key, value in tensors_of("smp", "unet", net.config, net.state_dict()).items()}
        small = create_model("unet", num_classes=3, width=4)
        model = save_pretrained(small, folder / "model", classes=("a", "b", "c"))
        load_pretrained(model)  # what is imported late counts for no file

        def note(kind: str, place: Path, work: Callable[[], None]) -> None:
            found, told = outcome(work, trace, place)
            if kind.startswith("good") and found == "refused":
                found, told = "RAW", "a good file was refused"
            counts.setdefault(kind, Counter())[found] += 1
            if told:
                print(f"{kind}: {found}\n{told[-1500:]}", file=sys.stderr)
                if arguments.keep is not None:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(place, arguments.keep / f"{sum(c.total() for c in counts.values())}-{place.name}")

        for index, (kind, data, is_checked) in enumerate(checkpoints(rng, arguments.checkpoints, state, trace)):
            note(kind, *_checkpoint_work(folder, index, data, state if is_checked else None))
        original = json.loads((model / "card.json").read_text())
        for kind, data in cards(rng, arguments.cards, {**original, "sha256": ""}):
            (model / "card.json").write_bytes(data)
            note(f"card {kind}", model / "card.json", lambda: _use_card(model))
    return _report(counts, arguments.seed, time.perf_counter() - begin)


def _checkpoint_work(
    folder: Path, index: int, data: bytes, state: dict[str, torch.Tensor] | None
) -> tuple[Path, Callable[[], None]]:
    place = folder / f"{index}" / ("w.ckpt" if index % 3 == 0 else "w.pth")
    place.parent.mkdir()
    place.write_bytes(data)

    def work() -> None:
        try:
            if state is not None:
                require_equal(read_state_dict(place).tensors, state)
            elif index % 3 == 0:
                read_card(find_model(place))
            convert_file(place, place.parent / "out")
        finally:
            shutil.rmtree(place.parent / "out", ignore_errors=True)

    return place, work


def _use_card(model: Path) -> None:
    read_card(find_model(model))
    load_pretrained(model)


def _report(counts: dict[str, Counter[str]], seed: int, seconds: float) -> int:
    columns = ("read", "refused", "RAW", "RAN", "MEMORY", "TIME", "DIFFERENT")
    print("| files | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    whole: Counter[str] = Counter()
    for kind, found in sorted(counts.items()):
        whole += found
        print(f"| {kind} | " + " | ".join(str(found[column] or "") for column in columns) + " |")
    print(f"| **{whole.total()} in all** | " + " | ".join(str(whole[column]) for column in columns) + " |")
    print(f"seed {seed}, {seconds:.0f} s, torch {torch.__version__}")
    return int(any(whole[column] for column in columns[2:]))


if __name__ == "__main__":
    sys.exit(main())
