"""Which channels of a network can only go together, and how much they matter. torch-pruning is imported here alone.

torch-pruning follows the graph that autograd records of one pass, and finds for each channel of a layer all that falls
with it: the norm behind it, the layers that read it, and through sums the layers that write beside it. What it cannot
follow it takes for an operation on single channels. So groups are left whole here whose channels go through anything
that is not known to be one (`FOLLOWED`): products of matrices, softmax, layer norms, tables of positions. Heads of
attention, their widths and the streams of tokens around them keep their channels for that reason.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.build.network import build_empty
from segatlas.build.surgery import CONVOLUTIONS, layer_sizes, sizes_of
from segatlas.errors import MissingExtraError, UsageError
from segatlas.models.host import with_classes
from segatlas.models.reading import load_architecture
from segatlas.pruning.passes import all_maps
from segatlas.structures import Inputs

FOLLOWED = frozenset(
    (
        *(
            "Relu",
            "LeakyRelu",
            "Hardtanh",
            "Hardswish",
            "Hardsigmoid",
            "Silu",
            "Gelu",
            "Elu",
            "Sigmoid",
            "Tanh",
            "Mish",
        ),
        *(
            "Softplus",
            "Threshold",
            "Clamp",
            "ClampMin",
            "Add",
            "Sub",
            "Rsub",
            "Mul",
            "Div",
            "Neg",
            "Pow",
            "Sqrt",
            "Rsqrt",
        ),
        *("Exp", "Mean", "Sum", "Maximum", "Minimum", "MaxPool2DWithIndices", "MkldnnMaxPool2D", "AvgPool2D"),
        *("MkldnnAvgPool2D", "AdaptiveAvgPool2D", "MkldnnAdaptiveAvgPool2D", "AdaptiveMaxPool2D", "UpsampleNearest2D"),
        *("UpsampleBilinear2D", "UpsampleBilinear2DAa", "UpsampleBicubic2D", "ConstantPadNd", "ReflectionPad2D"),
        *("ReplicationPad2D", "Clone", "Alias", "ToCopy", "Copy", "Squeeze", "Unsqueeze", "Transpose", "Permute", "T"),
        *("NativeDropout", "Flip", "View", "UnsafeView", "ReshapeAlias", "Expand", "Slice"),
    )
)
"""Operations of torch, as autograd calls them, that give channel by channel what they are given channel by channel."""

UNKNOWN = "an operation that does not keep channels apart"

NOT_FOLLOWED = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""How torch-pruning ends where it does not understand a graph."""
MOST_IN_A_GROUP = 1_000_000
"""Channels of layers in one group at most: of a wide residual network they are some hundred thousand."""
MOST_STEPS = 3_000
"""Steps from layer to layer in a group; each looks at all before it."""

Side = Literal["reads", "writes", "both"]

IN_WORDS = {
    "Convolution": "parts of a layer's weights",
    "SlowConv2D": "parts of a layer's weights",
    "Bmm": "products of two maps",
    "Mm": "products of two maps",
    "Addmm": "products of two maps",
    "Softmax": "softmax",
    "NativeLayerNorm": "a layer norm",
    "NativeGroupNorm": "a group norm",
    "Scatter": "places kept by pooling",
    "LinalgVectorNorm": "lengths of vectors",
    "PixelShuffle": "pixels made of channels",
    "Index": "chosen points",
    "GridSampler2D": "chosen points",
    "Im2Col": "windows of pixels",
}
"""Operations that are not followed, as people call them; others are told by their name in torch."""


