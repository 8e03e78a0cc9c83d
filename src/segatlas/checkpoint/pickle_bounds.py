"""Walk over a pickle before it is loaded, and refuse what would take memory out of proportion to the file.

Nine bytes of a pickle can ask for gigabytes: a memo index of two thousand million, a text that is said to be long. The
walk reads every instruction with its argument's length, builds nothing, and tells where the pickle ends.
"""

from __future__ import annotations

import pickletools
from mmap import mmap

from segatlas.errors import WeightsError

MOST_OBJECTS = 1_000_000
"""Instructions of one pickle at most, a few dozen bytes of memory each. A checkpoint of a thousand tensors with its
optimiser has about 150,000."""

MOST_PICKLE_BYTES = 1 << 28
"""Bytes of one pickle at most; numbers of tensors lie outside it."""

_LONGEST_LINE = 1 << 20
"""Bytes of an argument that ends at a line break: names of classes, numbers and texts in the oldest form."""

_LONG_INTEGER, _LONGEST_INTEGER = 9, 33
"""Bytes of a long integer, and of the longest; seeds and states of random generators have 16."""

_MOST_LONG_INTEGERS = 10_000
"""Long integers at most: their hashes can be made to collide, and a dict of them then takes hours."""

_SET_COSTS = 4
"""What an empty set counts: it takes as much memory as four other objects."""

_LENGTH_BYTES = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4}
_LENGTH_BYTES |= {pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}
_LENGTHS = {
    ord(op.code): 0 if op.arg is None else op.arg.n if op.arg.n != pickletools.UP_TO_NEWLINE else -1
    for op in pickletools.opcodes
}
_COUNTED = {code: _LENGTH_BYTES[length] for code, length in _LENGTHS.items() if length in _LENGTH_BYTES}
"""Instruction -> bytes of the number that says how long its argument is."""

