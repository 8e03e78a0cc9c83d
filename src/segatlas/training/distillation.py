"""What a student minimises besides its own losses: how far its maps are from those of its teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.config.distillation import LOGITS, ChannelWise, DistillConfig, PairWise, PixelWise
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.ops.distillation import at_positions, channel_wise, pair_wise, pixel_wise, positions_within
from segatlas.structures import Inputs, Output, SemanticLogits, Surroundings
from segatlas.training.optim import TrainedToo
from segatlas.training.taken_maps import Size, covered, taken
from segatlas.training.teacher import Change, Teacher

Term = PixelWise | ChannelWise | PairWise


class Pair(NamedTuple):
    """Names of two maps that are compared: the student's and the teacher's. Logits are "logits" in both."""

    student: str
    teacher: str


@dataclass(frozen=True, kw_only=True)
class ComparedTerm:
    """A term of the recipe, and the pairs of maps whose mean difference it is."""

    term: Term
    pairs: tuple[Pair, ...]

    @property
    def label(self) -> str:
        """How its value is called in logs."""
        name = f"distill.{self.term.name}"
        return name if self.term.on == LOGITS else f"{name}.{self.term.on}"


class Adapter(nn.Sequential):
    """Brings a map of the student to the teacher's number of channels: a 1x1 convolution, batch norm, ReLU."""

    def __init__(self, student: int, teacher: int):
        super().__init__(nn.Conv2d(student, teacher, 1, bias=False), BatchNorm2d(teacher), nn.ReLU(inplace=True))
        init_weights(self)


class Distillation(nn.Module):
    """The criterion of a student: its own losses, and the terms of `distill:` with their weights.

    Its adapters are trained and kept in checkpoints with the student, and are not part of the model; the teacher is
    asked once a batch and is no part of it at all.

    Args:
        own: the criterion of the recipe's losses.
        terms: what is compared.
        teacher: the network to learn from.
        change: what brings images to the teacher's normalisation, made from the student's.
        channels: of the pairs of maps that need an adapter: channels of the student's and of the teacher's.
        precision: that the teacher runs in, "fp32" or "bf16".
    """

    def __init__(
        self,
        own: nn.Module,
        *,
        terms: Sequence[ComparedTerm],
        teacher: Teacher,
        change: Change,
        channels: Mapping[Pair, tuple[int, int]],
        precision: str,
    ):
        super().__init__()
        self.own, self.terms, self.teacher, self.change, self.precision = own, tuple(terms), teacher, change, precision
        self.adapted = tuple(channels)
        self.adapters = nn.ModuleList(Adapter(*channels[pair]) for pair in self.adapted)
        self._given: tuple[SemanticLogits, dict[str, Tensor], dict[str, Tensor]] | None = None

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the student's maps that are taken while it runs."""
        pairs = (pair for one in self.terms for pair in one.pairs)
        return tuple(dict.fromkeys(pair.student for pair in pairs if pair.student != LOGITS))

    @contextmanager
    def watching(self, net: nn.Module, inputs: Inputs, labels: Tensor) -> Iterator[None]:
        """Ask the teacher for these inputs, and take the student's maps while it runs inside."""
        answer = self.teacher.run(self.change.apply(inputs.image, labels), self.precision)
        with taken(net, self.maps) as maps:
            yield
        self._given = (*answer, maps)

    @property
    def reads_around(self) -> bool:
        """Tell whether one of the student's own losses takes what stands around the output."""
        return bool(getattr(self.own, "reads_around", False))

    def forward(
        self, output: Output, targets: Tensor, around: Surroundings | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total, and the value of each part of a loss and of each term by name, before its weight.

        Args:
            output: of the student, which ran inside `watching`.
            targets: labels, as the student's own losses take them.
            around: what these read besides, where `reads_around`.
        """
        assert self._given is not None, "the student ran outside `watching`"
        assert isinstance(output, SemanticLogits)
        theirs, their_maps, maps = self._given
        self._given = None
        total, values = self.own(output, targets, *(() if around is None else (around,)))
        maps, their_maps = {**maps, LOGITS: output.logits}, {**their_maps, LOGITS: theirs.logits}
        for one in self.terms:
            differences = [
                _difference(
                    one.term,
                    self._adapted(one.term, pair, maps[pair.student].float()),
                    their_maps[pair.teacher],
                    covered(pair.student, maps[pair.student], output.canvas),
                    covered(pair.teacher, their_maps[pair.teacher], theirs.canvas),
                )
                for pair in one.pairs
            ]
            value = torch.stack(differences).mean()
            total = total + one.term.weight * value
            values[one.label] = value.detach()
        return total, values

    def _adapted(self, term: Term, pair: Pair, maps: Tensor) -> Tensor:
        if pair not in self.adapted or not isinstance(term, ChannelWise):
            return maps
        adapted: Tensor = self.adapters[self.adapted.index(pair)](maps)
        return adapted


def _difference(term: Term, student: Tensor, teacher: Tensor, canvas: Size, of_canvas: Size) -> Tensor:
    """Return how far a map of the student is from one of the teacher, at the teacher's positions."""
    size = (teacher.shape[-2], teacher.shape[-1])
    if canvas != of_canvas:
        rows, columns = positions_within(canvas, size, of_canvas)
        teacher = teacher[..., :rows, :columns]
    student = at_positions(student, canvas, size, of_canvas)
    if isinstance(term, PixelWise):
        return pixel_wise(student, teacher, term.temperature)
    if isinstance(term, ChannelWise):
        return channel_wise(student, teacher, term.temperature)
    return pair_wise(student, teacher, term.pooling)


def watched(criterion: nn.Module, net: nn.Module, inputs: Inputs, targets: object) -> AbstractContextManager[None]:
    """Return what a network runs inside before its criterion is asked: nothing, unless there is a teacher."""
    if not isinstance(criterion, Distillation):
        return nullcontext()
    assert isinstance(targets, Tensor)
    return criterion.watching(net, inputs, targets)


def trained_too(criterion: nn.Module, given: DistillConfig | None) -> TrainedToo | None:
    """Return what is trained beside the network: the adapters of a student, None where there is no teacher."""
    if given is None or not isinstance(criterion, Distillation):
        return None
    return TrainedToo(criterion.adapters, given.adapter_lr_factor)


def normalised_anew(criterion: nn.Module, kept: Preprocessing) -> None:
    """Let a teacher know that the student's images are normalised so."""
    if isinstance(criterion, Distillation):
        criterion.change = replace(criterion.change, student=kept)
