"""Random weights in which nothing is neutral."""

from __future__ import annotations

import torch


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Give every tensor values that a mix-up would show: timm begins with tokens of zero and scales of 1e-5."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and parameter.ndim == 1), std=0.05)
        if "gamma" in name or name.endswith(("token", "pos_embed")):
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()
