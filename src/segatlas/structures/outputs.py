"""What networks return, by type: a criterion and a postprocess are written for each of these types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


class Resample(NamedTuple):
    """How logits are upsampled to the canvas: a fact of the published network, kept in config and card."""

    mode: str = "bilinear"
    align_corners: bool = False


class PointLogits(NamedTuple):
    """Logits at single points of the canvas, for a loss on these points alone.

    logits: (N, K, P) float, before softmax.
    points: (N, P, 2) float, x and y as fractions of the canvas' width and height, 0..1.
    """

    logits: Tensor
    points: Tensor


class SemanticLogits(NamedTuple):
    """Output of a semantic network.

    logits: (N, K, h, w) float, before softmax, at the network's own stride.
    canvas: (H', W') pixels that the logits cover; larger than the input where the network padded right and bottom.
    resample: how the last upsampling from (h, w) to the canvas is done.
    aux: further (N, K, h', w') logits over the same canvas, or logits at points of it, by name, for losses; empty in
        eval mode.
    """

    logits: Tensor
    canvas: tuple[int, int]
    resample: Resample = Resample()
    aux: Mapping[str, Tensor | PointLogits] = {}


class CentersAndOffsets(NamedTuple):
    """Output of a network that finds objects by their centres.

    centers: (N, 1, h, w) float, logits of "the centre of an object is here".
    offsets: (N, 2, h, w) float, from each pixel to the centre of its object: rows down, columns right, in pixels of the
        canvas.
    foreground: (N, K, h, w) float, logits of "this pixel belongs to an object of class k".
    canvas, resample: as in `SemanticLogits`.
    aux: as there.
    """

    centers: Tensor
    offsets: Tensor
    foreground: Tensor
    canvas: tuple[int, int]
    resample: Resample = Resample()
    aux: Mapping[str, Tensor] = {}


Output = SemanticLogits | CentersAndOffsets
OutputType = TypeVar("OutputType", bound=Output)


def maps_of(output: Output) -> dict[str, Tensor]:
    """Return an output's own maps by name, those that results are made of; auxiliary ones are not among them."""
    from torch import Tensor

    return {name: value for name, value in output._asdict().items() if isinstance(value, Tensor)}


def with_maps(output: OutputType, change: Callable[[Tensor], Tensor]) -> OutputType:
    """Return the output with each of its own maps changed."""
    changed: dict[str, Any] = {name: change(value) for name, value in maps_of(output).items()}
    replaced: OutputType = output._replace(**changed)  # type: ignore[assignment]
    return replaced
