"""The criterion of semantic networks: a weighted sum of losses on the logits and on auxiliary heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segatlas.config.losses import AnyLossConfig, PointCrossEntropyConfig
from segatlas.errors import UsageError
from segatlas.losses import build_loss
from segatlas.structures import PointLogits, SemanticLogits


class Criterion(nn.Module):
    """Sum of `term.weight * loss` over the terms of a recipe.

    Args:
        terms: at least one line of `losses:`.
        automatic_weights: (K,) class weights for terms with `class_weights: auto`.

    Raises:
        UsageError: there is no term, or a term asks for automatic class weights and none are given.
    """

    def __init__(self, terms: Sequence[AnyLossConfig], automatic_weights: Tensor | None = None):
        super().__init__()
        if not terms:
            raise UsageError("expected at least one loss, for example cross_entropy")
        self.terms = tuple(terms)
        self.names = _unique_names(self.terms)
        self.losses = nn.ModuleList(build_loss(term, _class_weights(term, automatic_weights)) for term in self.terms)

    def forward(self, output: SemanticLogits, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total, a scalar, and the value of each term by name: detached, before its factor `weight`.

        Names are those of the terms, with the target in front unless that is the logits ("aux.fcn.cross_entropy"); a
        second term of the same name and target ends in "_2", and so on.

        Args:
            output: of a network in training mode.
            labels: (N, H, W) uint8 or int64, 0..K-1 or 255; the top left part of `output.canvas`.

        Raises:
            UsageError: a term is on an auxiliary head that the network does not have, or shapes do not fit together.
        """
        values = [
            loss(_target(output, term), labels, canvas=output.canvas, align_corners=output.resample.align_corners)
            for term, loss in zip(self.terms, self.losses, strict=True)
        ]
        weighted = [term.weight * value for term, value in zip(self.terms, values, strict=True)]
        named = {name: value.detach() for name, value in zip(self.names, values, strict=True)}
        return torch.stack(weighted).sum(), named


def build(terms: Sequence[AnyLossConfig], automatic_weights: Tensor | None = None) -> Criterion:
    """Return the criterion of a recipe's `losses`."""
    return Criterion(terms, automatic_weights)


def _class_weights(term: AnyLossConfig, automatic_weights: Tensor | None) -> Tensor | None:
    if term.class_weights == "auto":
        if automatic_weights is None:
            raise UsageError(f"loss {term.name}: class_weights is 'auto', but no automatic weights were given")
        return automatic_weights
    return None if term.class_weights is None else torch.tensor(term.class_weights)


def _target(output: SemanticLogits, term: AnyLossConfig) -> Tensor | PointLogits:
    target = output.logits if term.on == "logits" else _auxiliary(output, term.on)
    if isinstance(target, PointLogits) != isinstance(term, PointCrossEntropyConfig):
        what = "logits at points" if isinstance(target, PointLogits) else "a map of logits"
        raise UsageError(f"loss {term.name} is on {term.on!r}, which is {what}; point_cross_entropy is for points only")
    return target


def _auxiliary(output: SemanticLogits, on: str) -> Tensor | PointLogits:
    name = on.removeprefix("aux.")
    if name not in output.aux:
        has = ", ".join(f"aux.{known}" for known in output.aux)
        advice = f"it has: {has}" if has else "it has none in this mode (set model.aux=true, and train)"
        raise UsageError(f"a loss is on {on!r}, but the network has no such auxiliary head; {advice}")
    return output.aux[name]


def _unique_names(terms: Sequence[AnyLossConfig]) -> tuple[str, ...]:
    plain = [term.name if term.on == "logits" else f"{term.on}.{term.name}" for term in terms]
    earlier = [plain[:index].count(name) for index, name in enumerate(plain)]
    return tuple(f"{name}_{count + 1}" if count else name for name, count in zip(plain, earlier, strict=True))
