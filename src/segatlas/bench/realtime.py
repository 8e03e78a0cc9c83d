"""The protocol of papers on real-time segmentation: one image of 1024 x 2048, a loop bounded in time, frames a second.

Papers time the network alone, with batch norm folded, on a tensor of noise; some stop at the logits' own stride, some
go on to the image's size. Both are measured, and beside them what a user waits for: image in, label map out, by the
plain network as most code runs it, and by ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.bench.machine import Load, LoadWatch, MachineState, describe_machine
from segatlas.bench.measuring import threads_of
from segatlas.bench.settings import BenchSettings
from segatlas.bench.subjects import (
    FLOPS_UNIT,
    Subject,
    count_flops,
    count_parameters,
    load_subject,
    network_input,
    seeded_image,
)
from segatlas.errors import UsageError
from segatlas.hub.catalogue import SOURCE, published_for
from segatlas.inference import Predictor
from segatlas.inference.images import GivenImage, ImageBatch, prepare
from segatlas.inference.runner import Precision
from segatlas.models import lookup
from segatlas.structures import Inputs, SemanticLogits

PLAIN, WHOLE, NETWORK, UPSAMPLED = "plain", "end to end", "network", "network, upsampled"
WAYS = {
    PLAIN: "image in, labels out: the network as it is, batch norm unfolded, logits upsampled to full size, argmax",
    WHOLE: "image in, labels out: as `segatlas predict` does it",
    NETWORK: "noise in, logits out at their own stride; batch norm folded (SANet, BiSeNet, STDC publish this)",
    UPSAMPLED: "noise in, logits out, upsampled to the image's size; batch norm folded (DDRNet, PIDNet publish this)",
}
SIZE = (1024, 2048)
SHORTEST = 1.0
"""Seconds that a loop lasts at least before its length is believed."""

NETWORKS = (
    *("sanet_s", "sanet_m", "sanet_l", "ddrnet_23_slim", "ddrnet_23", "pidnet_s", "pidnet_m", "pidnet_l"),
    *("bisenetv1_r18", "bisenetv2", "fast_scnn", "icnet_r50", "cgnet", "erfnet", "enet", "espnet_q8"),
    *("espnetv2_s05", "espnetv2_s20", "stdc1", "stdc2", "segformer_b0"),
)
"""The real-time networks, which the protocol times where none is named."""

SANET = "authors, arXiv 2309.10519"
PAPERS = {"sanet_s": (78.6, SANET), "sanet_m": (78.8, SANET), "sanet_l": (79.2, SANET)}
"""Variant -> mIoU in percent on Cityscapes val and who published it, where the catalogue has no such weights."""

DATASET = "cityscapes"


@dataclass(frozen=True, kw_only=True)
class RealtimeSettings:
    """What is asked of the protocol.

    size: (H, W) pixels. threads: of torch; None = its own choice. precisions: of all ways but the plain one, which is
    fp32. seconds: that a way is timed for; turns: into how many turns that is cut, so that what slows the machine for a
    while slows all of them. warmups: calls before, at most, and for no longer than `seconds`. num_classes, seed: of
    models made from a name. device: where the networks run.
    """

    size: tuple[int, int] = SIZE
    threads: int | None = None
    precisions: tuple[Precision, ...] = ("fp32",)
    seconds: float = 6.0
    turns: int = 3
    warmups: int = 10
    num_classes: int = 19
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class RealtimeModel:
    """What is known of a model before it is timed. macs: of one image, see `RealtimeReport.unit`.

    miou: percent on Cityscapes val at a single scale, as published; None where nothing is. source: who published it.
    """

    model: str
    origin: str
    parameters: int
    macs: int
    miou: float | None
    source: str | None


@dataclass(frozen=True, kw_only=True)
class RealtimeRow:
    """One way of one model in one precision.

    calls: timed. wall_ms, cpu_ms: means of a call, of the clock and of the processor. fps: 1 / mean of the clock.
    ratio: fps over that of the first model the same way. gain, gain_cpu: the plain way's time of the same model over
    this, by the clock and by the processor. same_labels: fraction of pixels with the label of the plain way; None where
    there are no labels.
    """

    model: str
    way: str
    precision: Precision
    calls: int
    wall_ms: float
    cpu_ms: float
    fps: float
    ratio: float
    gain: float
    gain_cpu: float
    same_labels: float | None


@dataclass(frozen=True, kw_only=True)
class RealtimeReport:
    """A finished run of the protocol. ways: what each is called -> what it does."""

    machine: MachineState
    settings: RealtimeSettings
    load: Load
    unit: str
    ways: dict[str, str]
    models: tuple[RealtimeModel, ...]
    rows: tuple[RealtimeRow, ...]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A call to be timed. labels: (H, W) that it gives, None where it gives logits."""

    model: str
    way: str
    precision: Precision
    call: Callable[[], object]
    labels: np.ndarray | None


