"""What sources besides the image are to a network: concatenated channels, and which samples have any.

Letters: N batch, C channels of the image, S of all sources together, K classes of masks, H W image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.labels import IGNORE
from segatlas.ops.capture import is_captured
from segatlas.structures import Inputs, InputSpec, image_of


class Gathered(NamedTuple):
    """Sources, concatenated.

    values: (N, S, H, W), in the image's type: of a mask a channel a class, 1 where it is; 0 where a source is missing.
    present: (N,) bool, which samples have any source.
    """

    values: Tensor
    present: Tensor


def gather(inputs: Tensor | Inputs, specs: Sequence[InputSpec], classes: int, dropped: float = 0.0) -> Gathered | None:
    """Return the sources that a network takes of its inputs; None where it takes none.

    A source is missing where its flag says so, where it was not given at all, or where a mask has no label; whatever
    stands there, NaN too, reaches nothing.

    Args:
        inputs: an image, or an image with sources.
        specs: those that the network takes; others are left out.
        classes: of masks, K: codes 0..K-1 and 255, nothing.
        dropped: fraction of samples that lose all of their sources, drawn by torch's generator.

    Raises:
        UsageError: a source has another size than the image, other channels, NaN or infinite values where it is
            present, codes of no class, or flags for another number of samples. (Not while a graph is captured.)
    """
    image = image_of(inputs)
    given = inputs if isinstance(inputs, Inputs) else Inputs(image)
    if not specs:
        return None
    kept = torch.ones(image.shape[0], dtype=torch.bool, device=image.device)
    if dropped > 0:
        kept = torch.rand(image.shape[0], device=image.device) >= dropped
    values, present = [], torch.zeros_like(kept)
    for spec in specs:
        channels = classes if spec.kind == "label" else spec.channels
        source = given.sources.get(spec.name)
        if source is None:
            values.append(image.new_zeros(image.shape[0], channels, *image.shape[-2:]))
            continue
        flags = given.present.get(spec.name)
        if flags is not None and not is_captured() and flags.shape != kept.shape:
            raise UsageError(
                f"source {spec.name!r}: present has shape {tuple(flags.shape)}, expected {tuple(kept.shape)}, a flag "
                "for each sample"
            )
        there = kept if flags is None else kept & flags.to(image.device)
        _check(source, spec, classes, image, there)
        if spec.kind == "label":
            there = there & (source != IGNORE).flatten(1).any(dim=1)
            numbers = torch.arange(classes, device=image.device)[:, None, None]
            source = source.long().unsqueeze(1) == numbers
        values.append(torch.where(there[:, None, None, None], source.to(image.dtype), image.new_zeros(())))
        present = present | there
    return Gathered(torch.cat(values, dim=1), present)


def _check(source: Tensor, spec: InputSpec, classes: int, image: Tensor, there: Tensor) -> None:
    """Raise UsageError where a source is not what the network takes."""
    if is_captured() or source.is_meta or type(source) is not Tensor:
        return
    size = (image.shape[0], *image.shape[-2:])
    expected = size if spec.kind == "label" else (size[0], spec.channels, *size[1:])
    if tuple(source.shape) != expected:
        raise UsageError(
            f"source {spec.name!r} ({spec.kind}) has shape {tuple(source.shape)}, expected {expected}: "
            f"the image has {tuple(image.shape)}"
        )
    seen = source[there]
    if spec.kind == "label":
        if seen.is_floating_point() and not (seen == seen.round()).all():
            raise UsageError(f"source {spec.name!r} is of {seen.dtype} with fractions; codes are whole numbers")
        strange = seen[((seen >= classes) | (seen < 0)) & (seen != IGNORE)]
        if strange.numel():
            raise UsageError(
                f"source {spec.name!r} has code {int(strange[0])}, expected 0..{classes - 1}, or {IGNORE} where "
                "nothing is known: set source_classes to the classes that it has"
            )
    elif not seen.isfinite().all():
        raise UsageError(f"source {spec.name!r} has NaN or infinite values in a sample that has it")
