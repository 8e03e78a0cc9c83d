"""Thin-plate splines: the smoothest warp that takes given points to given points.

Papers: Bookstein 1989, "Principal Warps", https://doi.org/10.1109/34.24792; for networks Wu et al. 2024, "KF-VTON",
https://doi.org/10.1145/3673903, and Siarohin et al. 2019, https://arxiv.org/abs/2003.00196 (the random ones).

Points are (x, y) in -1..1 over an image, where -1 and 1 are the centres of its outermost pixels (`align_corners=True`
of `grid_sample`); points beyond are allowed everywhere. A spline takes points of the image that is made to points of
the image that is sampled.

All is computed in float32 at least, whatever the autocast around it; gradients reach points, values and weights.

Letters: ... any dimensions in front, such as batch and groups, n control points, Q points asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.ops.capture import larger
from segatlas.ops.full_precision import in_full_precision

SMALL = 1e-9
ON_A_LINE = 1e-8
"""Below this (squared) ratio of their spreads points lie on one line, whose affine part is not determined."""
COINCIDE = 1e-10
"""Squared distance below which two control points are one."""

SPREAD, BEND, LATTICE = 0.05, 0.005, 6
"""Of random splines: deviation of the affine part, of the weights, and control points a side, as published."""


class ThinPlate(NamedTuple):
    """A spline: f(q) = q A + sum of w_i U(|q - c_i|), U(r) = r^2 log r^2.

    points: (..., n, 2), the control points c. weights: (..., n, 2), w. affine: (..., 3, 2): the rows that x, y and 1
    are multiplied by.
    """

    points: Tensor
    weights: Tensor
    affine: Tensor

    def __call__(self, queries: Tensor) -> Tensor:
        """Map points (..., Q, 2), whose leading dimensions broadcast with the spline's, to points (..., Q, 2)."""
        with in_full_precision(self.points):
            queries = _precise(queries)
            bent = _kernel(queries, self.points) @ self.weights
            out: Tensor = queries @ self.affine[..., :2, :] + self.affine[..., 2:, :] + bent
        return out

    def grid(self, size: tuple[int, int]) -> Tensor:
        """Return where each pixel of an image of (height, width) is sampled: (..., H, W, 2), for `grid_sample`."""
        at = pixel_points(size, self.points)
        return self(at.flatten(0, 1)).unflatten(-2, at.shape[:2])


def fit(points: Tensor, values: Tensor, regularisation: float = 0.0) -> ThinPlate:
    """Return the spline that takes control points to values.

    Args:
        points: (..., n, 2), n of 3 at least.
        values: (..., n, 2), where they go.
        regularisation: 0 = exactly there; above, the spline is smoother and passes near them. It stands on the
            diagonal of the points' own block, so what is affine, the identity too, is met exactly in any case.

    Raises:
        UsageError: the points of a spline lie on one line or are not finite, or two of them coincide and
            `regularisation` is 0.
    """
    points, values = _precise(points), _precise(values)
    sound = solvable(points, regularisation)
    if not sound.all():
        at = tuple((~sound).nonzero()[0].tolist())
        where = f" of spline {', '.join(map(str, at))}" if at else ""
        raise UsageError(
            f"thin-plate spline: the control points{where} lie on one line, are not finite, or coincide; "
            "expected three at least that span the plane, and regularisation above 0 where two coincide"
        )
    return _solved(points, values, regularisation)


def fit_or_identity(points: Tensor, values: Tensor, regularisation: float) -> ThinPlate:
    """Do as `fit`, but return the identity, without a gradient, in place of each spline that cannot be determined.

    For networks, whose predicted points may meet by chance. `regularisation` is above 0.
    """
    points, values = _precise(points), _precise(values)
    sound = (solvable(points, regularisation) & values.isfinite().all(-1).all(-1))[..., None, None]
    spare = _spare_points(points)
    return _solved(torch.where(sound, points, spare), torch.where(sound, values, spare), regularisation)


def fit_as_published(points: Tensor, values: Tensor, ridge: float = 0.01) -> ThinPlate:
    """Return KF-VTON's spline, which has `ridge` on the diagonal of the whole system: even the identity is inexact."""
    return _solved(_precise(points), _precise(values), ridge, whole=True)


def solvable(points: Tensor, regularisation: float = 0.0) -> Tensor:
    """Tell for control points (..., n, 2) whether they determine a spline: (...) bool."""
    with torch.no_grad():
        x, y = (points - points.mean(dim=-2, keepdim=True)).unbind(-1)
        along, across, mixed = x.square().sum(-1), y.square().sum(-1), (x * y).sum(-1)
        spans = along * across - mixed.square() > ON_A_LINE * (along + across).square()
        if regularisation > 0:
            return spans
        count = points.shape[-2]
        apart = _squared_distances(points, points) + 4 * torch.eye(count, dtype=points.dtype, device=points.device)
        return spans & (apart > COINCIDE).all(-1).all(-1)