def measure_realtime(
    models: Sequence[str], settings: RealtimeSettings, progress: Callable[[str], None] = lambda message: None
) -> RealtimeReport:
    """Time models by the protocol, all in turns.

    Args:
        models: words as `load_subject` takes them; none: `NETWORKS`.
        settings: what to do.
        progress: told what is being measured.

    Raises:
        UsageError: an unknown model, one that gives no class maps, or a device that is not there.
        WeightsError: a model folder that cannot be loaded.
    """
    models = models or NETWORKS
    watch = LoadWatch()
    plain = BenchSettings(size=settings.size, num_classes=settings.num_classes, seed=settings.seed)
    with threads_of(settings.threads), torch.inference_mode():
        progress("loading")
        subjects = [load_subject(model, plain) for model in models]
        facts = [_describe(model, subject, plain) for model, subject in zip(models, subjects, strict=True)]
        pieces: list[Piece] = []
        for model, subject in zip(models, subjects, strict=True):
            progress(f"making ready: {model}")
            pieces += make_pieces(model, subject, settings, plain)
        progress(f"time: {len(pieces)} ways, {settings.seconds:g} seconds each")
        times = time_bounded([piece.call for piece in pieces], settings, wait=waiter(settings.device))
        return RealtimeReport(
            machine=describe_machine(settings.seed),
            settings=settings,
            load=watch.finish(),
            unit=FLOPS_UNIT,
            ways=WAYS,
            models=tuple(facts),
            rows=make_rows(pieces, times),
        )


def make_pieces(model: str, subject: Subject, settings: RealtimeSettings, plain: BenchSettings) -> list[Piece]:
    """Return the ways of a model, each ready to be timed, and the labels that they give.

    Raises:
        UsageError: it gives no class maps.
    """
    name: Any = subject.net.architecture
    if lookup(name)[0].output != SemanticLogits.__name__:
        raise UsageError(f"{model}: gives no class maps, which the protocol is for")
    image = seeded_image(subject.card, plain)
    maps = network_input(subject.card, plain).to(torch.device(settings.device))
    predictors: dict[Precision, Predictor] = {
        precision: Predictor(subject.net, subject.card, device=settings.device, precision=precision)
        for precision in settings.precisions
    }
    eager = partial(plain_labels, subject, image, torch.device(settings.device))
    found = [Piece(model=model, way=PLAIN, precision="fp32", call=eager, labels=eager().cpu().numpy()[0])]
    for precision, predictor in predictors.items():
        calls: dict[str, Callable[[], object]] = {
            WHOLE: partial(predictor.predict, image),
            NETWORK: partial(predictor.output, maps),
            UPSAMPLED: partial(_upsampled, predictor, maps),
        }
        labels = predictor.predict(image).semantic
        found += [
            Piece(model=model, way=way, precision=precision, call=call, labels=labels if way == WHOLE else None)
            for way, call in calls.items()
        ]
    return found


def plain_labels(subject: Subject, image: GivenImage, device: torch.device) -> Tensor:
    """Return the labels (1, H, W) int64 as most code makes them: the network as it is, logits at full size, argmax."""
    prepared = prepare(image, subject.card)
    output = subject.net(ImageBatch([prepared], device).whole())
    height, width = prepared.size
    return full_size(output)[..., :height, :width].argmax(1)


def full_size(output: SemanticLogits) -> Tensor:
    """Return the logits upsampled to their canvas, (N, K, H', W')."""
    mode, align_corners = output.resample
    corners = align_corners if mode == "bilinear" else None
    return F.interpolate(output.logits, size=tuple(output.canvas), mode=mode, align_corners=corners)


