"""Views added by the exponentials of their logits, step by step as code that descends from HRNet's publishes it.

The logits of a view are upsampled to the view's own size and become exponentials there; these are upsampled to the
image's size and added. A view larger than the image is seen in tiles of the image's size, whose exponentials are
averaged where they overlap.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segatlas.inference.sliding import Network, Pixels, Windows, run_row, upright_grid
from segatlas.inference.tta import MOST_EXPONENT, View
from segatlas.ops.sampling import make_axis
from segatlas.ops.upsampling import resample


class ExponentialRows:
    """The exponentials of a view, by rows at the result's size; all of them are held at the view's size."""

    def __init__(
        self,
        pixels: Pixels,
        tiles: Windows,
        network: Network,
        size: tuple[int, int],
        *,
        view: View,
        largest: Tensor | None = None,
        batch: int | None = None,
    ):
        """Run the network over a view.

        Args:
            pixels: the batch at the view's size.
            tiles: what the network is shown of it at once.
            network: maps windows to their logits.
            size: (H, W) of the rows given out.
            view: turns and flip of the tiles.
            largest: (N, 1, 1, 1), what is subtracted from all logits, in the precision of the sums; None = the largest
                of the first tile. The same for all views of an image, whose labels it does not change.
            batch: tiles per pass of the network.
        """
        self.size = size
        tops, lefts, side = upright_grid(pixels.size, tiles, view)
        total: Tensor | None = None
        hits = torch.zeros(pixels.size)
        for top in tops:
            for tile in run_row(pixels, network, top, lefts, side, batch, view):
                logits = tile.rows(0, side[0]).float()
                largest = _largest(logits) if largest is None else largest
                if total is None:
                    total = largest.new_zeros(*logits.shape[:2], *pixels.size)
                area = (..., slice(top, top + side[0]), slice(tile.left, tile.left + side[1]))
                total[area] += (logits - largest).clamp_(max=MOST_EXPONENT).exp_()
                hits[area] += 1
                self._align_corners = tile.output.resample.align_corners
        assert total is not None
        assert largest is not None
        self.largest = largest
        self._total = total.div_(hits.to(total.device))

    def sample(self) -> Tensor:
        """Return the exponentials at the view's size: their shape tells how many classes there are."""
        return self._total

    def rows(self, first: int, last: int) -> Tensor:
        """Return rows first..last - 1 at the result's size, (N, K, last - first, W)."""
        axes = [
            make_axis(
                before, after, align_corners=self._align_corners, dtype=self._total.dtype, device=self._total.device
            )
            for before, after in zip(self._total.shape[-2:], self.size, strict=True)
        ]
        return resample(resample(self._total, 2, axes[0].part(first, last)), 3, axes[1])


def _largest(logits: Tensor) -> Tensor:
    """Return each image's largest logit, (N, 1, 1, 1); in float64 where pixels differ by more than float32 holds."""
    best = logits.amax(dim=1, keepdim=True)
    largest = best.amax((2, 3), keepdim=True)
    wide = float((largest - best).max()) > MOST_EXPONENT and logits.device.type != "mps"  # which has no float64
    return largest.double() if wide else largest
