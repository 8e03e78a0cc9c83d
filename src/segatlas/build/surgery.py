"""Networks with narrower layers than their config says: a table of sizes in the card, and layers cut to them.

A pruned network cannot be rebuilt from its config. So its card says of each layer that differs how many channels it
has: "encoder.layer1.0.conv1" -> (in, out, groups). Only sizes are told, never code, and layers only get narrower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from torch import Tensor, nn

from segatlas.errors import WeightsError
from segatlas.printable import printable, shortened

Sizes: TypeAlias = tuple[int, int, int]
"""Channels that go in, channels that come out, groups. Of norms and activations the first two are the same."""

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d)

_SHOWN = 6
"""Faults named of one table."""


def sizes_of(module: nn.Module) -> Sizes | None:
    """Return the sizes of a layer that can be made narrower; None of any other module."""
    if isinstance(module, CONVOLUTIONS):
        return module.in_channels, module.out_channels, module.groups
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features, 1
    if isinstance(module, NORMS):
        return module.num_features, module.num_features, 1
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return module.num_parameters, module.num_parameters, 1
    return None


def layer_sizes(net: nn.Module) -> dict[str, Sizes]:
    """Return the sizes of all layers of a network that can be made narrower, by name."""
    found = {name: sizes_of(module) for name, module in net.named_modules()}
    return {name: sizes for name, sizes in found.items() if sizes is not None}


def surgery_of(net: nn.Module) -> dict[str, Sizes]:
    """Return the table of a network: what `resize` was given, of networks inside it, too. Empty of a whole one."""
    return {
        f"{place}.{name}" if place else name: sizes
        for place, module in net.named_modules()
        for name, sizes in getattr(module, "surgery", {}).items()
    }


def resize(net: nn.Module, surgery: Mapping[str, Sizes], *, where: str) -> None:
    """Make layers of a network narrower, in place: they keep their first channels, and whether they are trained.

    Where it has been done before, the network's table holds both.

    Args:
        net: the network.
        surgery: name of a layer -> its sizes.
        where: the file, named in errors.

    Raises:
        WeightsError: a layer that is not there, or sizes that it cannot be cut to; all faults at once.
    """
    if not surgery:
        return
    modules = dict(net.named_modules())
    faults = list(_faults(modules, surgery))
    if faults:
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        lines = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
        raise WeightsError(f"{printable(where)}: its card's surgery does not fit its network\n{lines}{more}")
    table = {**surgery_of(net), **surgery}
    for name, sizes in surgery.items():
        _narrow(modules[name], *sizes)
    for module in net.modules():  # of a network inside
        vars(module).pop("surgery", None)
    net.surgery = table  # type: ignore[assignment]


def resize_alike(net: nn.Module, surgery: Mapping[str, Sizes], original: nn.Module, *, where: str) -> None:
    """Cut a network as another one of its architecture was cut, which may have other classes.

    Sizes that the surgery left alone, such as the classes of a classifier, stay those of `net`; so do layers that it
    has not, of which comparing the tensors tells.

    Args:
        net: as its own config says, changed in place.
        surgery: of the other one.
        original: the other one as its config says, before the surgery; its shapes are enough.
        where: the file, named in errors.

    Raises:
        WeightsError: as `resize`.
    """
    uncut, own = layer_sizes(original), layer_sizes(net)
    resize(original, surgery, where=where)  # tells every fault of the table by itself
    table = {
        name: tuple(
            mine if cut == before else cut for mine, cut, before in zip(own[name], sizes, uncut[name], strict=True)
        )
        for name, sizes in surgery.items()
        if name in own
    }
    resize(net, table, where=where)  # type: ignore[arg-type]


def _faults(modules: Mapping[str, nn.Module], surgery: Mapping[str, Sizes]) -> Iterator[str]:
    for name, sizes in surgery.items():
        shown, module = shortened(name, 200), modules.get(name)
        whole = None if module is None else sizes_of(module)
        if module is None:
            yield f"{shown}: the network has no such layer"
        elif whole is None:
            yield f"{shown}: a {type(module).__name__}, which cannot be cut"
        elif any(not 1 <= cut <= most for cut, most in zip(sizes, whole, strict=True)):
            yield f"{shown}: {_words(sizes)}, expected 1 or more each and at most {_words(whole)}"
        elif not _is_one(module, sizes):
            yield f"{shown}: {_words(sizes)} are no sizes of a {type(module).__name__}"


def _is_one(module: nn.Module, sizes: Sizes) -> bool:
    """Tell whether sizes go together in a layer of that kind."""
    channels_in, channels_out, groups = sizes
    if isinstance(module, CONVOLUTIONS):
        return channels_in % groups == 0 and channels_out % groups == 0
    return isinstance(module, nn.Linear) or channels_in == channels_out


def _words(sizes: Sizes) -> str:
    return "{} in, {} out, {} groups".format(*sizes)


def _narrow(module: nn.Module, channels_in: int, channels_out: int, groups: int) -> None:
    if isinstance(module, CONVOLUTIONS):
        first, second = channels_out, channels_in // groups
        if module.transposed:
            first, second = channels_in, channels_out // groups
        module.weight = _cut(module.weight, first, second)
        module.in_channels, module.out_channels, module.groups = channels_in, channels_out, groups
    elif isinstance(module, nn.Linear):
        module.weight = _cut(module.weight, channels_out, channels_in)
        module.in_features, module.out_features = channels_in, channels_out
    elif isinstance(module, NORMS):
        for name in ("running_mean", "running_var"):
            if (statistics := getattr(module, name)) is not None:
                setattr(module, name, statistics[:channels_out].clone())
        if module.affine:
            module.weight = _cut(module.weight, channels_out)
        module.num_features = channels_out
    elif isinstance(module, nn.PReLU):
        module.weight = _cut(module.weight, channels_out)
        module.num_parameters = channels_out
    bias = getattr(module, "bias", None)
    if isinstance(bias, nn.Parameter):
        module.bias = _cut(bias, channels_out)


def _cut(tensor: Tensor, *sizes: int) -> nn.Parameter:
    """Return the first numbers along each of the first axes as a parameter of their own."""
    kept = tensor.detach()[tuple(slice(size) for size in sizes)].clone()
    return nn.Parameter(kept, requires_grad=tensor.requires_grad)
