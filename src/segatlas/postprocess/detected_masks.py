"""From boxes with masks to objects in the image's own size.

Letters: D detections, m cells of a mask a side, H W result.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.structures import DetectedMasks, Instance, Result

LEAST_PROBABILITY = 0.5
"""A pixel belongs to an object from this probability on."""


def instance(
    output: DetectedMasks, size: tuple[int, int], *, crop: tuple[int, int], confidence: bool = False
) -> list[Result]:
    """Return the objects of each image, by falling score; see `postprocess.Postprocess`. No confidence map is made."""
    scale = (size[0] / crop[0], size[1] / crop[1])
    factors = torch.tensor([scale[1], scale[0]] * 2)
    results = []
    for boxes, scores, labels, logits in zip(
        output.boxes, output.scores, output.labels, output.mask_logits, strict=True
    ):
        places = boxes.cpu() * factors
        found = []
        for box, score, label, mask in zip(places, scores.tolist(), labels.tolist(), logits.cpu(), strict=True):
            pixels = in_box(mask, box, size) if output.frame == "box" else over_canvas(mask, output, size, crop)
            found.append(Instance(mask=pixels.numpy(), class_index=label, score=score))
        results.append(Result(objects=tuple(sorted(found, key=lambda one: -one.score))))
    return results


def in_box(logits: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the pixels (H, W) bool that a mask (m, m) over a box (4,) covers."""
    out = torch.zeros(size, dtype=torch.bool)
    x0, y0, x1, y1 = box.tolist()
    left, top = max(int(x0) - 1, 0), max(int(y0) - 1, 0)
    right, bottom = min(int(x1) + 2, size[1]), min(int(y1) + 2, size[0])
    if right <= left or bottom <= top or x1 <= x0 or y1 <= y0:
        return out
    x = (torch.arange(left, right) + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (torch.arange(top, bottom) + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=2)
    shown = F.grid_sample(logits.sigmoid()[None, None].float(), grid[None], align_corners=False)[0, 0]
    out[top:bottom, left:right] = shown >= LEAST_PROBABILITY
    return out


def over_canvas(logits: Tensor, output: DetectedMasks, size: tuple[int, int], crop: tuple[int, int]) -> Tensor:
    """Return the pixels (H, W) bool that a mask (h, w) over the canvas covers."""
    whole = F.interpolate(logits.sigmoid()[None, None].float(), output.canvas, mode="bilinear", align_corners=False)
    shown = F.interpolate(whole[..., : crop[0], : crop[1]], size, mode="bilinear", align_corners=False)[0, 0]
    return shown >= LEAST_PROBABILITY
