"""Optimisers and their parameter groups."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn

from segatlas.config.schema import OptimizerConfig
from segatlas.errors import UsageError
from segatlas.training.muon import Muon, hidden_weights
from segatlas.training.rmsprop import RMSProp

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
"""Kinds of norm layers: batch and instance norms have a base in common."""


class TrainedToo(NamedTuple):
    """Modules that are trained with the network and are no part of it, at this fraction of its learning rate."""

    modules: nn.Module
    lr_factor: float


def parameter_groups(
    net: nn.Module,
    config: OptimizerConfig,
    lr: float,
    *,
    encoder_apart: bool = False,
    too: TrainedToo | None = None,
) -> list[dict[str, Any]]:
    """Split the trainable parameters of `net` into groups of equal learning rate and weight decay.

    Norms and biases (tensors of at most one dimension) get no decay unless `decay_norms`, nor does what `no_decay`
    names, nor do the encoder's norm layers without `decay_encoder_norms`. Encoder parameters get
    lr * encoder_lr_factor * layer_decay ** depth_from_top, where depth counts the encoder's `stages()` from its last;
    it is 0 for what its `outside_stages()` holds. What `lr_factors` names gets lr times that, wherever it lies.
    For Muon no group has hidden weights and others; `orthogonal` of a group tells which it has.
    With `encoder_apart` no group has parameters of the encoder and others; `of_encoder` of a group tells which it has.
    What is trained `too` has groups of its own, behind all others, in which `too` is true.

    Raises:
        UsageError: no parameter has a name of `no_decay` or `lr_factors`.
    """
    factors, spared = _encoder_factors(net, config), _encoder_norms(net, config)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    for key, words in {"no_decay": config.no_decay, "lr_factors": tuple(config.lr_factors)}.items():
        for word in words:
            if not any(_is_called(name, word) for name in names.values()):
                raise UsageError(f"train.optimizer.{key}: no parameter of the network is called {word!r}")
    for word, stated in config.lr_factors.items():
        factors |= {number: stated for number, name in names.items() if _is_called(name, word)}
    encoder = getattr(net, "encoder", None) if encoder_apart else None
    apart = set() if encoder is None else {id(parameter) for parameter in encoder.parameters()}
    hidden = hidden_weights(net) if config.name == "muon" else set()
    groups: dict[tuple[float, float, bool, bool], dict[str, Any]] = {}
    for parameter in net.parameters():
        if not parameter.requires_grad:
            continue
        factor = factors.get(id(parameter), 1.0)
        named = any(_is_called(names[id(parameter)], word) for word in config.no_decay)
        decays = (parameter.ndim > 1 or config.decay_norms) and not named and id(parameter) not in spared
        decay = config.weight_decay if decays else 0.0
        settings = {"params": [], "lr": lr * factor, "base_lr": lr * factor, "weight_decay": decay}
        settings["of_encoder"] = of_encoder = id(parameter) in apart
        if config.name == "muon":
            settings["orthogonal"] = id(parameter) in hidden
        kind = (factor, decay, of_encoder, id(parameter) in hidden)
        groups.setdefault(kind, settings)["params"].append(parameter)
    return [*groups.values(), *(_groups_trained_too(too, config, lr) if too else ())]


def _groups_trained_too(too: TrainedToo, config: OptimizerConfig, lr: float) -> list[dict[str, Any]]:
    groups: dict[float, dict[str, Any]] = {}
    for parameter in too.modules.parameters():
        decay = config.weight_decay if parameter.ndim > 1 or config.decay_norms else 0.0
        rate = lr * too.lr_factor
        settings = {"params": [], "lr": rate, "base_lr": rate, "weight_decay": decay, "of_encoder": False}
        groups.setdefault(decay, {**settings, "too": True})["params"].append(parameter)
    return list(groups.values())


def _is_called(name: str, word: str) -> bool:
    """Tell whether a parameter's name has this part between dots, or, with a * in the word, is of that pattern."""
    return fnmatchcase(name, word) if "*" in word else word in name.split(".")


def _encoder_factors(net: nn.Module, config: OptimizerConfig) -> dict[int, float]:
    encoder = getattr(net, "encoder", None)
    if encoder is None or (config.encoder_lr_factor == 1 and config.layer_decay == 1):
        return {}
    stages = encoder.stages()
    # Parameters outside all stages (a class token, position embeddings) belong to the input side, like the stem.
    lowest = config.encoder_lr_factor * config.layer_decay ** len(stages)
    factors = {id(p): lowest for p in encoder.parameters()}
    for depth, modules in enumerate(reversed(stages), start=1):
        for module in modules:
            for parameter in module.parameters():
                factors[id(parameter)] = config.encoder_lr_factor * config.layer_decay**depth
    for module in encoder.outside_stages():
        for parameter in module.parameters():
            factors[id(parameter)] = config.encoder_lr_factor
    return factors


def _encoder_norms(net: nn.Module, config: OptimizerConfig) -> set[int]:
    """Return the ids of the parameters of the encoder's norm layers, where the recipe spares them."""
    encoder = getattr(net, "encoder", None)
    if encoder is None or config.decay_encoder_norms:
        return set()
    norms = (module for module in encoder.modules() if isinstance(module, NORMS))
    return {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}


def build_optimizer(
    net: nn.Module,
    config: OptimizerConfig,
    lr: float,
    *,
    encoder_apart: bool = False,
    too: TrainedToo | None = None,
) -> torch.optim.Optimizer:
    """Return the optimiser named in the recipe over the groups of `parameter_groups`."""
    groups = parameter_groups(net, config, lr, encoder_apart=encoder_apart, too=too)
    if config.name == "rmsprop":
        return RMSProp(groups, lr=lr, alpha=config.alpha, epsilon=config.epsilon)
    if config.name == "muon":
        return Muon(groups, lr=lr, momentum=config.momentum, betas=config.betas)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, betas=config.betas)


def fuse_steps(optimizer: torch.optim.Optimizer) -> None:
    """Have each group whose tensors lie on the processor stepped in one pass over memory, where torch can do that.

    Its kernel takes numbers as they lie in memory and does not look at strides: a group of which a gradient or a part
    of the state lies in another order than the parameter is left as it is. To be called when gradients are there.
    """
    for group in optimizer.param_groups:
        if "fused" in group:
            fits = all(_is_plain(parameter, optimizer.state.get(parameter, {})) for parameter in group["params"])
            group["fused"] = True if fits else None  # False would take torch's own choice from a GPU, too


def _is_plain(parameter: torch.Tensor, state: dict[str, Any]) -> bool:
    """Tell whether a parameter lies on the processor without gaps, its gradient and state in the same order."""
    order = _order(parameter)
    if parameter.device.type != "cpu" or parameter.dtype != torch.float32 or order is None:
        return False
    besides = [one for one in (parameter.grad, *state.values()) if isinstance(one, torch.Tensor)]
    return all(_order(one) == order and one.dtype == parameter.dtype for one in besides if one.shape == parameter.shape)


def _order(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Return in which order the dimensions lie in memory, those of one number left out; None if there are gaps."""
    long = [dim for dim in range(tensor.ndim) if tensor.shape[dim] > 1]
    order, expected = tuple(sorted(long, key=tensor.stride)), 1
    for dim in order:
        if tensor.stride(dim) != expected:
            return None
        expected *= tensor.shape[dim]
    return order
