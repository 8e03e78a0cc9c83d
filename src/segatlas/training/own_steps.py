"""What our own optimisers have in common: a step moves one parameter after another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class OwnSteps(torch.optim.Optimizer):
    """An optimiser that says how one parameter moves."""

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
                    self.move(parameter, parameter.grad, group)
        return loss

    @abstractmethod
    def move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Move a parameter by the settings of its group; what is to be known at the next step goes into `state`."""