@dataclass(frozen=True, kw_only=True)
class GroupMember:
    """A layer in a group.

    side: whether its channels are those that the layer reads, writes, or both at once, as a norm has them.
    channels: of each channel of the group's root, which of the layer it is.
    """

    layer: str
    side: Side
    channels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels of several layers that go together.

    root: the layer that the group is called after; channels: how many it writes; repeats: groups of a convolution
    among its members, of which each has to lose as many.
    """

    root: str
    channels: int
    repeats: int
    members: tuple[GroupMember, ...]

    @property
    def size(self) -> int:
        """Channels that are chosen from: of grouped convolutions those of one group."""
        return self.channels // self.repeats


class Graph:
    """A network under the knife, in float64, and what torch-pruning knows of it.

    Args:
        net: a network of `create_model`; a copy is made of it, with its gradients where it has some.
        inputs: what it is followed on, float64.
        whole: roots of groups that stay whole.

    Raises:
        MissingExtraError: torch-pruning is not installed.
        UsageError: the network gives nothing that depends on its weights one by one.
    """

    def __init__(self, net: nn.Module, inputs: Tensor | Inputs, whole: Sequence[str] = ()):
        tp = torch_pruning()
        self.net = in_float64(net)
        self.names = {module: name for name, module in self.net.named_modules()}
        self._graph = tp.DependencyGraph()
        fixed = class_layers(net)
        with quietly(), linear_layers_as_one_step(self.net):
            try:
                self._graph.build_dependency(self.net, inputs, forward_fn=self._follow, verbose=False)
            except NOT_FOLLOWED as error:
                raise UsageError(
                    f"the channels of a {net.architecture} cannot be followed: torch-pruning has no rule for some of "
                    "what it computes with them"
                ) from error
        self._take_views_as_they_are()
        self.kept: dict[str, str] = {}
        self.groups: list[ChannelGroup] = []
        for root, found in self._found():
            if found is None:
                self.kept[root] = "more layers than can be followed"
                continue
            reason = "left whole" if root in whole else self._reason_to_keep(found, fixed)
            group = None if reason else self._group(root, found)
            reason = reason if group is None else self._reason_it_is_none(group)
            if group is None or reason:
                self.kept[root] = reason
            else:
                self.groups.append(group)

    def scores(self, group: ChannelGroup, importance: str) -> Tensor:
        """Return how much each choice of a group matters, (size,) float64, on the CPU: small = little.

        importance: a key of `settings.IMPORTANCES`.
        """
        values = self._values(group, importance)
        return torch.as_tensor(values).detach().double().cpu().view(group.repeats, -1).mean(dim=0)

    def _values(self, group: ChannelGroup, importance: str) -> Any:
        """Return what each channel of a group is worth, a tensor or list."""
        tp: Any = torch_pruning()
        made: dict[str, Callable[[], Any]] = {
            "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
            "bn": tp.importance.BNScaleImportance,
            "taylor": tp.importance.GroupTaylorImportance,
            "random": tp.importance.RandomImportance,
        }
        found = self._tied(group, range(group.channels))
        with quietly():
            values = made[importance]()(found)
            if values is None:  # no batch norm among them
                values = tp.importance.GroupMagnitudeImportance(p=2)(found)
        return values

    def remove(self, group: ChannelGroup, chosen: Sequence[int]) -> None:
        """Remove choices of a group, 0..size-1, from all its layers, in place."""
        if chosen:
            with quietly():
                self._tied(group, repeated(group, chosen)).prune()

    def _tied(self, group: ChannelGroup, channels: Sequence[int]) -> Any:
        module = self.net.get_submodule(group.root)
        pruner = self._graph.get_pruner_of_module(module)
        return self._graph.get_pruning_group(module, pruner.prune_out_channels, list(channels))

    def _found(self) -> Iterator[tuple[str, Any]]:
        """Yield the first layer of each group and all that is in it; None where that does not end."""
        seen: set[nn.Module] = set()
        for module in list(self._graph.module2node):
            if not isinstance(module, (*CONVOLUTIONS, nn.Linear)) or module in seen:
                continue
            pruner = self._graph.get_pruner_of_module(module)
            channels = list(range(pruner.get_out_channels(module)))
            try:
                with bounded():
                    found = self._graph.get_pruning_group(module, pruner.prune_out_channels, channels)
            except OverflowError:
                found = None
            seen |= {item.dep.target.module for item in found or () if not self._reads(item)}
            yield self.names[module], found

    def _take_views_as_they_are(self) -> None:
        """Let views keep the channels that they are given, and cuts too, unless they are cuts of channels.

        torch-pruning works out by how much a view folds channels together, from sizes that it guesses.
        """
        from torch_pruning.ops import OPTYPE

        for node in self._graph.module2node.values():
            if node.type == OPTYPE.SLICE:
                sizes, axis = (getattr(node.grad_fn, f"_saved_{name}", None) for name in ("self_sym_sizes", "dim"))
                of_channels = sizes is None or axis == (1 if len(sizes) == 4 else len(sizes) - 1)
            else:
                of_channels = node.type not in (OPTYPE.RESHAPE, OPTYPE.EXPAND)
            if of_channels:
                continue
            node.type = OPTYPE.ELEMENTWISE
            for other in (node, *node.inputs, *node.outputs):
                for dependency in other.dependencies:
                    if node in (dependency.target, dependency.source):
                        dependency.index_mapping[0] = None

    def _follow(self, net: nn.Module, inputs: Tensor | Inputs) -> list[Tensor]:
        """Run the network; a product behind each map lets no layer be taken for the end of the graph."""
        return [x * 1.0 for x in all_maps(net, inputs).values() if x.requires_grad]

    def _reason_to_keep(self, found: Any, fixed: set[tuple[str, bool]]) -> str:
        """Return why a group of torch-pruning's stays whole, "" where it need not."""
        from torch_pruning.ops import OPTYPE

        through = {
            OPTYPE.LN: "a layer norm",
            OPTYPE.GN: "a group norm",
            OPTYPE.EMBED: "an embedding",
            OPTYPE.PARAMETER: "a table of parameters",
            OPTYPE.MHA: "attention",
            OPTYPE.LSTM: "a recurrent layer",
            OPTYPE.UNBIND: "parts of a map that are taken apart",
            OPTYPE.CUSTOMIZED: "a layer of its own kind",
            OPTYPE.OUTPUT: "the output of the network",
        }
        for item in found:
            node = item.dep.target
            if node.type in through:
                return through[node.type]
            if node.type == OPTYPE.ELEMENTWISE and (name := operation(node.grad_fn)) not in FOLLOWED:
                return IN_WORDS.get(name, f"torch's {name}")
            if (name := self.names.get(node.module, "")) and (name, self._reads(item)) in fixed:
                return f"{name}, whose channels are classes"
        return ""

    def _group(self, root: str, found: Any) -> ChannelGroup:
        members, repeats = [], 1
        channels = self._graph.get_out_channels(self.net.get_submodule(root))
        for item in found:
            module = item.dep.target.module
            if module not in self.names or (sizes := sizes_of(module)) is None:
                continue
            own: list[list[int]] = [[] for _ in range(channels)]
            for of_root, index in zip(item.root_idxs, item.idxs, strict=True):
                own[of_root].append(index)
            by_channel = isinstance(module, CONVOLUTIONS) and sizes[0] == sizes[1] == sizes[2] > 1
            is_both = by_channel or not isinstance(module, (*CONVOLUTIONS, nn.Linear))
            side: Side = "both" if is_both else "reads" if self._reads(item) else "writes"
            members.append(GroupMember(layer=self.names[module], side=side, channels=tuple(map(tuple, own))))
            if not by_channel:  # where each channel is a group, it goes alone
                repeats = max(repeats, sizes[2])
        return ChannelGroup(root=root, channels=channels, repeats=repeats, members=tuple(members))

    def _reason_it_is_none(self, group: ChannelGroup) -> str:
        """Return why a group cannot lose any of its channels, "" where it can."""
        if group.size < 2 or group.channels % group.repeats:
            return "convolutions in groups that need all of their channels"
        if len({(member.layer, member.side) for member in group.members}) < len(group.members):
            return UNKNOWN
        if any(not indices for member in group.members for indices in member.channels):
            return UNKNOWN  # a layer has a part of the choices alone: others might take all of its channels
        for member in group.members:
            sizes = sizes_of(self.net.get_submodule(member.layer))
            most = (sizes or (0, 0))[0 if member.side == "reads" else 1]
            if any(index >= most for indices in member.channels for index in indices):
                return UNKNOWN
        if len(self._values(group, "magnitude")) != group.channels:
            return UNKNOWN  # not every channel of it has a worth of its own
        return ""

    def _reads(self, item: Any) -> bool:
        """Tell whether a layer is in a group for what it reads."""
        return not self._graph.is_out_channel_pruning_fn(item.dep.handler)


