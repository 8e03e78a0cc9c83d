"""The criterion whose losses know nothing of each other: their weighted sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.errors import UsageError
from segatlas.losses import Loss
from segatlas.structures import Output, Surroundings, WithSurroundings


class Criterion(nn.Module):
    """Sum of `term.weight * loss` over the terms of a recipe.

    Args:
        terms: at least one line of `losses:`.
        automatic_weights: (K,) class weights by the word that terms ask for them with: `class_weights: auto`.

    Raises:
        UsageError: there is no term, or a term asks for automatic class weights and none are given.
    """

    def __init__(self, terms: Sequence[Loss], automatic_weights: Mapping[str, Tensor] | None = None):
        super().__init__()
        if not terms:
            raise UsageError("expected at least one loss, for example cross_entropy")
        self.terms = tuple(terms)
        for index, term in enumerate(self.terms):  # buffers move along; a checkpoint holds only the network
            self.register_buffer(_buffer(index), _class_weights(term, automatic_weights), persistent=False)

    @property
    def reads_around(self) -> bool:
        """Whether a term reads more than output and truth, see `Surroundings`."""
        return any(term.reads_around for term in self.terms)

    def forward(
        self, output: Output, targets: Any, around: Surroundings | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total, a scalar, and the value of each part of a term by name: detached, before its factors.

        A term without parts is its own part. The head comes in front unless a term is on the output itself
        ("aux.fcn.cross_entropy"); a second part of the same name ends in "_2", and so on.

        Args:
            output: of a network in training mode.
            targets: what the losses take, for semantic networks labels (N, H, W) uint8 or int64, 0..K-1 or 255; the top
                left part of `output.canvas`.
            around: what terms read besides, where `reads_around`.

        Raises:
            UsageError: a term is on an auxiliary head that the network does not have or that gives what the loss does
                not take, or shapes do not fit together; a term reads what stands around, and it was not given.
        """
        totals: list[Tensor] = []
        names: list[str] = []
        values: list[Tensor] = []
        for index, term in enumerate(self.terms):
            parts = term.parts(
                _with_surroundings(term, output, around),
                targets,
                canvas=output.canvas,
                align_corners=output.resample.align_corners if term.align_corners is None else term.align_corners,
                class_weights=getattr(self, _buffer(index)),
            )
            totals.append(term.weight * term.total(parts))
            names += [name if term.on == "logits" else f"{term.on}.{name}" for name in parts]
            values += [value.detach() for value in parts.values()]
        return torch.stack(totals).sum(), dict(zip(_numbered(names), values, strict=True))


def build(terms: Sequence[Loss], automatic_weights: Mapping[str, Tensor] | None = None) -> Criterion:
    """Return the criterion of a recipe's `losses`."""
    return Criterion(terms, automatic_weights)


def _with_surroundings(term: Loss, output: Output, around: Surroundings | None) -> Any:
    given = term.given(output)
    if not term.reads_around:
        return given
    if around is None:
        raise UsageError(f"loss {term.name} reads the image and more: give the criterion `around`, see Surroundings")
    return WithSurroundings(given, around)


def _buffer(index: int) -> str:
    return f"class_weights_{index}"


def _class_weights(term: Loss, automatic_weights: Mapping[str, Tensor] | None) -> Tensor | None:
    asked = term.class_weights
    if not isinstance(asked, str):
        return None if asked is None else torch.tensor(asked)
    if automatic_weights is None or asked not in automatic_weights:
        raise UsageError(f"loss {term.name}: class_weights is '{asked}', but no such weights were given")
    return automatic_weights[asked]


def _numbered(names: Sequence[str]) -> Iterator[str]:
    for index, name in enumerate(names):
        earlier = names[:index].count(name)
        yield f"{name}_{earlier + 1}" if earlier else name
