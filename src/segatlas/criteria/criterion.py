"""The weighted sum of a recipe's loss lines, looked up by what the network gives and the task asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.config.losses import LossTerm
from segatlas.errors import UsageError
from segatlas.losses import build_loss
from segatlas.ops import raise_logits
from segatlas.structures import SemanticLogits

Target = tuple[Tensor, tuple[int, int], bool]
"""(logits (N, K, h, w), canvas, align_corners): what a loss compares with the labels."""


def semantic_target(output: SemanticLogits, on: str) -> Target | None:
    """Return what a loss line points at (`logits` or `aux.NAME`), None where the network has no such head."""
    logits = output.logits if on == "logits" else output.aux.get(on.removeprefix("aux."))
    if logits is None:
        return None
    if output.resample.mode != "bilinear":  # losses raise bilinearly: anything else is done before them
        logits = raise_logits(logits, output.canvas, mode=output.resample.mode)
    return logits, output.canvas, output.resample.align_corners


TARGETS: dict[tuple[type, str], Callable[[Any, str], Target | None]] = {
    (SemanticLogits, "semantic"): semantic_target,
}
"""(output type, task) -> how a loss line finds its logits."""


class Criterion(nn.Module):
    """Sum of weighted losses.

    In training mode every line must find its target. In eval mode networks give no auxiliary logits: lines on missing
    ones are left out of the sum.

    Args:
        terms: the recipe's loss lines.
        class_weights: (K,) what `class_weights: auto` stands for.
        task: "semantic".

    Raises:
        UsageError: no terms, an unknown task, or 'auto' without class_weights.
    """

    def __init__(
        self,
        terms: Sequence[LossTerm],
        class_weights: Tensor | Sequence[float] | None = None,
        task: str = "semantic",
    ):
        super().__init__()
        if not terms:
            raise UsageError("a criterion needs at least one loss")
        if task not in {known for _, known in TARGETS}:
            raise UsageError(f"no losses for task {task!r}; known: {', '.join(sorted({t for _, t in TARGETS}))}")
        if class_weights is not None:
            class_weights = torch.as_tensor(class_weights, dtype=torch.float32)
        self.task = task
        self.terms = tuple(terms)
        self.names = _names(self.terms)
        self.losses = nn.ModuleList(build_loss(term, class_weights) for term in self.terms)

    def forward(self, output: SemanticLogits, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare an output with labels (N, H, W).

        Returns:
            (total, parts): the weighted sum, and the value of each loss before its weight, detached, by name:
            `cross_entropy`, `aux.fcn.cross_entropy`; a second line of the same kind is `cross_entropy.2`.

        Raises:
            UsageError: the output has another type than the task's, or a line names a head that the network does not
            have.
        """
        find = TARGETS.get((type(output), self.task))
        if find is None:
            raise UsageError(f"no loss for a network that gives {type(output).__name__} and task {self.task}")
        total: Tensor | None = None
        parts: dict[str, Tensor] = {}
        for name, term, loss in zip(self.names, self.terms, self.losses, strict=True):
            target = find(output, term.on)
            if target is None:
                if self.training:
                    raise _missing(name, term.on, output)
                continue
            logits, canvas, align_corners = target
            value = loss(logits, labels, canvas, align_corners)
            parts[name] = value.detach()
            total = term.weight * value if total is None else total + term.weight * value
        if total is None:
            raise UsageError("none of the losses has a target in eval mode; add one on 'logits'")
        return total, parts


def _names(terms: tuple[LossTerm, ...]) -> list[str]:
    names: list[str] = []
    for term in terms:
        base = term.name if term.on == "logits" else f"{term.on}.{term.name}"
        count = 1 + sum(name == base or name.startswith(f"{base}.") for name in names)
        names.append(base if count == 1 else f"{base}.{count}")
    return names


def _missing(name: str, on: str, output: SemanticLogits) -> UsageError:
    heads = [f"aux.{head}" for head in output.aux]
    near = get_close_matches(on, heads, 1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    known = f"it has: {', '.join(['logits', *heads])}" if heads else "it has no auxiliary heads, only 'logits'"
    return UsageError(f"loss {name}: the network has no {on!r}; {known}{hint}")
