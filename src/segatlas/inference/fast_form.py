"""The form of a network that predicts fastest: the same numbers up to rounding, fewer passes over memory.

What changes, in a copy that shares every untouched tensor with the network:

* batch norm becomes part of the convolution before it;
* a module that offers `inference_form()` is replaced by what that returns (products of weights made once, for example);
* on a processor, maps are channels-last, and 1x1 convolutions and fully connected layers avoid torch's slow paths;
* for bf16, the weights of convolutions and fully connected layers are stored in it, but not the classifier's, so that
  logits are float32.

Which norm follows which convolution is not guessed from names: one pass over a small image is watched, and a pair is
joined only where the convolution's result went into that norm and nowhere else. Then the fast form has to give the
network's numbers for that image; where it does not, it is not used. Both passes run in the network's own precision
whatever the autocast around them (training validates inside one): in bf16 two orders of the same sums differ by 1e-2.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segatlas.layers.grouped import DilatedGroups
from segatlas.layers.linear import PointwiseConv2d, TokenLinear
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.strided import StridedPointwise
from segatlas.ops import torch_private
from segatlas.structures import Inputs, InputSpec, Output, changed, image_of, maps_of, noise_inputs

LOGGER = logging.getLogger("segatlas")
TRIAL_SIZE = (64, 64)
TOLERANCES = {"fp32": 1e-5, "bf16": 1e-3}
"""Largest difference of float32 logits accepted, relative to the largest logit. Rounding makes 1e-7 to 1e-6 of it in
most networks; a mistake would make far more. In between lie networks that multiply rounding (attention over random
weights): in fp32 they predict in their plain form, so that labels stay those of the published order of operations."""

MISTAKE = 1e-6
"""A difference in float64 that no rounding makes: worth a warning."""

_PACKING = threading.Lock()

_told: set[str] = set()
"""Names of networks whose rounding was told: a training makes a fast form at each validation, one line is enough."""

_CONVOLUTIONS = (nn.Conv2d, PointwiseConv2d, DilatedGroups, StridedPointwise)
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNorm2d)
_OTHER_MATRIX_LAYERS = (nn.ConvTranspose2d, nn.Linear, TokenLinear)


@torch.inference_mode()
def fast_form(net: nn.Module, inputs: Sequence[InputSpec], precision: str = "fp32") -> nn.Module:
    """Return a copy of a network made for prediction; the network itself stays as it is.

    Args:
        net: a network in eval mode with an output of `segatlas.structures`.
        inputs: what it takes, the image first.
        precision: "bf16" stores weights in bfloat16; call the result under autocast.

    Returns:
        The fast form; or `net` where no fast form gives its numbers, or in fp32 where a module `keeps_order`.
    """
    if precision == "fp32" and any(getattr(module, "keeps_order", False) for module in net.modules()):
        return net
    first = next(net.parameters(), torch.empty(0))
    noise = noise_inputs(inputs, TRIAL_SIZE).to(first.device).given()
    trial = changed(noise, lambda x: x.to(first.dtype) if x.is_floating_point() else x)
    fast, used, difference = _make(net, trial, channels_last=precision == "bf16")
    if not difference <= TOLERANCES[precision]:
        _explain_difference(net, trial, difference)
        return net
    if precision == "bf16":
        _store_weights_in_bf16(fast, used)
    return fast


def _make(net: nn.Module, trial: Tensor | Inputs, *, channels_last: bool) -> tuple[nn.Module, set[nn.Module], float]:
    """Return the fast form, its modules that ran as such, and by how much it differs on `trial`.

    The difference is relative to the largest value of the map, such as the logits, that differs most.

    channels_last: lay weights out so; on a processor they always are.
    """
    device = image_of(trial).device.type
    with torch.autocast(device, enabled=False):
        watch = _ModuleWatch(copy_of(net))  # the network itself may be predicting in another thread
        expected = watch.run(trial)
        fast = copy_of(net)
        for conv, norm in watch.pairs():
            fold(fast, conv, norm)
        _replace_offered(fast)
        if device == "cpu":
            _suit_processor(fast)
        if device == "cpu" or channels_last:
            _lay_weights_channels_last(fast)
        got, used = _run(fast, trial)
    relative = [_difference(got[name], x) for name, x in expected.items()]
    return fast, used, float(torch.stack(relative).max())  # NaN where one is


def _difference(got: Tensor, expected: Tensor) -> Tensor:
    """Return by how much maps differ, relative to the largest value: infinite where they are not of one size.

    Of what a network finds there may be none, or one more where rounding moves it over a threshold.
    """
    if got.shape != expected.shape:
        return expected.new_tensor(float("inf"))
    if not expected.numel():
        return expected.new_zeros(())
    return (got - expected).abs().max() / expected.abs().max().clamp(min=1e-12)


def _explain_difference(net: nn.Module, trial: Tensor | Inputs, difference: float) -> None:
    """Warn where the fast form is wrong; where it only rounds otherwise, a line of the log says so, once in a process.

    Which of the two it is shows in float64, where rounding is a billion times smaller and a mistake stays what it is.
    """
    name = type(net).__name__
    if image_of(trial).device.type != "mps":  # which has no float64
        exactly = changed(trial, lambda x: x.double() if x.is_floating_point() else x)
        _, _, exact = _make(copy.deepcopy(net).double(), exactly, channels_last=False)
        if exact > MISTAKE:
            text = "the fast form of %s is wrong by %.0e of the largest logit; predicting with the plain one"
            LOGGER.warning(text, name, exact)
            return
    text = "the fast form of %s rounds otherwise, by %.0e of the largest logit; predicting with the plain one"
    if name not in _told:
        _told.add(name)
        LOGGER.info(text, name, difference)


def copy_of(net: nn.Module) -> nn.Module:
    """Return a copy with modules of its own that shares every tensor with the network."""
    return copy.deepcopy(net, {id(t): t for t in (*net.parameters(), *net.buffers())})


def fold(root: nn.Module, conv_name: str, norm_name: str) -> None:
    """Give the convolution of that name the effect of the norm in eval mode, and put nothing in the norm's place."""
    conv, norm = root.get_submodule(conv_name), root.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
    scale, shift = norm_as_affine(norm)
    bias = shift if conv.bias is None else shift + conv.bias * scale
    conv.weight = nn.Parameter(conv.weight * scale.to(conv.weight)[:, None, None, None], requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)
    rest = nn.Sequential(*norm.children()) if _is_norm_with_activation(norm) else nn.Identity()
    parent, _, own = norm_name.rpartition(".")
    setattr(root.get_submodule(parent), own, rest)


