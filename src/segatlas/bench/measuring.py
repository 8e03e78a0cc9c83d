"""The benchmark: every model in every precision, timed in turns, its memory in child processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from segatlas.bench.machine import Load, LoadWatch, MachineState, describe_machine
from segatlas.bench.memory import measure_memory
from segatlas.bench.settings import PIECES, BenchSettings
from segatlas.bench.subjects import (
    FLOPS_UNIT,
    Subject,
    bf16_agreement,
    count_flops,
    count_parameters,
    load_subject,
    make_calls,
    network_input,
)
from segatlas.bench.timing import Timing, time_alternating
from segatlas.errors import UsageError
from segatlas.inference.runner import Precision
from segatlas.structures import image_of, samples_of


@dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """What a model costs on any machine.

    input: (C, h, w) of the network's input. flops, macs: see `BenchReport.unit`.

    bf16_agreement: fraction of the image's pixels with the same label in bf16 as in fp32; None where bf16 is not asked
    for.
    """

    model: str
    origin: str
    input: tuple[int, int, int]
    parameters: int
    flops: int
    macs: int
    bf16_agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One piece of one model in one precision.

    timing: per call, which is a batch of images. peak_memory_mib: beyond the loaded model, None where not known.
    ratio_wall, ratio_cpu: this median over that of the same piece in the first row; 0.5 = half the time.
    """

    model: str
    precision: Precision
    piece: str
    timing: Timing
    peak_memory_mib: float | None
    ratio_wall: float
    ratio_cpu: float


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """A finished benchmark."""

    machine: MachineState
    settings: BenchSettings
    load: Load
    unit: str
    models: tuple[MeasuredModel, ...]
    rows: tuple[BenchRow, ...]


def measure(
    models: Sequence[str], settings: BenchSettings, progress: Callable[[str], None] = lambda message: None
) -> BenchReport:
    """Measure models against each other.

    A model may be named twice: the ratio between the two shows what noise alone makes. For steady figures set
    `OMP_WAIT_POLICY=PASSIVE` before the start: waiting threads then sleep instead of eating processor time.

    Args:
        models: words as `load_subject` takes them.
        settings: what to do.
        progress: told what is being measured.

    Raises:
        UsageError: no models, an unknown one, or fields that it does not take.
        WeightsError: a model folder that cannot be loaded.
        SegAtlasError: memory could not be measured.
    """
    if not models:
        raise UsageError("which models? For example: segatlas bench unet segformer_b0")
    watch = LoadWatch()
    with threads_of(settings.threads):
        progress("loading")
        subjects = [load_subject(model, settings) for model in models]
        facts = tuple(describe(model, subject, settings) for model, subject in zip(models, subjects, strict=True))
        keys = [(model, precision, piece) for model in models for precision in settings.precisions for piece in PIECES]
        memories = []
        for model, precision, piece in keys:
            progress(f"memory: {model}, {precision}, {piece}")
            memories.append(measure_memory(model, precision, piece, settings))
        progress(f"time: {len(keys)} pieces, {settings.repeats} rounds")
        made = [make_calls(subject, precision, settings) for subject in subjects for precision in settings.precisions]
        calls = [pieces[piece] for pieces in made for piece in PIECES]
        timings = time_alternating(calls, repeats=settings.repeats, warmups=settings.warmups)
        return BenchReport(
            machine=describe_machine(settings.seed),
            settings=settings,
            load=watch.finish(),
            unit=FLOPS_UNIT,
            models=facts,
            rows=make_rows(keys, timings, memories),
        )


def describe(model: str, subject: Subject, settings: BenchSettings) -> MeasuredModel:
    """Count parameters and arithmetic of a model for one image of the settings' size."""
    one = samples_of(network_input(subject.card, settings), slice(1))
    _, channels, height, width = image_of(one).shape
    flops = count_flops(subject.net, one)
    return MeasuredModel(
        model=model,
        origin=subject.origin,
        input=(channels, height, width),
        parameters=count_parameters(subject.net),
        flops=flops,
        macs=flops // 2,
        bf16_agreement=bf16_agreement(subject, settings) if "bf16" in settings.precisions else None,
    )


def make_rows(
    keys: Sequence[tuple[str, Precision, str]], timings: Sequence[Timing], memories: Sequence[float | None]
) -> tuple[BenchRow, ...]:
    """Join keys (model, precision, piece) with their figures; ratios are against the first row of the same piece."""
    first: dict[str, Timing] = {}
    rows = []
    for (model, precision, piece), timing, memory in zip(keys, timings, memories, strict=True):
        base = first.setdefault(piece, timing)
        rows.append(
            BenchRow(
                model=model,
                precision=precision,
                piece=piece,
                timing=timing,
                peak_memory_mib=memory,
                ratio_wall=_ratio(timing.wall_ms.median, base.wall_ms.median),
                ratio_cpu=_ratio(timing.cpu_ms.median, base.cpu_ms.median),
            )
        )
    return tuple(rows)


def _ratio(value: float, base: float) -> float:
    """Return value / base; NaN-free: a base too short for the clock to see gives 0."""
    return value / base if base > 0 else 0.0


@contextmanager
def threads_of(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads inside; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
