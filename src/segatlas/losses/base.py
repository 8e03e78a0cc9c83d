"""What all losses share: the signature, the class weights, the mean over classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segatlas.errors import UsageError


class Loss(nn.Module):
    """A scalar from logits at the network's own stride and labels at full size.

    `loss(logits, labels, canvas=None, align_corners=False)`:

    - logits: (N, K, h, w) float; half precision is computed in float32.
    - labels: (N, H, W) uint8 or int64, 0..K-1 or 255 where a pixel has no label; such pixels count nowhere.
    - canvas: (H', W') pixels that the logits cover, H <= H' and W <= W'; the labels are its top left part. By default
      (H, W).
    - align_corners: how the logits are upsampled to the canvas, as in `torch.nn.functional.interpolate`.

    The result is float32 (float64 for float64 logits); without any labelled pixel it is 0 with zero gradient.
    UsageError if shapes do not fit together, a label is out of range, or there is not one class weight per class.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None):
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)  # a checkpoint holds only the network

    def weights_for(self, logits: Tensor) -> Tensor | None:
        """Return the class weights (K,) after checking that logits (N, K, h, w) have as many classes."""
        weights = self.class_weights
        if weights is not None and weights.shape != logits.shape[1:2]:
            raise UsageError(
                f"class_weights has {weights.numel()} numbers, but the network has {logits.shape[1]} classes"
            )
        return weights


def mean_over_classes(values: Tensor, present: Tensor, weights: Tensor | None) -> Tensor:
    """Return the (weighted) mean of values (K,) over the classes of the mask present (K,); 0 if there is none."""
    weight = present.to(values.dtype)
    if weights is not None:
        weight = weight * weights.to(values)
    total = weight.sum()
    return (values * weight).sum() / total.where(total > 0, torch.ones_like(total))
