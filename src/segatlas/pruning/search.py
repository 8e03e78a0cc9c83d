"""How many channels of each group go, so that what is left costs what is asked."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from segatlas.bench.subjects import count_flops
from segatlas.build.surgery import CONVOLUTIONS, Sizes, layer_sizes
from segatlas.errors import UsageError
from segatlas.pruning.groups import ChannelGroup, repeated
from segatlas.structures import Inputs

_HALVINGS = 20
"""Steps of the search for a ratio: to a millionth of it."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Which choices of each group go, by its root, and the multiply-accumulates that are left."""

    removed: Mapping[str, Sequence[int]]
    macs: int


class Costs:
    """What a network costs with fewer channels. Only shapes are followed, in one pass for all counts.

    Args:
        net: the network.
        inputs: one image of the size that is counted for.
    """

    def __init__(self, net: nn.Module, inputs: Tensor | Inputs):
        self.sizes = layer_sizes(net)
        self._by_layer: dict[str, int] = dict.fromkeys(self.sizes, 0)
        shell = copy.deepcopy(net).eval()
        for name, module in shell.named_modules():
            if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
                module.register_forward_hook(self._counting(name))
        self.whole = count_flops(shell, inputs) // 2

    def of(self, table: Mapping[str, Sizes]) -> int:
        """Return the multiply-accumulates with layers of these sizes, of which other layers are not told."""
        saved = 0.0
        for name, sizes in table.items():
            saved += self._by_layer[name] * (1 - _products(sizes) / _products(self.sizes[name]))
        return round(self.whole - saved)

    def table(self, groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]) -> dict[str, Sizes]:
        """Return the sizes of the layers that change."""
        return smaller_sizes(self.sizes, groups, removed)

    def _counting(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            weight = module.get_parameter("weight")
            if isinstance(module, nn.ConvTranspose2d):
                self._by_layer[name] += args[0].numel() * weight[0].numel()
            else:
                self._by_layer[name] += output.numel() * weight[0].numel()

        return hook


def _products(sizes: Sizes) -> float:
    return sizes[0] * sizes[1] / sizes[2]


def smaller_sizes(
    whole: Mapping[str, Sizes], groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]
) -> dict[str, Sizes]:
    """Return the sizes of layers without choices of groups; of those alone that change.

    Args:
        whole: sizes of all layers as they are.
        groups: the groups.
        removed: root of a group -> the choices of it that go.
    """
    found: dict[str, list[int]] = {}
    for group in groups:
        gone = repeated(group, removed.get(group.root, ()))
        for member in group.members:
            count = sum(len(member.channels[channel]) for channel in gone)
            if not count:
                continue
            sizes = found.setdefault(member.layer, list(whole[member.layer]))
            if member.side != "writes":
                sizes[0] -= count
            if member.side != "reads":
                sizes[1] -= count
            if member.side == "both" and whole[member.layer][2] > 1:  # a group a channel
                sizes[2] -= count
    return {name: (sizes[0], sizes[1], sizes[2]) for name, sizes in found.items()}


def kept_of(group: ChannelGroup, ratio: float, round_to: int, size: int | None = None) -> int:
    """Return how many choices of a group stay where a fraction `ratio` goes: a multiple, and all of a narrow one.

    size: what the fraction is of; default: what there is now.
    """
    if group.size <= round_to or ratio == 0:
        return group.size
    wanted = (size or group.size) * (1 - ratio)
    return max(round_to, min(round(wanted / round_to) * round_to, group.size))


def refuse_emptied(groups: Sequence[ChannelGroup], ratio: float) -> None:
    """Raise UsageError, naming the layers, where a fraction of each group leaves one without a channel."""
    emptied = [f"{group.root} ({group.size})" for group in groups if math.floor(group.size * (1 - ratio)) < 1]
    if emptied:
        raise UsageError(
            f"ratio: {ratio:g} would leave no channel of {len(emptied)} layers: {', '.join(emptied[:6])}; at most "
            f"{1 - 1 / min(group.size for group in groups):.4g} leaves one in each"
        )


