"""What a card's facts must be, beyond their types: numbers that images and networks can have, and no contradictions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.config.objects import ObjectRule, rule_faults
from segatlas.config.plain import LARGEST_SCALE, SMALLEST_SCALE
from segatlas.printable import shortened
from segatlas.structures import InputSpec, VolumeSlices
from segatlas.tasks import TASKS

MOST_CLASSES = 10_000
MOST_NAME = 500
"""Characters of a class name at most."""

MOST_PIXELS = 1 << 16
"""Pixels of a side of a window or a resized image at most."""

MOST_WIDTH = 1 << 16
"""The largest whole number in a network's config: channels, sizes, counts of blocks."""

_MOST_ITEMS, _MOST_DEPTH = 1000, 6
_RESIZE = re.compile(r"(?:short:|long:|(?:fit:)?(?P<height>\d{1,9})x)(?P<side>\d{1,9})")
_MODES = ("whole", "slide")


def class_faults(classes: Sequence[str], palette: Sequence[Sequence[int]], num_classes: Any) -> Iterator[str]:
    """Yield in words what is wrong with names and colours; `num_classes` of the network's config, None = not stated."""
    count = len(classes)
    if not 1 <= count <= MOST_CLASSES:
        yield f"classes: {count:,} names, expected 1 to {MOST_CLASSES:,}"
    if any(len(name) > MOST_NAME for name in classes):
        yield f"classes: a name of more than {MOST_NAME} characters"
    if num_classes not in (None, count):
        yield f"classes: {count} names, but config.num_classes is {shortened(num_classes)}"
    if len(palette) != count:
        yield f"palette: {len(palette)} colours for {count} classes"
    if not all(0 <= value <= 255 for color in palette for value in color):
        yield "palette: colours are three values 0..255"


def object_faults(things: Sequence[bool], rule: ObjectRule, count: int) -> Iterator[str]:
    """Yield in words what is wrong with the flags of `count` classes and with how objects are made."""
    if things and len(things) != count:
        yield f"things: {len(things)} flags for {count} classes"
    yield from (f"objects.{fault}" for fault in rule_faults(rule))


def usage_faults(inputs: Sequence[InputSpec], norm: Preprocessing, inference: InferenceMode) -> Iterator[str]:
    """Yield in words what is wrong with the inputs, with how they are made and with how they are predicted."""
    yield from _preprocessing_faults(norm, inputs[0].channels if inputs else 0)
    yield from _inference_faults(inference)
    if not inputs:
        yield "inputs: empty; the first one is the image"
    if not all(1 <= one.channels <= MOST_WIDTH for one in inputs):
        yield f"inputs: channels are 1 to {MOST_WIDTH:,}"


def slices_faults(slices: VolumeSlices | None) -> Iterator[str]:
    """Yield in words what is wrong with how images are cut out of volumes."""
    if slices is not None and not -LARGEST_SCALE <= slices.window[0] < slices.window[1] <= LARGEST_SCALE:
        yield f"slices.window: got {slices.window[0]}, {slices.window[1]}, expected two rising numbers"
    if slices is not None and slices.axis not in (0, 1, 2):
        yield f"slices.axis: got {slices.axis}, expected 0, 1 or 2"


def name_faults(architecture: str, task: str) -> Iterator[str]:
    """Yield in words what is wrong with the names that a card states."""
    if len(architecture) > MOST_NAME:
        yield f"architecture: a name of {len(architecture):,} characters"
    if task not in TASKS:
        yield f"task: got {shortened(task)}, expected one of: {', '.join(TASKS)}"


def surgery_faults(surgery: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Yield in words what is wrong with the sizes of a pruned network's layers; the network itself is not asked."""
    for name, sizes in surgery.items():
        if len(name) > MOST_NAME:
            yield f"surgery: a name of {len(name):,} characters"
        elif not all(1 <= size <= MOST_WIDTH for size in sizes):
            told = ", ".join(map(shortened_number, sizes))
            yield f"surgery.{shortened(name)}: got {told}, expected channels in and out and groups, 1 to {MOST_WIDTH:,}"


def _preprocessing_faults(norm: Preprocessing, channels: int) -> Iterator[str]:
    if not len(norm.mean) == len(norm.std) == channels:
        yield f"preprocessing: {len(norm.mean)} means and {len(norm.std)} deviations for {channels} channels"
    for index, value in enumerate(norm.mean):
        if not abs(value) <= LARGEST_SCALE:  # NaN is not
            yield f"preprocessing.mean.{index}: got {value}, expected a finite number up to {LARGEST_SCALE:g}"
            break
    deviations = {f"std.{index}": value for index, value in enumerate(norm.std)}
    for name, value in {**deviations, "max_value": norm.max_value}.items():
        if not SMALLEST_SCALE <= value <= LARGEST_SCALE:
            yield f"preprocessing.{name}: got {value}, expected {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}"
            break
    if norm.resize is not None:
        match = _RESIZE.fullmatch(norm.resize)
        sides = [int(side) for side in match.groupdict().values() if side is not None] if match else [0]
        if not all(1 <= side <= MOST_PIXELS for side in sides):
            yield f"preprocessing.resize: got {shortened(norm.resize)}, expected null, short:N, long:N, fit:HxW or HxW"


def _inference_faults(inference: InferenceMode) -> Iterator[str]:
    if inference.mode not in _MODES:
        yield f"inference.mode: got {shortened(inference.mode)}, expected one of: {', '.join(_MODES)}"
    if inference.mode == "slide" and not inference.crop:
        yield "inference.crop: missing for mode 'slide'"
    for name, size in {"crop": inference.crop, "stride": inference.stride}.items():
        if size is not None and not all(1 <= side <= MOST_PIXELS for side in size):
            yield f"inference.{name}: got {shortened(size)}, expected two sides of 1 to {MOST_PIXELS:,} pixels"


def config_faults(value: Any, key: str = "", depth: int = 0) -> Iterator[str]:
    """Yield what no network's config holds: huge or infinite numbers, endless lists; `key` is where `value` stands.

    A network is built from these numbers before its tensors can be compared with the file's.
    """
    if depth > _MOST_DEPTH:
        yield f"{shortened(key)}: nested too deeply"
    elif isinstance(value, Mapping | list | tuple):
        if len(value) > _MOST_ITEMS:
            yield f"{shortened(key)}: {len(value):,} items, at most {_MOST_ITEMS:,}"
            return
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in pairs:
            yield from config_faults(item, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, float) and not (math.isfinite(value) and abs(value) <= LARGEST_SCALE):
        yield f"{shortened(key)}: got {value}, expected a finite number"
    elif isinstance(value, int) and not abs(value) <= MOST_WIDTH:
        yield f"{shortened(key)}: got {shortened_number(value)}, expected at most {MOST_WIDTH:,}"
    elif isinstance(value, str) and len(value) > MOST_NAME:
        yield f"{shortened(key)}: a text of more than {MOST_NAME} characters"


def shortened_number(value: int) -> str:
    """Return a whole number, or its size: thousands of digits are no help, and Python refuses to write them."""
    return str(value) if value.bit_length() < 128 else f"a number of {value.bit_length()} bits"
