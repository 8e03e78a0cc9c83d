"""Weights files as other libraries write them, made from our own small networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.build.network import create_model
from segatlas.conversion.converting import tensors_of

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "mmseg": (
        "segformer",
        {
            "decoder_channels": 16,
            "projection_norm": True,
            "encoder_options": {"norm_eps": 1e-6, "embedding_norm_eps": 1e-6},
        },
    ),
    "nvlabs": ("segformer", {"decoder_channels": 16}),
    "hf": ("segformer", {"decoder_channels": 16, "encoder_options": {"norm_eps": 1e-5, "embedding_norm_eps": 1e-5}}),
    "vit_adapter": ("upernet", {"encoder": "vit_adapter_w32", "channels": 8, "aux": True, "aux_channels": 8}),
    "smp": ("unet", {"encoder": "mit_b0", "decoder_channels": (16, 8, 8, 4, 4)}),
}
"""A small network that each library has: (architecture, fields)."""


def small_network(source: str, num_classes: int = 3, **fields: Any) -> nn.Module:
    """Make a library's small network with seeded weights and running statistics, in eval mode."""
    torch.manual_seed(0)
    architecture, own = SMALL[source]
    net = create_model(architecture, num_classes=num_classes, **{**own, **fields})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def foreign_state(source: str, net: nn.Module) -> dict[str, Tensor]:
    """Return a network's tensors as the library names them."""
    return tensors_of(source, net.architecture, net.config, net.state_dict())


def write_checkpoint(path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint of MMSegmentation's form; without meta, a bare state dict."""
    torch.save(dict(state) if meta is None else {"meta": dict(meta), "state_dict": dict(state)}, path)
    return path