def norm_as_affine(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C), float64, of a batch norm in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


class _ModuleWatch(TorchFunctionMode):
    """Watches one pass: which module's result goes into which function."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.results: dict[int, str] = {}  # id of a convolution's result -> name of the convolution
        self.uses: Counter[str] = Counter()  # name of a convolution -> functions that took its result
        self.sources: dict[str, str] = {}  # name of a norm -> name of the convolution whose result it took
        self.calls: Counter[str] = Counter()  # name of a module -> times it ran
        self.alive: list[Tensor] = []  # results, kept so that no later tensor gets the id of one

    def run(self, inputs: Tensor | Inputs) -> dict[str, Tensor]:
        """Return the maps that the network gives, watched."""
        handles = []
        for name, module in self.net.named_modules():
            if _is_plain_convolution(module):
                handles.append(module.register_forward_hook(self._convolution_ran(name)))
            elif _is_plain_norm(module):
                handles.append(module.register_forward_pre_hook(self._norm_runs(name)))
        try:
            with self:
                output: Output = self.net(inputs)
        finally:
            for handle in handles:
                handle.remove()
        self._note_uses(tuple(output))
        return maps_of(output)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the names (convolution, norm) that may be joined."""
        owners = Counter(id(p) for m in self.net.modules() for p in m.parameters(recurse=False))
        found = []
        for norm, conv in self.sources.items():
            once = self.uses[conv] == self.calls[conv] == self.calls[norm] == 1
            if once and all(owners[id(p)] == 1 for p in self.net.get_submodule(conv).parameters()):
                found.append((conv, norm))
        return found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(x, Tensor) for x in leaves(result)):  # reading a shape or a type is no use
            self._note_uses((args, kwargs))
        return result

    def _note_uses(self, values: object) -> None:
        self.uses.update({self.results[id(x)] for x in leaves(values) if id(x) in self.results})

    def _convolution_ran(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            self.calls[name] += 1
            self.results[id(output)] = name
            self.alive.append(output)

        return hook

    def _norm_runs(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.calls[name] += 1
            if id(args[0]) in self.results:
                self.sources[name] = self.results[id(args[0])]

        return hook


def _is_plain_convolution(module: nn.Module) -> bool:
    """Tell whether a module is torch's own convolution: one of a subclass may do more than multiply its weight."""
    return type(module) in (nn.Conv2d, DilatedGroups, StridedPointwise) and not _has_hooks(module)


def _is_plain_norm(module: nn.Module) -> bool:
    known = type(module) in _NORMS or _is_norm_with_activation(module)
    return known and not module.training and module.running_mean is not None and not _has_hooks(module)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_norm_with_activation(module: nn.Module) -> bool:
    """Tell whether a module is timm's batch norm that drops (blocks of the map) and activates behind itself."""
    return type(module).__name__ == "BatchNormAct2d" and [n for n, _ in module.named_children()] == ["drop", "act"]


def _replace_offered(root: nn.Module) -> None:
    """Replace modules below `root` by their `inference_form()`, where they have one."""
    for name, child in root.named_children():
        offered: Any = getattr(child, "inference_form", None)
        if offered is None:
            _replace_offered(child)
        else:
            setattr(root, name, offered().eval())


def _suit_processor(root: nn.Module) -> None:
    for module in root.modules():
        if type(module) is nn.Linear:
            module.__class__ = TokenLinear
        elif type(module) is nn.Conv2d and module.kernel_size == (1, 1):
            module.__class__ = PointwiseConv2d


def _lay_weights_channels_last(root: nn.Module) -> None:
    """Lay out weights anew, not in place: they may be the plain network's."""
    for module in root.modules():
        if isinstance(module, nn.Conv2d) and type(module) in _CONVOLUTIONS:
            weight = module.weight.contiguous(memory_format=torch.channels_last)
            module.weight = nn.Parameter(weight, requires_grad=False)


def _run(net: nn.Module, inputs: Tensor | Inputs) -> tuple[dict[str, Tensor], set[nn.Module]]:
    """Return the maps that the network gives, and the modules that ran: of others it takes only the weights."""
    used: set[nn.Module] = set()
    handles = [module.register_forward_pre_hook(lambda module, _: used.add(module)) for module in net.modules()]
    try:
        return maps_of(net(inputs)), used
    finally:
        for handle in handles:
            handle.remove()


def _store_weights_in_bf16(root: nn.Module, used: set[nn.Module]) -> None:
    exact = getattr(root, "classifier", None)
    kept = set() if exact is None else set(exact.modules())
    for parent in list(root.modules()):
        for name, module in list(parent.named_children()):
            if module is exact:
                setattr(parent, name, _InFloat32(module))
            if module in kept or module not in used or type(module) not in (*_CONVOLUTIONS, *_OTHER_MATRIX_LAYERS):
                continue
            for parameter_name, parameter in list(module.named_parameters()):
                setattr(module, parameter_name, nn.Parameter(parameter.bfloat16(), requires_grad=False))
            if PackedConv2d.takes(module):
                setattr(parent, name, PackedConv2d(module))


class PackedConv2d(nn.Module):
    """A convolution in bf16 whose weights lie as oneDNN reads them, so that they are not laid out anew at each call.

    They are packed at the first call, for that map; for maps of other sizes oneDNN packs anew where it wants to.
    Several threads may call at once: one packs.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv: nn.Conv2d | None = conv
        self.packed: Tensor | None = None
        self.bias = conv.bias
        self.options = (conv.padding, conv.stride, conv.dilation, conv.groups)

    @staticmethod
    def takes(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
        """Tell whether a module can be packed: a convolution on a processor, and a torch that offers it."""
        if type(conv) not in _CONVOLUTIONS or not isinstance(conv, nn.Conv2d):
            return False
        plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
        return plain and conv.weight.device.type == "cpu" and torch_private.can_pack()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h', w') bfloat16, channels-last."""
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        packed = self._packed(x) if self.packed is None else self.packed
        return torch_private.convolve_packed(x, packed, self.bias, self.options)

    def _packed(self, x: Tensor) -> Tensor:
        with _PACKING:
            if self.packed is None:
                assert self.conv is not None
                self.packed = torch_private.pack(self.conv.weight, self.options, x.shape)
                self.conv = None
            return self.packed


class _InFloat32(nn.Module):
    """Runs a module in float32 whatever the autocast around it."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    @property
    def weight(self) -> Tensor:
        """Return the module's weight, for networks that do more with it than call the module."""
        return self.module.get_parameter("weight")

    def forward(self, *maps: Tensor) -> Any:
        """Return what the module gives for the maps in float32."""
        with torch.autocast(maps[0].device.type, enabled=False):
            return self.module(*(x.float() for x in maps))


def leaves(values: object) -> Iterator[object]:
    """Yield what lies in nested lists, tuples and dictionaries."""
    if isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from leaves(value)
    else:
        yield values


def weights_state(net: nn.Module) -> tuple[tuple[int, float], ...]:
    """Return what changes when a tensor of the network is replaced or changed in place."""
    return tuple((t.data_ptr(), torch_private.version(t)) for t in (*net.parameters(), *net.buffers()))