def _solved(points: Tensor, values: Tensor, ridge: float, *, whole: bool = False) -> ThinPlate:
    """Solve [[K + ridge I, P], [P^T, 0]] [w; t] = [values; 0]; with `whole` the ridge is on all of the diagonal."""
    with in_full_precision(points):
        count = points.shape[-2]
        one = torch.ones_like(points[..., :1])
        plane = torch.cat([points, one], dim=-1)  # (..., n, 3)
        corner = plane.new_zeros(*plane.shape[:-2], 3, 3)
        system = torch.cat(
            [
                torch.cat([_kernel(points, points), plane], dim=-1),
                torch.cat([plane.transpose(-1, -2), corner], dim=-1),
            ],
            dim=-2,
        )
        ridged = torch.arange(count + 3, device=points.device) < (count + 3 if whole else count)
        system = system + ridge * torch.diag(ridged.to(points.dtype))
        wanted = F.pad(values, (0, 0, 0, 3))
        solution = torch.linalg.solve(system, wanted)
    return ThinPlate(points, solution[..., :count, :], solution[..., count:, :])


def random_plate(count: int, like: Tensor, generator: Generator | None = None) -> ThinPlate:
    """Return `count` random splines near the identity: a regularity that keypoints have to follow.

    As published: a 6 x 6 lattice of control points with one weight each, that moves x and y alike.

    Args:
        count: N, the only leading dimension.
        like: a tensor of the device, and of the type if that is float64.
        generator: None = torch's own.
    """
    dtype, device = _precise(like).dtype, like.device
    points = lattice_points(LATTICE, 1.0, _precise(like))
    noise = torch.randn(count, 3, 2, generator=generator, dtype=dtype, device=device)
    weights = BEND * torch.randn(count, len(points), 1, generator=generator, dtype=dtype, device=device)
    affine = torch.eye(3, 2, dtype=dtype, device=device) + SPREAD * noise
    return ThinPlate(points.expand(count, -1, -1), weights.expand(-1, -1, 2), affine)


def pixel_points(size: tuple[int, int], like: Tensor) -> Tensor:
    """Return the points (x, y) of the pixels of an image of (height, width): (H, W, 2), of the type of `like`.

    The only row or column of an image lies at 0.
    """
    y, x = (
        (2 * torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1)) / larger(side - 1, 1)
        for side in size
    )
    return torch.stack([x.expand(size[0], -1), y.unsqueeze(1).expand(-1, size[1])], dim=-1)


def lattice_points(side: int, reach: float, like: Tensor) -> Tensor:
    """Return side^2 points (x, y) of a regular lattice over -reach..reach, row by row: (side^2, 2)."""
    return pixel_points((side, side), like).flatten(0, 1) * reach


def keypoints_of(heat: Tensor) -> Tensor:
    """Return where the heat of each map lies in the mean, its soft arg max: (N, J, h, w) logits -> (N, J, 2)."""
    with in_full_precision(heat):
        heat = _precise(heat)
        at = pixel_points((heat.shape[-2], heat.shape[-1]), heat)
        out: Tensor = heat.flatten(2).softmax(dim=-1) @ at.flatten(0, 1)
    return out


def heat_maps(points: Tensor, size: tuple[int, int], variance: float = 0.01) -> Tensor:
    """Return maps (..., H, W) of exp(-d^2 / (2 variance)), d the distance from points (..., 2)."""
    at = pixel_points(size, points)
    squared = (at - points[..., None, None, :]).square().sum(-1)
    return torch.exp(-squared / (2 * variance))


def warped(x: Tensor, grid: Tensor) -> Tensor:
    """Sample a map (N, C, h, w) bilinearly at the points of a grid (N, H, W, 2): (N, C, H, W). Edges go on beyond."""
    with in_full_precision(x):
        values = _precise(x)
        out = F.grid_sample(values, grid.to(values.dtype), mode="bilinear", padding_mode="border", align_corners=True)
    return out.to(x.dtype)


def _kernel(queries: Tensor, points: Tensor) -> Tensor:
    """Return U of the distances between (..., Q, 2) and (..., n, 2): (..., Q, n)."""
    squared = _squared_distances(queries, points)
    return squared * torch.log(squared + SMALL)


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    return (first.unsqueeze(-2) - second.unsqueeze(-3)).square().sum(-1)


def _spare_points(like: Tensor) -> Tensor:
    """Return n points that span the plane, (n, 2): on a circle."""
    turn = torch.arange(like.shape[-2], dtype=like.dtype, device=like.device) * (
        2 * torch.pi / larger(like.shape[-2], 1)
    )
    return torch.stack([torch.cos(turn), torch.sin(turn)], dim=-1)


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
