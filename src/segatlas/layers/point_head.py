"""Points of maps: where they lie, what maps show there, and the small network of PointRend that classifies each.

Paper: Kirillov et al. 2020, "PointRend: Image Segmentation as Rendering", https://arxiv.org/abs/1912.08193.

Letters: N maps, C channels, K classes, P points of a map, R boxes of a batch, D channels of a pyramid's level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PointHead(nn.Module):
    """The same small network at every point: each layer sees the coarse logits again.

    Args:
        in_channels: features of a point.
        channels: width of the layers.
        num_classes: K.
        layers: before the classifier.
        dropout: fraction of channels dropped before the classifier while training.
        std: of the classifier's first weights.
    """

    def __init__(
        self, in_channels: int, channels: int, num_classes: int, *, layers: int, dropout: float = 0.0, std: float = 0.01
    ):
        super().__init__()
        widths = [in_channels, *[channels] * layers]
        self.layers = nn.ModuleList(nn.Conv1d(width + num_classes, channels, 1) for width in widths[:-1])
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv1d(widths[-1] + num_classes, num_classes, 1)
        for layer in (*self.layers, self.classifier):
            nn.init.normal_(layer.weight, std=std if layer is self.classifier else (2 / layer.out_channels) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Map features (N, in_channels, P) and coarse logits (N, K, P) of points to logits (N, K, P)."""
        x = fine
        for layer in self.layers:
            x = F.relu(layer(torch.cat([x, coarse], dim=1)), inplace=True)
        logits: Tensor = self.classifier(self.dropout(torch.cat([x, coarse], dim=1)))
        return logits


def pixel_centres(index: Tensor, height: int, width: int) -> Tensor:
    """Map flat pixel indices (N, P) of a map to the pixels' centres (N, P, 2): x and y, 0..1."""
    x = (index % width).float() / width + 0.5 / width
    y = index.div(width, rounding_mode="floor").float() / height + 0.5 / height
    return torch.stack([x, y], dim=2)


def sample(x: Tensor, points: Tensor, *, align_corners: bool) -> Tensor:
    """Read a map (N, C, h, w) at points (N, P, 2), x and y in 0..1, bilinearly; zero outside. Returns (N, C, P)."""
    precise = torch.promote_types(x.dtype, points.dtype)  # half precision is too coarse for places in a map
    grid = (2 * points - 1).unsqueeze(2).to(precise)
    return F.grid_sample(x.to(precise), grid, mode="bilinear", align_corners=align_corners).squeeze(3)


def points_on_image(points: Tensor, boxes: Tensor) -> Tensor:
    """Map points (R, P, 2), x and y as fractions of their boxes (R, 4), to pixels of the canvas (R, P, 2)."""
    return points * (boxes[:, None, 2:] - boxes[:, None, :2]) + boxes[:, None, :2]


def sample_in_boxes(x: Tensor, boxes: Sequence[Tensor], points: Tensor, *, stride: int) -> Tensor:
    """Read a level of a pyramid inside boxes, bilinearly; zero beyond it. Returns (R, D, P).

    Args:
        x: (N, D, h, w).
        boxes: (B, 4) of each image, R together.
        points: (R, P, 2), x and y as fractions of each box.
        stride: pixels of the canvas from cell to cell.
    """
    size = points.new_tensor([x.shape[3], x.shape[2]]) * stride
    found = []
    for image, box, inside in zip(x, boxes, points.split([len(one) for one in boxes]), strict=True):
        places = (points_on_image(inside, box) / size).flatten(0, 1)
        found.append(sample(image[None], places[None], align_corners=False)[0].unflatten(1, inside.shape[:2]))
    return torch.cat(found, dim=1).transpose(0, 1)