def _upsampled(predictor: Predictor, maps: Tensor | Inputs) -> Tensor:
    output = predictor.output(maps)
    assert isinstance(output, SemanticLogits)
    return full_size(output)


def waiter(device: str) -> Callable[[], None]:
    """Return what waits until a device has done what it was given; on a processor nothing has to."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.synchronize
    return torch.mps.synchronize if kind == "mps" else (lambda: None)


def time_bounded(
    calls: Sequence[Callable[[], object]],
    settings: RealtimeSettings,
    *,
    wait: Callable[[], None] = lambda: None,
    wall: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.process_time,
) -> list[tuple[int, float, float]]:
    """Time calls in loops, in turns; return the number of calls, and seconds of clock and processor, of each.

    A call is warmed up; then its loop grows until it lasts a second, which tells how many calls fill the time asked
    for, two at least. These are dealt out to the turns, in reverse order every other turn. The device is waited for
    before and after a loop.
    """

    def loop(call: Callable[[], object], count: int) -> tuple[float, float]:
        wait()
        cpu_start, wall_start = cpu(), wall()
        for _ in range(count):
            call()
        wait()
        return wall() - wall_start, cpu() - cpu_start

    counts = []
    for call in calls:
        warmed, begin = 0, wall()
        while warmed < settings.warmups and wall() - begin < settings.seconds:
            loop(call, 1)
            warmed += 1
        count, spent = 1, loop(call, 1)[0]
        while spent < min(SHORTEST, settings.seconds):
            count *= 2
            spent = loop(call, count)[0]
        counts.append(dealt(max(2, math.ceil(settings.seconds / spent * count)), settings.turns))
    found = [(0, 0.0, 0.0)] * len(calls)
    for turn in range(settings.turns):
        for index in range(len(calls))[:: 1 if turn % 2 == 0 else -1]:
            count = counts[index][turn]
            elapsed, used = loop(calls[index], count) if count else (0.0, 0.0)
            number, before, before_cpu = found[index]
            found[index] = (number + count, before + elapsed, before_cpu + used)
    return found


def dealt(calls: int, turns: int) -> list[int]:
    """Return how many of the calls each turn makes, as evenly as they go."""
    return [calls // turns + (turn < calls % turns) for turn in range(turns)]


def make_rows(pieces: Sequence[Piece], times: Sequence[tuple[int, float, float]]) -> tuple[RealtimeRow, ...]:
    """Join the ways with their times; see `RealtimeRow` for the ratios."""
    means = [(count, wall / count, cpu / count) for count, wall, cpu in times]
    first: dict[tuple[str, Precision], float] = {}
    plain = {piece.model: index for index, piece in enumerate(pieces) if piece.way == PLAIN}
    rows = []
    for piece, (count, wall, cpu) in zip(pieces, means, strict=True):
        base = first.setdefault((piece.way, piece.precision), wall)
        _, plain_wall, plain_cpu = means[plain[piece.model]]
        expected = pieces[plain[piece.model]].labels
        rows.append(
            RealtimeRow(
                model=piece.model,
                way=piece.way,
                precision=piece.precision,
                calls=count,
                wall_ms=wall * 1000,
                cpu_ms=cpu * 1000,
                fps=_over(1.0, wall),
                ratio=_over(base, wall),
                gain=_over(plain_wall, wall),
                gain_cpu=_over(plain_cpu, cpu),
                same_labels=None if piece.labels is None else float(np.mean(piece.labels == expected)),
            )
        )
    return tuple(rows)


def published_miou(model: str) -> tuple[float, str] | None:
    """Return the mIoU in percent on Cityscapes val at a single scale that is published for a variant, and by whom."""
    name = model.partition(":")[0]
    found = [entry.miou for entry in published_for(name) if entry.dataset == DATASET and entry.miou is not None]
    return (found[0], SOURCE) if found else PAPERS.get(name)


def _describe(model: str, subject: Subject, settings: BenchSettings) -> RealtimeModel:
    miou, source = published_miou(model) or (None, None)
    return RealtimeModel(
        model=model,
        origin=subject.origin,
        parameters=count_parameters(subject.net),
        macs=count_flops(subject.net, network_input(subject.card, settings)) // 2,
        miou=miou,
        source=source,
    )


def _over(above: float, below: float) -> float:
    """Return above / below; 0 where the clock saw no time."""
    return above / below if below > 0 else 0.0
