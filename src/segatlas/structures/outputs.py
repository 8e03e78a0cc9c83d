"""What networks return, by type: a criterion and a postprocess are written for each of these types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


class Resample(NamedTuple):
    """How logits are upsampled to the canvas: a fact of the published network, kept in config and card.

    mode: of torch's `interpolate`; of masks over the canvas also "aligned", see `ops.upsampling.upsample_aligned`.
    """

    mode: str = "bilinear"
    align_corners: bool = False


class PointLogits(NamedTuple):
    """Logits at single points of the canvas, for a loss on these points alone.

    logits: (N, K, P) float, before softmax.
    points: (N, P, 2) float, x and y as fractions of the canvas' width and height, 0..1.
    """

    logits: Tensor
    points: Tensor


class PatchAttention(NamedTuple):
    """How much patches of the image attend to patches of a map of features, class by class, in two factors.

    Patches are P x P, side by side, row by row. The attention itself, (N, K, I, F), is image @ features^T / P^2; it is
    seldom made, for it may be larger than everything else: see `ops.patches`.

    image: (N, K, I, P^2) float, none below 0, of each patch of the image. features: (N, K, F, P^2) likewise, of each
    patch of the map.
    side: P, pixels or cells along a side.
    stride: pixels of the canvas along a side of a cell of the map.
    cells: (h, w) of the map.
    border: "pad" or "drop", what happens to patches that are not full: they go on with zeros, or they are left out.
    """

    image: Tensor
    features: Tensor
    side: int
    stride: int
    cells: tuple[int, int]
    border: Literal["pad", "drop"]


class SemanticLogits(NamedTuple):
    """Output of a semantic network.

    logits: (N, K, h, w) float, before softmax, at the network's own stride.
    canvas: (H', W') pixels that the logits cover; larger than the input where the network padded right and bottom.
    resample: how the last upsampling from (h, w) to the canvas is done.
    aux: further (N, K, h', w') logits over the same canvas, or logits at points of it, or attention between patches, by
        name, for losses; empty in eval mode.
    """

    logits: Tensor
    canvas: tuple[int, int]
    resample: Resample = Resample()
    aux: Mapping[str, Tensor | PointLogits | PatchAttention] = {}


class CentersAndOffsets(NamedTuple):
    """Output of a network that finds objects by their centres: with `foreground` objects, with `semantic` segments.

    centers: (N, 1, h, w) float, "the centre of an object is here": logits with `foreground`; with `semantic` the value
        itself, which was learned as such and is 1 at a centre.
    offsets: (N, 2, h, w) float, from each pixel to the centre of its object: rows down, columns right, in pixels of the
        canvas.
    foreground: (N, K, h, w) float, logits of "this pixel belongs to an object of class k"; None with `semantic`.
    canvas, resample: as in `SemanticLogits`.
    aux: as there.
    semantic: (N, K, h, w) float, logits of the class of each pixel, things and stuff, before softmax; None with
        `foreground`.
    """

    centers: Tensor
    offsets: Tensor
    foreground: Tensor | None
    canvas: tuple[int, int]
    resample: Resample = Resample()
    aux: Mapping[str, Tensor] = {}
    semantic: Tensor | None = None


class DetectedMasks(NamedTuple):
    """Output of a network that finds boxes and a mask in each.

    boxes: one (D, 4) float an image: x0, y0, x1, y1 in pixels of the canvas. scores: one (D,) float an image, 0..1.
    labels: one (D,) int64 an image, 0..K-1; of a network with `semantic` they count the classes of things alone.
    mask_logits: one (D, m, m) float an image, laid over the box, or (D, h, w) over the canvas, as `frame` says.
    canvas: (H', W') pixels that boxes and maps refer to. resample: as in `SemanticLogits`, of `semantic` and of masks
        over the canvas.
    frame: "box" or "canvas", what the masks cover.
    semantic: (N, S, h, w) float, logits of the classes of stuff in their order and of "any thing", which is the first
        or the last as the card's `objects.other` says; None = the network gives none.
    raw: what the network had in between, by name, for losses and for comparisons: RPN maps by level ("rpn_scores",
        "rpn_deltas"), "proposals", "box_logits", "box_deltas", "mask_logits" and so on. Results are not made of it.
    """

    boxes: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    mask_logits: tuple[Tensor, ...]
    canvas: tuple[int, int]
    resample: Resample = Resample()
    frame: Literal["box", "canvas"] = "box"
    semantic: Tensor | None = None
    raw: Mapping[str, Any] = {}

    @property
    def aux(self) -> Mapping[str, Tensor]:
        """Auxiliary logits: there are none; what losses need besides is in `raw`."""
        return {}


class QueryLayer(NamedTuple):
    """What one layer of a decoder of queries predicts.

    class_logits: (N, Q, K + 1) float, before softmax; the last is "none of them".
    mask_logits: (N, Q, h, w) float, before the sigmoid.
    """

    class_logits: Tensor
    mask_logits: Tensor


class QueryMasks(NamedTuple):
    """Output of a network of Q queries, each of which gives a class and a mask; results of all tasks are made of it.

    class_logits: (N, Q, K + 1) float, before softmax; the last is "none of them".
    mask_logits: (N, Q, h, w) float, before the sigmoid, at the network's own stride.
    canvas, resample: as in `SemanticLogits`, of the masks.
    aux: what earlier layers of the decoder predict, the first layer first, by name: "layer_0", "layer_1" and so on. For
        losses; empty in eval mode.
    """

    class_logits: Tensor
    mask_logits: Tensor
    canvas: tuple[int, int]
    resample: Resample = Resample()
    aux: Mapping[str, QueryLayer] = {}

    @property
    def layers(self) -> tuple[QueryLayer, ...]:
        """What each layer predicts, that of the last one, which results are made of, at the end."""
        return (*self.aux.values(), QueryLayer(self.class_logits, self.mask_logits))


Output = SemanticLogits | CentersAndOffsets | DetectedMasks | QueryMasks
OutputType = TypeVar("OutputType", bound=Output)


def maps_of(output: Output) -> dict[str, Tensor]:
    """Return an output's own maps by name, those that results are made of; auxiliary ones are not among them.

    Of a field with a tensor for each image each has its number behind the name; whole numbers, such as labels, are no
    maps.
    """
    found: dict[str, Tensor] = {}
    for name, value in output._asdict().items():
        if _is_map(value):
            found[name] = value
        elif isinstance(value, tuple):
            found |= {f"{name}.{index}": one for index, one in enumerate(value) if _is_map(one)}
    return found


def further_maps(output: Output) -> dict[str, Tensor]:
    """Return by name what an output has for losses besides its own maps; several tensors have their names behind it.

    Of `PointLogits` these are the logits, of a layer of queries "layer_0.class_logits" and "layer_0.mask_logits", of
    `PatchAttention` "attention.image" and "attention.features", of a tuple the parts by number.
    """
    found: dict[str, Tensor] = {}
    for name, value in (output.raw if isinstance(output, DetectedMasks) else output.aux).items():
        if isinstance(value, PointLogits):
            found[name] = value.logits
        elif isinstance(value, PatchAttention):
            found |= {f"{name}.image": value.image, f"{name}.features": value.features}
        elif isinstance(value, QueryLayer):
            found |= {f"{name}.{part}": one for part, one in value._asdict().items()}
        elif isinstance(value, tuple):
            found |= {f"{name}.{index}": one for index, one in enumerate(value)}
        else:
            found[name] = value
    return found


def with_maps(output: OutputType, change: Callable[[Tensor], Tensor]) -> OutputType:
    """Return the output with each of its own maps changed."""
    changed: dict[str, Any] = {}
    for name, value in output._asdict().items():
        if _is_map(value):
            changed[name] = change(value)
        elif isinstance(value, tuple) and any(map(_is_map, value)):
            changed[name] = tuple(change(one) if _is_map(one) else one for one in value)
    replaced: OutputType = output._replace(**changed)  # type: ignore[assignment]
    return replaced


def _is_map(value: Any) -> bool:
    from torch import Tensor

    return isinstance(value, Tensor) and value.is_floating_point()
