"""Losses at full size from low-resolution logits, forward and backward, against the eager forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.material import STRIDE, label_like_logits, spread_labels, street_labels
from benchmarks.rows import Call, Equality, Peer, Row, Target
from segatlas.labels import IGNORE

THRESHOLD, MIN_KEPT = 0.7, 100_000
LOSS_CLOSE, GRADIENT_CLOSE = 1e-6, 1e-5


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """logits: (N, K, h, w), a leaf that takes a gradient. labels: (N, H, W) int64, 0..K-1 or 255."""

    logits: Tensor
    labels: Tensor


LossOf = Callable[[Supervised], Tensor]


def make_batch(
    batch: int, classes: int, height: int, width: int, small: bool, *, full_size: bool = False
) -> Supervised:
    if small:
        height, width = 32, 32
    street = street_labels()
    parts = [street[256 : 256 + height, left : left + width] for left in range(0, batch * width, width)]
    chosen = [np.ascontiguousarray(part if classes == 19 else spread_labels(part, classes)) for part in parts]
    logits = torch.cat([label_like_logits(part, classes) for part in chosen])
    if full_size:
        logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
    return Supervised(
        logits=logits.requires_grad_(), labels=torch.stack([torch.from_numpy(part).long() for part in chosen])
    )


def both_ways(given: Supervised, loss_of: LossOf) -> tuple[Tensor, Tensor]:
    """Return loss and gradient."""
    loss = loss_of(given)
    (gradient,) = torch.autograd.grad(loss, given.logits)
    return loss.detach(), gradient


def upsampled(given: Supervised) -> Tensor:
    return F.interpolate(given.logits, given.labels.shape[-2:], mode="bilinear", align_corners=False)


def eager_cross_entropy(given: Supervised) -> Tensor:
    return F.cross_entropy(upsampled(given), given.labels, ignore_index=IGNORE)


def eager_ohem(given: Supervised) -> Tensor:
    """Keep the labelled pixels whose class is improbable, and at least the hardest MIN_KEPT; mean over them."""
    logits = upsampled(given)
    with torch.no_grad():
        labelled = given.labels != IGNORE
        index = given.labels.masked_fill(~labelled, 0)[:, None]
        probability = logits.softmax(1).gather(1, index)[:, 0]
        ordered = probability[labelled].sort().values
        limit = ordered[min(MIN_KEPT, len(ordered)) - 1]
        kept = labelled & ((probability < THRESHOLD) | (probability <= limit))
    losses = F.cross_entropy(logits, given.labels, ignore_index=IGNORE, reduction="none")
    return (losses * kept).sum() / kept.sum()


def eager_dice(given: Supervised) -> Tensor:
    """One minus the mean Dice coefficient (plus one pixel) of the classes that are there."""
    classes = given.logits.shape[1]
    labelled = given.labels != IGNORE
    truth = F.one_hot(given.labels.masked_fill(~labelled, 0), classes).permute(0, 3, 1, 2) * labelled[:, None]
    probability = upsampled(given).softmax(1) * labelled[:, None]
    shared, predicted, there = ((x).sum((0, 2, 3)) for x in (probability * truth, probability, truth))
    dice = (2 * shared + 1) / (predicted + there + 1)
    return 1 - dice[there > 0].mean()


def our_cross_entropy(given: Supervised) -> Tensor:
    from segatlas.ops import upsampled_cross_entropy

    return upsampled_cross_entropy(given.logits, given.labels)


def our_ohem(given: Supervised) -> Tensor:
    from segatlas.ops import upsampled_ohem

    return upsampled_ohem(given.logits, given.labels, threshold=THRESHOLD, min_kept=MIN_KEPT)


def our_dice(given: Supervised) -> Tensor:
    from segatlas.losses.dice import Dice

    loss: Tensor = Dice()(given.logits, given.labels)
    return loss


def call_of(loss_of: LossOf, given: Supervised) -> Call:
    return lambda: both_ways(given, loss_of)


def same_loss(given: Supervised, own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Equality:
    loss = float((own[0] - other[0]).abs() / other[0].abs())
    gradient = float((own[1] - other[1]).abs().max() / other[1].abs().max())
    return Equality(
        holds=loss <= LOSS_CLOSE and gradient <= GRADIENT_CLOSE, text=f"loss {loss:.0e}, gradient {gradient:.0e}"
    )


LOSSES: dict[str, tuple[str, LossOf, LossOf]] = {
    "cross_entropy": ("cross-entropy", our_cross_entropy, eager_cross_entropy),
    "ohem": ("OHEM", our_ohem, eager_ohem),
    "dice": ("Dice", our_dice, eager_dice),
}
SIZES = ((2, 19, 512, 1024, 2.0), (1, 150, 512, 512, 1.8))
"""(batch, classes, height, width, times as quick)."""


def make_row(name: str, batch: int, classes: int, height: int, width: int, time: float) -> Row:
    title, own, eager = LOSSES[name]
    return Row(
        key=f"{name}_c{classes}",
        group="loss",
        part=f"{title} at full size, forward and backward, {classes} classes",
        inputs=f"{batch} x {classes} x {height // STRIDE} x {width // STRIDE} to {height} x {width}, label-like",
        material=partial(make_batch, batch, classes, height, width),
        ours=partial(call_of, own),
        peers={"eager": Peer(make=partial(call_of, eager), target=Target(time=time, memory=1 / 20))},
        equal=same_loss,
        threads=(1, 2) if name == "cross_entropy" else (2,),
    )


def make_edge_row(classes: int, full_size: bool) -> Row:
    """Return a row of cross-entropy where there is little to gain: two classes, or nothing to upsample."""
    batch, height, width = 2, 512, 1024
    stride = 1 if full_size else STRIDE
    return Row(
        key="cross_entropy_full_size" if full_size else f"cross_entropy_c{classes}",
        group="loss",
        part=f"cross-entropy of {'logits at full size' if full_size else 'two classes'}, forward and backward",
        inputs=f"{batch} x {classes} x {height // stride} x {width // stride} to {height} x {width}, label-like",
        material=partial(make_batch, batch, classes, height, width, full_size=full_size),
        ours=partial(call_of, our_cross_entropy),
        peers={"eager": Peer(make=partial(call_of, eager_cross_entropy), target=Target(time=1, memory=1 / 2))},
        equal=same_loss,
        calls=2,
    )


ROWS = (
    *(make_row(name, *size) for name in LOSSES for size in SIZES),
    make_edge_row(2, full_size=False),
    make_edge_row(19, full_size=True),
)
