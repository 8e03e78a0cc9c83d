"""From a network to one with fewer channels, each step of the way proved."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segatlas.bench.subjects import count_parameters
from segatlas.build.surgery import layer_sizes, resize, surgery_of
from segatlas.errors import SegAtlasError, UsageError
from segatlas.models.reading import load_architecture
from segatlas.pruning.groups import UNKNOWN, Graph, in_float64
from segatlas.pruning.proof import LEAST_EFFECT, MOST_DIFFERENCE, blinded, difference, maps, redrawn
from segatlas.pruning.search import (
    Costs,
    Removal,
    kept_of,
    plan_for_macs,
    plan_for_ratio,
    refuse_emptied,
    smaller_sizes,
)
from segatlas.pruning.settings import PruneSettings
from segatlas.structures import Inputs, InputSpec, changed, noise_inputs

FOLLOWED_SIZE = (64, 96)
"""Of the image that a network is followed on: maps at stride 64 still have a cell, and no map is square."""

Gradients = Callable[[nn.Module], None]
"""Gives each parameter of a network the gradient of its loss on real images."""


@dataclass(frozen=True, kw_only=True)
class PruneReport:
    """What was pruned.

    size: of the image that multiply-accumulates are counted for. macs, parameters: before and after. groups: how many
    groups of channels lost some. kept: root of a group that stayed whole -> why. layers: how many layers are narrower
    than their network's config says, earlier prunings included. difference: of the last round, between the network
    that no longer reads the removed channels and the one without them, relative, in float64.
    """

    size: tuple[int, int]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    groups: int
    kept: Mapping[str, str]
    layers: int
    difference: float


class Prunable:
    """A network, the groups of its channels that can lose some, and those that cannot, with the reason.

    Args:
        net: a network of `create_model` or `load_pretrained`, pruned before or not. It stays as it is.
        size: (height, width) of the image that multiply-accumulates are counted for.

    Raises:
        UsageError: nothing of it can be pruned.
        MissingExtraError: torch-pruning is not installed.
    """

    def __init__(self, net: nn.Module, size: tuple[int, int]):
        self.net, specs = net, load_architecture(str(net.architecture)).inputs(net.config)
        self._inputs = followed_inputs(specs)
        unsound = unsound_groups(net, self._inputs)
        self.graph = Graph(net, self._inputs, whole=tuple(unsound))
        self.kept: dict[str, str] = {**self.graph.kept, **dict.fromkeys(unsound, UNKNOWN)}
        if not self.graph.groups:
            reasons = ", ".join(sorted(set(self.kept.values()))[:6]) or "no layer that has any"
            raise UsageError(f"a {net.architecture} cannot be pruned: all of its channels go through {reasons}")
        self.costs = Costs(net, noise_inputs(specs, size, device="meta").given())

    def least(self, round_to: int) -> float:
        """Return the fraction of the multiply-accumulates that is left where each layer keeps as little as it can."""
        groups = self.graph.groups
        removed = {group.root: range(group.size - kept_of(group, 1.0, round_to)) for group in groups}
        return self.costs.of(self.costs.table(groups, removed)) / self.costs.whole

    def prune(self, plan: Removal) -> tuple[nn.Module, float]:
        """Remove what a plan says, once; return the network in its own precision, and the difference that is left.

        Raises:
            SegAtlasError: the smaller network gives other numbers than the whole one that does not read these channels.
        """
        graph, groups = self.graph, self.graph.groups
        expected = maps(blinded(graph.net, groups, plan.removed), self._inputs)
        table = smaller_sizes(layer_sizes(self.net), groups, plan.removed)
        for group in groups:
            graph.remove(group, plan.removed[group.root])
        gap = difference(expected, maps(graph.net, self._inputs))
        if gap > MOST_DIFFERENCE:
            raise SegAtlasError(
                f"a {self.net.architecture} cannot be pruned so: it gives other numbers than the network that does not "
                f"read these channels, by {gap:.1e} of the largest; nothing is written"
            )
        smaller = copy.deepcopy(self.net).eval()
        smaller.zero_grad()
        resize(smaller, table, where="the pruned network")
        own = smaller.state_dict()
        smaller.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in graph.net.state_dict().items()})
        return smaller, gap


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A network before the first round: its multiply-accumulates, and the choices of each group by its root."""

    macs: int
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, found: Prunable) -> Whole:
        """Return what it is before anything is removed."""
        return cls(macs=found.costs.whole, sizes={group.root: group.size for group in found.graph.groups})