def torch_pruning() -> Any:
    """Return the package. MissingExtraError where it is not installed."""
    try:
        import torch_pruning
    except ImportError:
        raise MissingExtraError("pruning", "torch-pruning", "prune") from None
    return torch_pruning


def repeated(group: ChannelGroup, chosen: Sequence[int]) -> list[int]:
    """Return the channels of a group's root that choices stand for: one in each group of a convolution."""
    return [choice + part * group.size for part in range(group.repeats) for choice in chosen]


def class_layers(net: nn.Module) -> set[tuple[str, bool]]:
    """Return (layer, reads) of each side of a layer whose channels are classes: it is wider with a class more."""
    config: Any = net.config
    larger = build_empty(load_architecture(str(net.architecture)), with_classes(config, config.num_classes + 1))
    whole = build_empty(load_architecture(str(net.architecture)), config)
    before, after = layer_sizes(whole), layer_sizes(larger)
    sides = ((name, side) for name in before if name in after for side in (0, 1))
    return {(name, side == 0) for name, side in sides if before[name][side] != after[name][side]}


def operation(grad_fn: Any) -> str:
    """Return the name of an operation as autograd calls it, without what stands behind all of them."""
    name: str = grad_fn.name() if hasattr(grad_fn, "name") else type(grad_fn).__name__
    return name.rstrip("0123456789").removesuffix("Backward")


