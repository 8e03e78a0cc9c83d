"""What a network makes of a second source: how it lays it over the image, and where it looks in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from segatlas.data.transforms import resize_image
from segatlas.drawing.heat import heat_overlay
from segatlas.drawing.maps import blend
from segatlas.drawing.warps import warped_lattice
from segatlas.errors import UsageError
from segatlas.explain.seeing import SeenImage
from segatlas.labels import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

    from segatlas.inference import Predictor
    from segatlas.inference.images import GivenImage, ImageLike

SURE = 0.5
"""A pixel has a class of a mask where that class has so much of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LaidSource:
    """How a network lays a source over an image, at the size of the network's input.

    image: (H, W, 3) uint8 RGB. points: (H, W, 2), the pixel (x, y) of the source that each pixel of the image shows.
    prior, warped_prior: (H, W) uint8 classes of the mask, as given and laid over the image, 255 = none; None where the
    network takes no mask. fractions: (splines + 1, H, W), what each spline has of `points`; the last is "as it is".
    """

    image: np.ndarray = field(repr=False)
    points: np.ndarray = field(repr=False)
    prior: np.ndarray | None = field(repr=False)
    warped_prior: np.ndarray | None = field(repr=False)
    fractions: np.ndarray = field(repr=False)


def laid_source(predictor: Predictor, image: GivenImage, sources: Mapping[str, ImageLike] | None = None) -> LaidSource:
    """Return how a network lays a source over an image.

    Args:
        predictor: of a network that aligns, such as `multisource`.
        image: as `Predictor.predict` takes it.
        sources: by name, where the image does not hold them itself.

    Raises:
        UsageError: the network does not align a source.
        DataError: as `Predictor.predict`.
    """
    import torch
    from torch.nn import functional as F

    net, seen = _network(predictor, "look"), SeenImage.of(predictor, image, sources)
    if net.aligner is None:
        raise UsageError("the network does not align its source: it was made with align = false")
    with torch.inference_mode():
        found = net.look(seen.inputs())
    height, width = found.output.canvas
    rows, columns = seen.crop
    flow = found.alignment.at((height, width))[0, :rows, :columns].float().cpu().numpy()
    points = (flow + 1) / 2 * np.array([max(width - 1, 1), max(height - 1, 1)])

    def of_input(maps: Tensor) -> Tensor:
        return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=True)[0, :, :rows, :columns]

    def classes(maps: Tensor | None) -> np.ndarray | None:
        if maps is None:
            return None
        most, index = of_input(maps).max(dim=0)
        return torch.where(most >= SURE, index, IGNORE).to(torch.uint8).cpu().numpy()

    return LaidSource(
        image=resize_image(seen.view, seen.crop),
        points=points,
        prior=classes(found.prior),
        warped_prior=classes(found.warped_prior),
        fractions=of_input(found.alignment.fractions).float().cpu().numpy(),
    )


def lattice_figure(laid: LaidSource) -> np.ndarray:
    """Return the image (H, W, 3) uint8 under the lines of a regular lattice of the source, as they come to lie."""
    return warped_lattice(laid.image, laid.points)


def prior_figure(laid: LaidSource, palette: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Return the image (H, 2 W, 3) uint8 twice, tinted with the mask as given and with the mask laid over it.

    Raises:
        UsageError: there is no mask.
    """
    if laid.prior is None or laid.warped_prior is None:
        raise UsageError("the network takes no mask: there is no prior to be drawn")
    tinted = [blend(laid.image, mask, palette) for mask in (laid.prior, laid.warped_prior)]
    return np.concatenate(tinted, axis=1)


def attention_map(
    predictor: Predictor,
    image: GivenImage,
    at: tuple[int, int],
    sources: Mapping[str, ImageLike] | None = None,
    stride: int = 16,
) -> np.ndarray:
    """Return where a pixel of the image looks in the source that is laid over it: (H, W) float32, 1 at the most.

    Args:
        predictor: of a network with co-attention, such as `multisource`.
        image: as `Predictor.predict` takes it.
        at: (row, column) of the pixel, in the network's input.
        sources: by name, where the image does not hold them itself.
        stride: of the maps that look at each other.

    Raises:
        UsageError: the network has no co-attention, or none at that stride, or the pixel lies outside.
        DataError: as `Predictor.predict`.
    """
    import torch
    from torch.nn import functional as F

    net, seen = _network(predictor, "attention"), SeenImage.of(predictor, image, sources)
    with torch.inference_mode():
        weights = net.attention(seen.inputs(), *at, stride=stride).float()
    rows, columns = seen.crop
    canvas = [-(-side // net.size_divisibility) * net.size_divisibility for side in (rows, columns)]
    heat = F.interpolate(weights[None], size=canvas, mode="bilinear")[0, 0, :rows, :columns]
    found: np.ndarray = (heat / heat.max().clamp(min=1e-12)).cpu().numpy()
    return found


def _network(predictor: Predictor, method: str) -> Any:
    """Return the predictor's network. UsageError where it has no such method."""
    net: Any = predictor.model
    if not hasattr(net, method) or not hasattr(net, "aligner"):
        name = predictor.card.architecture
        raise UsageError(f"{name} lays no second source over its image; a network that does is multisource")
    return net


def attention_figure(image: np.ndarray, heat: np.ndarray, at: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) uint8 in grey under the heat (H, W), a cross at the pixel (row, column) that looks."""
    drawn = heat_overlay(image, heat)
    size = max(2, max(drawn.shape[:2]) // 60)
    row, column = at
    drawn[row, max(0, column - size) : column + size + 1] = 255
    drawn[max(0, row - size) : row + size + 1, column] = 255
    return drawn