_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
_TWO_LINES = frozenset(code for code, name in _NAMES.items() if name in ("GLOBAL", "INST"))
_PUTS = frozenset(code for code, name in _NAMES.items() if name in ("PUT", "BINPUT", "LONG_BINPUT"))
_INTEGERS = frozenset(code for code, name in _NAMES.items() if name in ("LONG1", "LONG4"))
_SETS = frozenset(code for code, name in _NAMES.items() if name in ("EMPTY_SET", "FROZENSET"))
_TEXT_INTEGERS = frozenset(code for code, name in _NAMES.items() if name in ("INT", "LONG"))
_TUPLES = frozenset(code for code, name in _NAMES.items() if name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"))
_GETS = frozenset(code for code, name in _NAMES.items() if name in ("GET", "BINGET", "LONG_BINGET"))
_FRAME, _STOP, _MARK, _MEMOIZE, _POP = 0x95, ord("."), ord("("), 0x94, ord("0")

_MOST_NESTED_TUPLES = 1000
"""Tuples inside tuples at most: the interpreter hashes them by recursion and has no guard there."""


def _effect(op: pickletools.OpcodeInfo) -> tuple[bool, int, int]:
    """Return whether an instruction takes everything down to a mark, what it takes besides, and what it leaves."""
    marked = pickletools.markobject in op.stack_before
    takes = op.stack_before.index(pickletools.markobject) if marked else len(op.stack_before)
    return marked, takes, len(op.stack_after)


_EFFECTS = {ord(op.code): _effect(op) for op in pickletools.opcodes}
_EFFECTS[_MARK] = (False, 0, 0)  # a mark is no object
_PLAIN = (False, 0, 1)
"""The effect of most instructions: one object more."""


def pickle_end(data: bytes | mmap, start: int = 0, most: int = MOST_PICKLE_BYTES) -> int:
    """Return the position behind the pickle that begins at `start` and has `most` bytes at most.

    Raises:
        WeightsError: no pickle, cut short, or one whose memo, lengths or number of objects are out of bounds.
    """
    end, position, tuples = min(len(data), start + most), start, _Tuples()
    objects = long_integers = 0
    while position < end:
        code = data[position]
        if code not in _LENGTHS:
            raise WeightsError(f"damaged (no pickle: instruction {code:#04x} at byte {position})")
        argument = position + 1
        position = _behind(data, code, argument, end)
        objects += _SET_COSTS if code in _SETS else 1
        if objects > MOST_OBJECTS:
            raise WeightsError(f"refused, it holds more than {MOST_OBJECTS:,} objects besides its tensors")
        if code == _STOP:
            return position
        index = _memo_index(data, code, argument, position) if code in _PUTS or code in _GETS else -1
        if index > objects:
            raise WeightsError("damaged (a memo index beyond the number of objects)")
        if _EFFECTS[code] == _PLAIN and index < 0:
            tuples.stack.append(0)
        else:
            tuples.step(code, index)
        if code in _INTEGERS or code in _TEXT_INTEGERS:
            size = (position - argument) // (3 if code in _TEXT_INTEGERS else 1)  # a byte is up to three digits
            long_integers += size > _LONG_INTEGER
            if size > _LONGEST_INTEGER or long_integers > _MOST_LONG_INTEGERS:
                raise WeightsError("refused, it holds integers that are too long")
    if end < len(data):
        raise WeightsError(f"refused, it holds more than {most:,} bytes besides its tensors")
    raise WeightsError("truncated (its pickle has no end)")


class _Tuples:
    """Follows how deeply tuples are nested: the stack and the memo of a pickle, with depths in place of objects."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self._marks: list[int] = []
        self._memo: dict[int, int] = {}

    def step(self, code: int, index: int) -> None:
        """Do one instruction; `index` is that of the memo. WeightsError where tuples are nested too deeply."""
        stack, marks = self.stack, self._marks
        to_mark, takes, leaves = _EFFECTS[code]
        if code == _MARK:
            marks.append(len(stack))
            return
        if code in _GETS:
            stack.append(self._memo.get(index, 0))
            return
        if code in _PUTS or code == _MEMOIZE:
            self._memo[index if code in _PUTS else len(self._memo)] = stack[-1] if stack else 0
            return
        if code == _POP and marks and marks[-1] == len(stack):
            marks.pop()
            return
        if to_mark and not marks:
            raise WeightsError("damaged (a pickle that misses a mark)")
        base = (marks.pop() if to_mark else len(stack)) - takes
        if base < (marks[-1] if marks else 0):
            raise WeightsError("damaged (a pickle that takes more objects than it has made)")
        depth = max(stack[base:], default=0) + (code in _TUPLES)
        if depth > _MOST_NESTED_TUPLES:
            raise WeightsError(f"refused, tuples are nested more than {_MOST_NESTED_TUPLES} deep")
        stack[base:] = [depth] * leaves


def _behind(data: bytes | mmap, code: int, argument: int, end: int) -> int:
    """Return the position behind an instruction whose argument begins at `argument`."""
    length = _LENGTHS[code]
    if code in _COUNTED:
        counted = _COUNTED[code]
        stated = int.from_bytes(data[argument : argument + counted], "little", signed=length == -3)
        behind = argument + counted + stated
        if stated < 0 or behind > end:
            raise WeightsError(f"damaged ({_NAMES[code]} announces {stated:,} bytes, more than the file holds)")
        return behind
    if length == -1:
        for _ in range(2 if code in _TWO_LINES else 1):
            line_end = data.find(b"\n", argument, min(end, argument + _LONGEST_LINE))
            if line_end < 0:
                raise WeightsError(f"damaged ({_NAMES[code]} without an end of its line)")
            argument = line_end + 1
        return argument
    if code == _FRAME and int.from_bytes(data[argument : argument + 8], "little") > end - argument - 8:
        raise WeightsError("damaged (a frame longer than the file)")
    return argument + length


def _memo_index(data: bytes | mmap, code: int, argument: int, behind: int) -> int:
    if _LENGTHS[code] >= 0:
        return int.from_bytes(data[argument:behind], "little")
    text = data[argument : behind - 1]
    if not text.isdigit() or len(text) > 12:
        raise WeightsError("damaged (a memo index that is no number)")
    return int(text)
