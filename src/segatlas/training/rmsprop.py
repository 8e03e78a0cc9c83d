"""RMSProp as Lasagne and TensorFlow compute it: what keeps small gradients from being enlarged lies inside the root."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class RMSProp(torch.optim.Optimizer):
    """Each gradient is divided by the root of a running mean of its squares, which begins at 0.

    v = alpha * v + (1 - alpha) * g ** 2; parameter -= lr * g / sqrt(v + epsilon), where g is the gradient plus weight
    decay times the parameter. `torch.optim.RMSprop` adds its constant behind the root: with one of 1e-6 steps of small
    gradients are then up to a thousand times as large as here.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, alpha: float = 0.9, epsilon: float = 1e-6):
        """Take parameters or groups of them; `weight_decay` of a group is 0 where it has none."""
        super().__init__(params, {"lr": lr, "alpha": alpha, "epsilon": epsilon, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; return what `closure`, which computes the loss anew, gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state, gradient, alpha = self.state[parameter], parameter.grad, group["alpha"]
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if not state:
            state["mean_square"] = torch.zeros_like(parameter)
        mean = state["mean_square"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        parameter.addcdiv_(gradient, (mean + group["epsilon"]).sqrt_(), value=-group["lr"])