def plan_for_ratio(
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, Tensor],
    costs: Costs,
    ratio: float,
    *,
    round_to: int,
    sizes: Mapping[str, int],
) -> Removal:
    """Return the plan that takes a fraction of each group, as near to it as multiples of channels come.

    sizes: root of a group -> what the fraction is of, the choices that it had before the first round.
    """
    kept = {group.root: kept_of(group, ratio, round_to, sizes.get(group.root)) for group in groups}
    return _plan(groups, scores, costs, kept)


def plan_for_macs(
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, Tensor],
    costs: Costs,
    target: int,
    *,
    round_to: int,
    tolerance: float,
    whole: int | None = None,
) -> Removal:
    """Return the plan whose multiply-accumulates lie nearest to a target.

    The same fraction of each group goes: it is searched by halving. Where channels that stay come in multiples, groups
    take the last step one after another.

    Args:
        groups: what can go.
        scores: root of a group -> how much its choices matter.
        costs: counts.
        target: multiply-accumulates.
        round_to: channels that stay are a multiple of.
        tolerance: how far off the target they may be; infinite on the way to one, where the nearest will do.
        whole: what fractions are told of; default: what the network costs now.

    Raises:
        UsageError: nothing so near can be had, and what can.
    """
    whole = whole or costs.whole

    def counts(ratio: float) -> dict[str, int]:
        return {group.root: kept_of(group, ratio, round_to) for group in groups}

    def cost(kept: Mapping[str, int]) -> int:
        return costs.of(costs.table(groups, _removed(groups, scores, kept)))

    low, high = 0.0, 1.0
    wide, narrow = counts(low), counts(high)
    least = cost(narrow)
    if least > target + tolerance:
        raise UsageError(
            f"macs: {target / whole:.3g} cannot be reached: {least / whole:.3g} is left where each layer that can be "
            f"pruned keeps {round_to} channel{'s' * (round_to > 1)}"
            + ("; a smaller round_to keeps fewer" if round_to > 1 else "")
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        now = counts(middle)
        if now == wide or (now != narrow and cost(now) >= target):
            low, wide = middle, now
        else:
            high, narrow = middle, now
    kept = _between(groups, wide, narrow, cost, target)
    plan = _plan(groups, scores, costs, kept)
    if abs(plan.macs - target) > tolerance:
        raise UsageError(
            f"macs: {target / whole:.3g} cannot be met within {tolerance / whole:.3g}: the nearest to be had is "
            f"{plan.macs / whole:.3g}" + ("; a smaller round_to comes nearer" if round_to > 1 else "")
        )
    return plan


def _between(
    groups: Sequence[ChannelGroup],
    wide: dict[str, int],
    narrow: dict[str, int],
    cost: Callable[[Mapping[str, int]], int],
    target: int,
) -> dict[str, int]:
    """Return the counts nearest to a target of those where the first groups are narrow and the others wide."""
    differing = [group.root for group in groups if wide[group.root] != narrow[group.root]]

    def mixed(count: int) -> dict[str, int]:
        return wide | {root: narrow[root] for root in differing[:count]}

    low, high = 0, len(differing)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(mixed(middle)) >= target else (low, middle)
    return min((mixed(low), mixed(high)), key=lambda kept: abs(cost(kept) - target))


def _removed(
    groups: Sequence[ChannelGroup], scores: Mapping[str, Tensor], kept: Mapping[str, int]
) -> dict[str, list[int]]:
    """Return the choices of each group that matter least, all but as many as stay."""
    return {
        group.root: sorted(scores[group.root].argsort(stable=True)[: group.size - kept[group.root]].tolist())
        for group in groups
    }


def _plan(
    groups: Sequence[ChannelGroup], scores: Mapping[str, Tensor], costs: Costs, kept: Mapping[str, int]
) -> Removal:
    removed = _removed(groups, scores, kept)
    return Removal(removed=removed, macs=costs.of(costs.table(groups, removed)))