def prune_network(
    net: nn.Module, settings: PruneSettings, gradients: Gradients | None = None
) -> tuple[nn.Module, PruneReport]:
    """Return a copy of a network with fewer channels, and what was done. The network itself stays as it is.

    Args:
        net: a network of `create_model` or `load_pretrained`, pruned before or not.
        settings: how far, and by what.
        gradients: for the importance "taylor".

    Raises:
        UsageError: nothing of the network can be pruned, or not so far; what can be had is told.
        MissingExtraError: torch-pruning is not installed.
    """
    now, whole, groups, gap = net, None, 0, 0.0
    for step in range(1, settings.steps + 1):
        if settings.importance == "taylor":
            if gradients is None:
                raise UsageError("importance: taylor needs images and their truth")
            now = copy.deepcopy(now)
            gradients(now)
        found = Prunable(now, settings.size)
        whole = whole or Whole.of(found)
        plan = _plan(found, settings, step, whole)
        now, gap = found.prune(plan)
        groups = max(groups, sum(map(bool, plan.removed.values())))
    assert whole is not None
    if not groups and settings.ratio is not None:
        raise UsageError(
            f"ratio: {settings.ratio:g} takes no channel of any layer, for each keeps a multiple of "
            f"{settings.round_to}; a larger ratio, or a smaller round_to"
        )
    specs = load_architecture(str(net.architecture)).inputs(net.config)
    after = Costs(now, noise_inputs(specs, settings.size, device="meta").given()).whole
    return now, PruneReport(
        size=settings.size,
        macs=(whole.macs, after),
        parameters=(count_parameters(net), count_parameters(now)),
        groups=groups,
        kept=found.kept,
        layers=len(surgery_of(now)),
        difference=gap,
    )


def _plan(found: Prunable, settings: PruneSettings, step: int, whole: Whole) -> Removal:
    """Return what goes in one of the rounds, of which the last alone has to meet what was asked."""
    groups = found.graph.groups
    if settings.ratio is not None and step == 1:
        refuse_emptied(groups, settings.ratio)
    torch.manual_seed(settings.seed)
    scores = {group.root: found.graph.scores(group, settings.importance) for group in groups}
    if settings.ratio is not None:
        ratio = settings.ratio * step / settings.steps
        return plan_for_ratio(groups, scores, found.costs, ratio, round_to=settings.round_to, sizes=whole.sizes)
    assert settings.macs is not None
    target = round(whole.macs * (1 - (1 - settings.macs) * step / settings.steps))
    tolerance = whole.macs * settings.tolerance if step == settings.steps else math.inf
    return plan_for_macs(
        groups, scores, found.costs, target, round_to=settings.round_to, tolerance=tolerance, whole=whole.macs
    )


def followed_inputs(specs: Sequence[InputSpec]) -> Tensor | Inputs:
    """Return noise in float64 that a network is followed on."""
    return changed(noise_inputs(specs, FOLLOWED_SIZE).given(), lambda x: x.double() if x.is_floating_point() else x)


def unsound_groups(net: nn.Module, inputs: Tensor | Inputs) -> list[str]:
    """Return the roots of groups that cannot be pruned as torch-pruning would: half of each is removed and proved.

    Where the whole does not pass, halves of the groups are tried, and so on down to single ones.
    """
    net = redrawn(net)
    roots = [group.root for group in Graph(net, inputs).groups]
    whole = maps(in_float64(net), inputs)
    unsound: list[str] = []

    def narrow_down(some: list[str]) -> None:
        others = [root for root in roots if root not in some]
        if not some or _is_sound(net, whole, inputs, others):
            return
        if len(some) == 1:
            unsound.extend(some)
            return
        middle = len(some) // 2
        narrow_down(some[:middle])
        narrow_down(some[middle:])

    narrow_down(roots)
    return unsound


def _is_sound(net: nn.Module, whole: Mapping[str, Tensor], inputs: Tensor | Inputs, others: Sequence[str]) -> bool:
    """Tell whether half of each group but of `others` can go, and nothing else changes.

    whole: what the network gives as it is; removing channels must change that, or nothing is seen.
    """
    graph = Graph(net, inputs, whole=others)
    removed = {group.root: list(range(0, group.size - 1, 2)) for group in graph.groups}
    expected = maps(blinded(graph.net, graph.groups, removed), inputs)
    try:
        table = smaller_sizes(layer_sizes(net), graph.groups, removed)
        for group in graph.groups:
            graph.remove(group, removed[group.root])
        sizes = layer_sizes(graph.net)
        is_smaller = all(sizes[name] == cut for name, cut in table.items())
        has_effect = difference(whole, expected) >= LEAST_EFFECT
        return is_smaller and has_effect and difference(expected, maps(graph.net, inputs)) <= MOST_DIFFERENCE
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False
