"""Tensors that one library keeps in one and the other in several, one below the other along the first dimension.

The queries, keys and values of attention are the usual case: one matrix here, three there, or one and a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segatlas.conversion.importers.renames import rename


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The same rows on both sides, cut differently: beginnings of names (as in `Renames`) -> ratio of the rows.

    `Stack(theirs={"attn.in_proj_weight": 1}, ours={"attn.q.weight": 1, "attn.kv.weight": 2})` reads their matrix as
    ours of one third and ours of two thirds of its rows.
    """

    theirs: Mapping[str, int]
    ours: Mapping[str, int]


def attention_stacks(places: Mapping[str, str]) -> list[Stack]:
    """Return how queries, keys and values of torch's attention, which lie in one matrix, lie in ours, which has three.

    places: beginning of the names of an attention's tensors there -> here.
    """
    return [
        Stack(theirs={f"{theirs}.in_proj_{kind}": 1}, ours={f"{ours}.{part}.{kind}": 1 for part in "qkv"})
        for theirs, ours in places.items()
        for kind in ("weight", "bias")
    ]


def stack_to_ours(
    tensors: Mapping[str, Tensor], stacks: Sequence[Stack]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of `stacks` cut as ours, under our names; and all others as they are."""
    return _restack(tensors, [(stack.theirs, stack.ours) for stack in stacks])


def stack_to_theirs(
    tensors: Mapping[str, Tensor], stacks: Sequence[Stack]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of `stacks` cut as theirs, under their names; and all others as they are."""
    return _restack(tensors, [(stack.ours, stack.theirs) for stack in stacks])


def _restack(
    tensors: Mapping[str, Tensor], stacks: Sequence[tuple[Mapping[str, int], Mapping[str, int]]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    stacked: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    done: set[str] = set()
    for name, tensor in tensors.items():
        if name in done:
            continue
        sources, targets = _names(name, stacks)
        rows = [tensors[source] for source in sources if source in tensors]
        whole = rows[0] if len(rows) == 1 else torch.cat(rows) if rows else tensor
        if not sources or len(rows) < len(sources) or len(whole) % sum(targets.values()):
            others[name] = tensor  # no part of a stack, or of a damaged one: whoever compares names and shapes tells
            continue
        done.update(sources)
        unit = len(whole) // sum(targets.values())
        stacked.update(zip(targets, whole.split([ratio * unit for ratio in targets.values()]), strict=True))
    return stacked, others


def _names(
    name: str, stacks: Sequence[tuple[Mapping[str, int], Mapping[str, int]]]
) -> tuple[list[str], dict[str, int]]:
    """Return the names that are stacked with `name`, and those that they become; nothing where there is no stack."""
    for before, after in stacks:
        for beginning in before:
            sources = [rename(name, [(beginning, other)]) for other in before]
            if sources[0] is not None:
                targets = {rename(name, [(beginning, other)]): ratio for other, ratio in after.items()}
                return [str(source) for source in sources], {str(target): ratio for target, ratio in targets.items()}
    return [], {}