def in_float64(net: nn.Module) -> nn.Module:
    """Return a copy in float64, in which every weight has a gradient to follow, with the gradients that there are."""
    double = copy.deepcopy(net).double().requires_grad_(True).eval()
    for own, original in zip(double.parameters(), net.parameters(), strict=True):
        own.grad = None if original.grad is None else original.grad.double()
    return double


class _LinearStep(torch.autograd.Function):
    """A fully connected layer as one operation: torch makes several of it, between views of its tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise AssertionError("the graph is followed, never run backwards")


def _one_step(layer: nn.Linear, x: Tensor) -> Tensor:
    result: Tensor = _LinearStep.apply(x, layer.weight, layer.bias)
    return result


@contextmanager
def linear_layers_as_one_step(net: nn.Module) -> Iterator[None]:
    """Let each fully connected layer of a network be one operation in the graph that autograd records."""
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        layer.forward = partial(_one_step, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@contextmanager
def bounded() -> Iterator[None]:
    """End the search for a group that goes round in circles: OverflowError where it has more than any network's."""
    from torch_pruning.dependency import graph

    original = graph.Group

    class Bounded(original):  # type: ignore[misc, valid-type]
        left, layers_left = MOST_IN_A_GROUP, MOST_STEPS

        def add_dep(self, dep: Any, idxs: Any) -> None:
            self.left -= len(idxs)
            self.layers_left -= 1
            if self.left < 0 or self.layers_left < 0:
                raise OverflowError
            super().add_dep(dep, idxs)

    graph.Group = Bounded
    try:
        yield
    finally:
        graph.Group = original


@contextmanager
def quietly() -> Iterator[None]:
    """Silence torch-pruning's advice, of which nothing is left to be done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
