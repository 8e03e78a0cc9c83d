"""Muon: a step of a hidden weight has singular values that are all alike; what is no such weight has AdamW's step.

K. Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024; J. Liu et al., Muon is Scalable for
LLM Training, arXiv:2502.16982, 2025, for the size of a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.training.own_steps import OwnSteps

LEAST_CHANNELS = 8
"""A weight that reads or gives fewer channels is no hidden one: pixels come in, or scores go out."""
QUINTIC = (3.4445, -4.7750, 2.0315)
"""a s + b s^3 + c s^5 carries singular values toward 1, small ones fast."""
STEPS = 5
LEAST_NORM = 1e-7
"""A matrix of a smaller norm is not brought to full size, as in torch's own."""
NOT_HIDDEN = ("classifier", "aux", "presence")
"""What a part of the name of a layer begins with that gives classes, or is trained to help others along."""
SIZE = 0.2
"""Root mean square of a step over the learning rate: about that of AdamW, whose rates and decay then fit."""


class Muon(OwnSteps):
    """Momentum made orthogonal where a group is `orthogonal`, AdamW elsewhere.

    m = momentum * m + g; u = g + momentum * m, as a matrix with a row for each channel that comes out (goes in, where
    a convolution is transposed); parameter -= lr * (0.2 sqrt(max(rows, columns)) orthogonal(u) + decay * parameter).
    Where all of g is 0, as in a head without an object, only weight decay moves the parameter.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, momentum: float = 0.9, betas: tuple[float, float] = (0.9, 0.999)
    ):
        """Take parameters or groups of them; `orthogonal` and `weight_decay` of a group are False and 0 by default."""
        given = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": 0.0, "orthogonal": False}
        super().__init__(params, given)

    def move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """See `OwnSteps`."""
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        step = self._move_matrix if group["orthogonal"] else self._move_other
        step(parameter, gradient, group)

    def _move_matrix(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        mean = state["momentum"].mul_(group["momentum"]).add_(gradient)
        matrix = gradient.add(mean, alpha=group["momentum"]).mul_(gradient.any()).flatten(1)
        step = orthogonal(matrix).view_as(parameter)
        parameter.add_(step, alpha=-group["lr"] * SIZE * max(matrix.shape) ** 0.5)

    def _move_other(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            state["steps"] = 0
            state["mean"], state["mean_square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["steps"] += 1
        mean = state["mean"].lerp_(gradient, 1 - first)
        square = state["mean_square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (square / (1 - second ** state["steps"])).sqrt_().add_(1e-8)
        parameter.addcdiv_(mean, root, value=-group["lr"] / (1 - first ** state["steps"]))


def orthogonal(matrix: Tensor) -> Tensor:
    """Return the matrix (R, C) with singular values of 0.7 to 1.2, except for such as are far below its largest one.

    Five steps of Newton and Schulz with a quintic, taken on the small square matrix X X^T: they multiply X from the
    left by a polynomial of it, which is all that has to be known of them. A matrix of zeros stays as it is.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=LEAST_NORM)
    a, b, c = QUINTIC
    square, product = wide @ wide.T, torch.eye(wide.shape[0], dtype=matrix.dtype, device=matrix.device)
    for step in range(STEPS):
        factor = torch.addmm(square, square, square, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product if step else factor
        if step < STEPS - 1:
            square = factor @ square @ factor
    wide = product @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def hidden_weights(net: nn.Module) -> set[int]:
    """Return the ids of the weights of convolutions and linear layers that take features and give features.

    Those that read or give few channels, convolutions by groups, classifiers and auxiliary heads are none.
    """
    found = set()
    for name, module in net.named_modules():
        if any(part.startswith(NOT_HIDDEN) for part in name.split(".")):
            continue
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.groups == 1):
            weight = module.weight
            if min(weight.shape[:2]) >= LEAST_CHANNELS:
                found.add(id(weight))
    return found
