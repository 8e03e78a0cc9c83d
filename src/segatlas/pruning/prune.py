"""From a network to one with fewer channels, each step of the way proved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segatlas.bench.subjects import count_parameters
from segatlas.build.surgery import layer_sizes, resize
from segatlas.errors import SegAtlasError, UsageError
from segatlas.models.reading import load_architecture
from segatlas.pruning.groups import ChannelGroup, Graph
from segatlas.pruning.proof import MOST_DIFFERENCE, blinded, difference
from segatlas.pruning.search import Costs, Plan, plan_for_macs, plan_for_ratio, smaller_sizes
from segatlas.pruning.settings import PruneSettings
from segatlas.structures import Inputs, InputSpec, changed, noise_inputs

FOLLOWED_SIZE = (128, 128)
"""Of the image that a network is followed on: its coarsest maps and pooled ones still have several cells."""

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
    specs = load_architecture(str(net.architecture)).inputs(net.config)
    costs = Costs(net, noise_inputs(specs, settings.size, device="meta").given())
    whole, now, touched = costs.whole, net, 0
    kept: Mapping[str, str] = {}
    for step in range(1, settings.steps + 1):
        if settings.importance == "taylor":
            if gradients is None:
                raise UsageError("importance: taylor needs images and their truth")
            now = copy.deepcopy(now)
            gradients(now)
        now, groups, kept, gap = _round(now, specs, settings, step, whole)
        touched = max(touched, groups)
    after = Costs(now, noise_inputs(specs, settings.size, device="meta").given()).whole
    return now, PruneReport(
        size=settings.size,
        macs=(whole, after),
        parameters=(count_parameters(net), count_parameters(now)),
        groups=touched,
        kept=kept,
        layers=len(getattr(now, "surgery", {})),
        difference=gap,
    )


def _round(
    net: nn.Module, specs: Sequence[InputSpec], settings: PruneSettings, step: int, whole: int
) -> tuple[nn.Module, int, Mapping[str, str], float]:
    """Prune as far as one of the rounds goes; return the network, groups touched, those kept and why, the difference."""
    inputs = changed(noise_inputs(specs, FOLLOWED_SIZE).given(), _to_float64)
    kept = unsound_groups(net, inputs)
    graph = Graph(net, inputs, whole=tuple(kept))
    if not graph.groups:
        reasons = ", ".join(sorted(set(graph.kept.values()))[:6]) or "it has no layers with channels"
        raise UsageError(f"a {net.architecture} cannot be pruned: all of its channels go through {reasons}")
    torch.manual_seed(settings.seed)
    scores = {group.root: graph.scores(group, settings.importance) for group in graph.groups}
    costs = Costs(net, noise_inputs(specs, settings.size, device="meta").given())
    plan = _plan(graph.groups, scores, costs, settings, step, whole)
    smaller, gap = _carried_out(net, graph, plan, inputs)
    if gap > MOST_DIFFERENCE:
        raise SegAtlasError(
            f"a {net.architecture} cannot be pruned: without these channels it gives other numbers than the network that "
            f"does not read them, by {gap:.1e} of the largest; nothing is written"
        )
    return smaller, sum(map(bool, plan.removed.values())), {**graph.kept, **kept}, gap


def _plan(
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, Tensor],
    costs: Costs,
    settings: PruneSettings,
    step: int,
    whole: int,
) -> Plan:
    done = step / settings.steps
    if settings.ratio is not None:
        left_before, left_after = 1 - settings.ratio * (step - 1) / settings.steps, 1 - settings.ratio * done
        return plan_for_ratio(groups, scores, costs, 1 - left_after / left_before, settings.round_to)
    assert settings.macs is not None
    target = round(whole * (1 - (1 - settings.macs) * done))
    tolerance = round(whole * settings.tolerance)
    return plan_for_macs(groups, scores, costs, target, round_to=settings.round_to, tolerance=tolerance)


def _carried_out(net: nn.Module, graph: Graph, plan: Plan, inputs: Tensor | Inputs) -> tuple[nn.Module, float]:
    """Remove what a plan says; return the network in its own precision, and the difference that the proof found."""
    expected = blinded(graph.net, graph.groups, plan.removed)
    table = smaller_sizes(layer_sizes(net), graph.groups, plan.removed)
    for group in graph.groups:
        graph.remove(group, plan.removed[group.root])
    gap = difference(expected, graph.net, inputs)
    smaller = copy.deepcopy(net).eval()
    smaller.zero_grad()
    resize(smaller, table, where="the pruned network")
    own = smaller.state_dict()
    smaller.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in graph.net.state_dict().items()})
    return smaller, gap


def unsound_groups(net: nn.Module, inputs: Tensor | Inputs) -> dict[str, str]:
    """Return the roots of groups that cannot be pruned as torch-pruning would: half of each is removed and proved.

    Where the whole does not pass, halves of the groups are tried, and so on down to single ones.
    """
    graph = Graph(net, inputs)
    roots = [group.root for group in graph.groups]
    unsound: list[str] = []

    def try_(some: list[str]) -> None:
        others = [root for root in roots if root not in some]
        if not some or _is_sound(net, inputs, others):
            return
        if len(some) == 1:
            unsound.extend(some)
            return
        middle = len(some) // 2
        try_(some[:middle])
        try_(some[middle:])

    try_(roots)
    reason = "an operation that does not keep channels apart"
    return dict.fromkeys(unsound, reason)


def _is_sound(net: nn.Module, inputs: Tensor | Inputs, whole: Sequence[str]) -> bool:
    """Tell whether half of each group, but of those that stay whole, can go, and nothing else changes."""
    graph = Graph(net, inputs, whole=whole)
    removed = {group.root: list(range(0, group.size - 1, 2)) for group in graph.groups}
    expected = blinded(graph.net, graph.groups, removed)
    try:
        table = smaller_sizes(layer_sizes(net), graph.groups, removed)
        for group in graph.groups:
            graph.remove(group, removed[group.root])
        found = layer_sizes(graph.net)
        return all(found[name] == sizes for name, sizes in table.items()) and (
            difference(expected, graph.net, inputs) <= MOST_DIFFERENCE
        )
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False


def _to_float64(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
