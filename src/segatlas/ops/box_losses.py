"""What boxes say of masks: their projections on rows and columns, and pairs of pixels of one colour (Tian et al. 2021).

Letters: N batch, S masks, K classes, h w a map over the canvas, 8 neighbours of a pixel at a distance of `dilation`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 1e-5
"""Added to the squares below the Dice coefficient of a projection."""

WHITE = (0.95047, 1.0, 1.08883)
"""X, Y, Z of the white of daylight, D65."""

XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""X, Y, Z of linear sRGB."""

OUTSIDE = -30.0
"""Logit of a mask outside the box that it was drawn in."""


def lab_of(image: Tensor) -> Tensor:
    """Return L, a, b (N, 3, h, w) of an image of sRGB values 0..1; other than three channels count as grey."""
    if image.shape[1] != 3:
        image = image.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    image = image.clamp(0, 1)
    linear = torch.where(image > 0.04045, ((image + 0.055) / 1.055) ** 2.4, image / 12.92)
    matrix = image.new_tensor(XYZ_OF_RGB) / image.new_tensor(WHITE)[:, None]
    xyz = torch.einsum("xc,nchw->nxhw", matrix, linear)
    bent = torch.where(xyz > 0.008856, xyz.clamp(min=1e-12) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def neighbours(maps: Tensor, dilation: int) -> Tensor:
    """Return the eight neighbours (8, ..., h, w) of each pixel, 0 beyond the border."""
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (dilation,) * 4)
    steps = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return torch.stack(
        [padded[..., y * dilation : y * dilation + height, x * dilation : x * dilation + width] for y, x in steps]
    )


def color_similarity(lab: Tensor, valid: Tensor, dilation: int) -> Tensor:
    """Return exp(-|Lab_i - Lab_j| / 2) of each pixel and its neighbours, (N, 8, h, w); 0 where one is not valid."""
    apart = (neighbours(lab, dilation) - lab).square().sum(dim=2).sqrt()
    gate = neighbours(valid.to(lab), dilation) * valid.to(lab)
    return (torch.exp(-apart / 2) * gate).transpose(0, 1)


def projection_losses(probabilities: Tensor, boxes: Tensor) -> Tensor:
    """Return how much the projections of masks differ from those of their boxes, (S,): 0 where they are the same.

    One minus the Dice coefficient, with squares below, of the largest value of each row, and of each column.

    Args:
        probabilities: (S, h, w).
        boxes: (S, h, w) of 0 and 1.
    """
    total = probabilities.new_zeros(len(probabilities))
    for dim in (1, 2):
        found, wanted = probabilities.amax(dim=dim), boxes.amax(dim=dim)
        squares = found.square().sum(dim=1) + wanted.square().sum(dim=1) + SMALLEST
        total = total + 1 - 2 * (found * wanted).sum(dim=1) / squares
    return total


def pairwise_losses(logits: Tensor, dilation: int) -> Tensor:
    """Return -log of the probability that a pixel and its neighbour are both inside or both outside, (S, 8, h, w).

    logits: (S, h, w). Neighbours beyond the border count as nothing known, which costs nothing.
    """
    inside, outside = F.logsigmoid(logits), F.logsigmoid(-logits)
    both = torch.logaddexp(inside + neighbours(inside, dilation), outside + neighbours(outside, dilation))
    return -both.transpose(0, 1)


def class_pairwise_losses(log_probabilities: Tensor, dilation: int) -> Tensor:
    """Return -log of the probability that a pixel and its neighbour have one class, (N, 8, h, w).

    log_probabilities: (N, K, h, w).
    """
    height, width = log_probabilities.shape[-2:]
    padded = F.pad(log_probabilities, (dilation,) * 4)
    found = []
    for y in range(3):
        for x in range(3):
            if (y, x) != (1, 1):
                part = padded[..., y * dilation : y * dilation + height, x * dilation : x * dilation + width]
                found.append(-(log_probabilities + part).logsumexp(dim=1))
    return torch.stack(found, dim=1)


def pasted(masks: Tensor, boxes: Tensor, canvas: tuple[int, int], stride: int, outside: float) -> Tensor:
    """Return masks (S, m, m) that lie over boxes on a map over the canvas, (S, h, w), bilinearly; `outside` elsewhere.

    Args:
        masks: whose samples are the middles of m x m cells of the box.
        boxes: (S, 4) x0, y0, x1, y1 in pixels of the canvas.
        canvas: (H', W').
        stride: pixels of the canvas that a pixel of the map has a side.
        outside: what stands beyond the box.
    """
    height, width = (-(-side // stride) for side in canvas)
    begin, size = boxes[:, :2], (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    x = (torch.arange(width, device=masks.device).to(masks) + 0.5) * stride
    y = (torch.arange(height, device=masks.device).to(masks) + 0.5) * stride
    across = 2 * (x[None] - begin[:, :1]) / size[:, :1] - 1  # (S, w), -1..1 inside the box
    down = 2 * (y[None] - begin[:, 1:]) / size[:, 1:] - 1
    grid = torch.stack(
        [across[:, None].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)], dim=-1
    )  # (S, h, w, 2)
    drawn = F.grid_sample(masks[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    inside = (grid.abs() <= 1).all(dim=-1)
    return torch.where(inside, drawn, drawn.new_full((), outside))
