"""RMSProp as Lasagne and TensorFlow compute it: what keeps small gradients from being enlarged lies inside the root."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from segatlas.training.own_steps import OwnSteps


class RMSProp(OwnSteps):
    """Each gradient is divided by the root of a running mean of its squares, which begins at 0.

    v = alpha * v + (1 - alpha) * g ** 2; parameter -= lr * g / sqrt(v + epsilon), where g is the gradient plus weight
    decay times the parameter. `torch.optim.RMSprop` adds its constant behind the root: with one of 1e-6 steps of small
    gradients are then up to a thousand times as large as here.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, alpha: float = 0.9, epsilon: float = 1e-6):
        """Take parameters or groups of them; `weight_decay` of a group is 0 where it has none."""
        super().__init__(params, {"lr": lr, "alpha": alpha, "epsilon": epsilon, "weight_decay": 0.0})

    def move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """See `OwnSteps`."""
        state, alpha = self.state[parameter], group["alpha"]
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if not state:
            state["mean_square"] = torch.zeros_like(parameter)
        mean = state["mean_square"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        parameter.addcdiv_(gradient, (mean + group["epsilon"]).sqrt_(), value=-group["lr"])
