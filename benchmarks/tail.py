"""Low-resolution logits to class map: `ops.class_map` against interpolation and argmax."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.foreign import transformers
from benchmarks.material import HEIGHT, STRIDE, WIDTH, label_like_logits, noise_logits, spread_labels, street_labels
from benchmarks.rows import Call, Equality, Peer, Row, Target

MOST_DIFFERENT = 1e-6
"""Fraction of pixels that may differ, and then only by ties."""
TIE = 1e-5
"""Two logits closer than this, relative to the largest, are a tie within rounding."""


@dataclass(frozen=True, kw_only=True)
class Logits:
    """logits: (1, K, h, w). size: (H, W) of the class map."""

    logits: Tensor
    size: tuple[int, int]


def make_logits(classes: int, noise: bool, small: bool) -> Logits:
    height, width = (64, 64) if small else (HEIGHT, WIDTH)
    if noise:
        logits = noise_logits(classes, height, width)
    else:
        labels = street_labels()[:height, :width]
        logits = label_like_logits(labels if classes == 19 else spread_labels(labels, classes), classes)
    return Logits(logits=logits, size=(height, width))


def ours(given: Logits) -> Call:
    from segatlas.ops import class_map

    return lambda: class_map(given.logits, given.size)


def upsampled(given: Logits) -> Tensor:
    return F.interpolate(given.logits, given.size, mode="bilinear", align_corners=False)


def plain(given: Logits) -> Call:
    return torch.inference_mode()(lambda: upsampled(given).argmax(1))


def hugging_face(given: Logits) -> Call:
    processor = transformers().SegformerImageProcessor()
    output = SimpleNamespace(logits=given.logits)
    return torch.inference_mode()(
        lambda: processor.post_process_semantic_segmentation(output, target_sizes=[given.size])[0][None]
    )


def same_but_ties(given: Logits, own: Tensor, other: Tensor) -> Equality:
    differs = own.long() != other.long()
    count, total = int(differs.sum()), differs.numel()
    text = f"{count} of {total} pixels differ"
    if count == 0:
        return Equality(holds=True, text=text)
    batch, row, column = differs.nonzero(as_tuple=True)
    values = upsampled(given)[batch, :, row, column]
    chosen = values.gather(1, own[differs].long()[:, None])[:, 0]
    gap = float(((values.amax(1) - chosen) / values.abs().amax(1)).max())
    holds = count <= MOST_DIFFERENT * total and gap <= TIE
    return Equality(holds=holds, text=f"{text}, their logits by at most {gap:.0e}")


def side_by_side(classes: int, times: float, small: bool) -> Logits:
    """Return channels-last logits, as our own fast form gives them, and a map `times` as high and wide."""
    given = make_logits(classes, False, small)
    height, width = given.logits.shape[2:]
    logits = given.logits.contiguous(memory_format=torch.channels_last)
    return Logits(logits=logits, size=(round(height * times), round(width * times)))


def make_row(classes: int, *, noise: bool, time: float) -> Row:
    target = Target(time=time, memory=None if noise else 1 / 50)
    kind = "noise" if noise else "label-like"
    return Row(
        key=f"class_map_c{classes}" + ("_noise" if noise else ""),
        group="tail",
        part=f"class map from logits, {classes} classes",
        inputs=f"1 x {classes} x {HEIGHT // STRIDE} x {WIDTH // STRIDE} to {HEIGHT} x {WIDTH}, {kind}",
        material=partial(make_logits, classes, noise),
        ours=ours,
        peers={
            "interpolate + argmax": Peer(make=plain, target=target),
            "transformers post_process": Peer(make=hugging_face, target=target),
        },
        equal=same_but_ties,
        threads=(1,) if noise else (1, 2),
        memory=not noise,
    )


def make_side_by_side_row(classes: int, times: float, *, time: float) -> Row:
    height, width = HEIGHT // STRIDE, WIDTH // STRIDE
    larger = times > 1
    return Row(
        key=f"class_map_c{classes}_channels_last" + ("" if larger else "_smaller"),
        group="tail",
        part=f"class map from channels-last logits, {classes} class{'es' if classes > 1 else ''}",
        inputs=f"1 x {classes} x {height} x {width} to {round(height * times)} x {round(width * times)}, label-like",
        material=partial(side_by_side, classes, times),
        ours=ours,
        peers={"interpolate + argmax": Peer(make=plain, target=Target(time=time, memory=1 / 50 if larger else None))},
        equal=same_but_ties,
        calls=1 if larger and classes > 1 else 10,
        memory=larger,
    )


ROWS = (
    make_row(19, noise=False, time=15),
    make_row(150, noise=False, time=20),
    make_row(19, noise=True, time=3),
    make_row(150, noise=True, time=3),
    make_side_by_side_row(19, STRIDE, time=12),
    make_side_by_side_row(150, STRIDE, time=15),
    make_side_by_side_row(1, STRIDE, time=1),
    make_side_by_side_row(19, 1 / 2, time=1),
    make_side_by_side_row(150, 1 / 2, time=1),
)
