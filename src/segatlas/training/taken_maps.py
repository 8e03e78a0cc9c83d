"""Maps inside a network by name, taken while it runs: what distillation compares.

Names: "decoded", the map before the classifier; "features.16", the deepest of the encoder's maps at stride 16; else a
layer's, those of torch's `named_modules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from segatlas.config.distillation import DECODED, FEATURES, LOGITS
from segatlas.config.messages import unknown
from segatlas.encoders.contract import PyramidEncoder, TokenEncoder, Tokens
from segatlas.errors import UsageError

Size = tuple[int, int]


def encoder_strides(net: nn.Module) -> tuple[int, ...]:
    """Return the strides of the encoder's maps, each once, finest first; () of a network without such an encoder."""
    encoder = getattr(net, "encoder", None)
    if isinstance(encoder, TokenEncoder):
        return (encoder.patch_size,)
    return tuple(sorted(set(encoder.strides))) if isinstance(encoder, PyramidEncoder) else ()


def check_name(net: nn.Module, name: str) -> None:
    """Raise UsageError, naming the nearest one, where a network has no map of this name."""
    if name.startswith(f"{FEATURES}."):
        strides, wanted = encoder_strides(net), name.removeprefix(f"{FEATURES}.")
        if wanted not in map(str, strides):
            has = f"has maps at strides {', '.join(map(str, strides))}" if strides else "names no maps"
            raise UsageError(f"{name}: the encoder of {_called(net)} {has}")
        return
    layers = [one for one, _ in net.named_modules() if one]
    has_classifier = isinstance(getattr(net, "classifier", None), nn.Module)
    if name == DECODED:
        if not has_classifier:
            raise UsageError(f"{name}: {_called(net)} has no classifier that a map goes into; name a layer")
    elif has_classifier and name == _path_of(net, "classifier"):
        raise UsageError(f"{name}: what it gives are the logits, whose classes are found by name; write '{LOGITS}'")
    elif name not in layers:
        raise UsageError(f"{name}: {unknown(f'layer of {_called(net)}', name, [DECODED, FEATURES, *layers])}")


@contextmanager
def taken(net: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Take the maps of these names while the network runs once inside; they are in the dictionary afterwards.

    Gradients go through them. What a network changes in place later is not changed in what was taken.

    Raises:
        UsageError: what a name means is no map (N, C, h, w), or did not run once.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [_watch(net, name, found[name]) for name in names]
    maps: dict[str, Tensor] = {}
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
    for name, tensors in found.items():
        if len(tensors) != 1:
            times = f"{len(tensors)} times" if tensors else "never"
            raise UsageError(f"{name}: it runs {times} in a pass of {_called(net)}, expected once; take another layer")
        maps[name] = tensors[0]


def _watch(net: nn.Module, name: str, into: list[Tensor]) -> RemovableHandle:
    if name == DECODED:
        return net.get_submodule(_path_of(net, "classifier")).register_forward_pre_hook(
            lambda module, given: into.append(_a_map(given[0], module, name).clone())
        )
    if name.startswith(f"{FEATURES}."):
        stride = int(name.removeprefix(f"{FEATURES}."))
        encoder = net.get_submodule(_path_of(net, "encoder"))
        return encoder.register_forward_hook(_of_stride(stride, into))
    return net.get_submodule(name).register_forward_hook(
        lambda module, given, output: into.append(_a_map(output, module, name).clone())
    )


def _of_stride(stride: int, into: list[Tensor]) -> Callable[..., None]:
    def take(encoder: Any, given: Any, output: Any) -> None:
        if isinstance(output, Tokens):
            into.append(output.maps()[-1].clone())
        else:
            deepest = max(index for index, one in enumerate(encoder.strides) if one == stride)
            into.append(output[deepest].clone())

    return take


def _path_of(net: nn.Module, part: str) -> str:
    """Return the name of the layer that a network calls its encoder or classifier; of a wrapper it is in its host."""
    wanted = getattr(net, part)
    return next(name for name, module in net.named_modules() if module is wanted)


def _a_map(value: Any, layer: nn.Module, name: str) -> Tensor:
    """Return what a layer gives or is given, where it is a map with its channels first."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim != 4:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UsageError(f"{name}: it gives {what}, expected a map (N, C, h, w); take another layer")
    return value


def covers(grid: Size, canvas: Size) -> bool:
    """Tell whether a map's grid may cover a canvas: its cells are about squares. Of one cell a side may have any part.

    A map whose channels come last, or one that is none of the image, has other sides.
    """
    low = max(side / (cells + 1) for side, cells in zip(canvas, grid, strict=True))
    high = min(side / (cells - 1) if cells > 1 else math.inf for side, cells in zip(canvas, grid, strict=True))
    return low < high


def covered(name: str, maps: Tensor, canvas: Size) -> Size:
    """Return the (H, W) pixels that a map covers: whole cells of its stride, where its name tells it, else the canvas.

    A last cell may reach beyond the canvas, where the encoder rounds up what it was given.
    """
    if not name.startswith(f"{FEATURES}."):
        return canvas
    stride = int(name.removeprefix(f"{FEATURES}."))
    height, width = (
        cells * stride if -(-side // stride) == cells else side
        for cells, side in zip(maps.shape[-2:], canvas, strict=True)
    )
    return height, width


def _called(net: nn.Module) -> str:
    return str(getattr(net, "architecture", type(net).__name__))
