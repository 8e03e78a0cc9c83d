"""From a peer's weights to ours: the same numbers under our names, so that both sides compute the same function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
Rules = Sequence[tuple[str, str]]

LEVELS = 4
NORM_EPSILON = 1e-5
"""Of mmseg's batch norms, torch's own."""

HF_SEGFORMER: Rules = (
    (r"^segformer\.stages\.(\d)\.patch_embeddings\.proj\.", r"encoder.patch_embed{\1}.proj."),
    (r"^segformer\.stages\.(\d)\.patch_embeddings\.layer_norm\.", r"encoder.patch_embed{\1}.norm."),
    (r"^segformer\.stages\.(\d)\.layer_norm\.", r"encoder.norm{\1}."),
    (r"^segformer\.stages\.(\d)\.blocks\.(\d+)\.layernorm_before\.", r"encoder.block{\1}.\2.norm1."),
    (r"^segformer\.stages\.(\d)\.blocks\.(\d+)\.layernorm_after\.", r"encoder.block{\1}.\2.norm2."),
    (r"^segformer\.stages\.(\d)\.blocks\.(\d+)\.attention\.q_proj\.", r"encoder.block{\1}.\2.attn.q."),
    (r"^segformer\.stages\.(\d)\.blocks\.(\d+)\.attention\.o_proj\.", r"encoder.block{\1}.\2.attn.proj."),
    (
        r"^segformer\.stages\.(\d)\.blocks\.(\d+)\.attention\.sequence_reduction\.sequence_reduction\.",
        r"encoder.block{\1}.\2.attn.sr.",
    ),
    (
        r"^segformer\.stages\.(\d)\.blocks\.(\d+)\.attention\.sequence_reduction\.layer_norm\.",
        r"encoder.block{\1}.\2.attn.norm.",
    ),
    (r"^segformer\.stages\.(\d)\.blocks\.(\d+)\.(attention|mlp)\.", r"encoder.block{\1}.\2.\3."),
    (r"^decode_head\.linear_projections\.(\d)\.proj\.", r"decoder.projections.\1."),
    (r"^decode_head\.linear_fuse\.", "decoder.fuse.conv."),
    (r"^decode_head\.batch_norm\.", "decoder.fuse.bn."),
    (r"^decode_head\.classifier\.", "classifier."),
)
MM_SEGFORMER: Rules = (
    (r"^backbone\.layers\.(\d)\.0\.projection\.", r"encoder.patch_embed{\1}.proj."),
    (r"^backbone\.layers\.(\d)\.0\.norm\.", r"encoder.patch_embed{\1}.norm."),
    (r"^backbone\.layers\.(\d)\.2\.", r"encoder.norm{\1}."),
    (r"^backbone\.layers\.(\d)\.1\.(\d+)\.norm(\d)\.", r"encoder.block{\1}.\2.norm\3."),
    (r"^backbone\.layers\.(\d)\.1\.(\d+)\.attn\.(sr|norm)\.", r"encoder.block{\1}.\2.attn.\3."),
    (r"^backbone\.layers\.(\d)\.1\.(\d+)\.attn\.attn\.out_proj\.", r"encoder.block{\1}.\2.attn.proj."),
    (r"^backbone\.layers\.(\d)\.1\.(\d+)\.attn\.attn\.in_proj_", r"encoder.block{\1}.\2.attn.qkv."),
    (r"^backbone\.layers\.(\d)\.1\.(\d+)\.ffn\.layers\.0\.", r"encoder.block{\1}.\2.mlp.fc1."),
    (r"^backbone\.layers\.(\d)\.1\.(\d+)\.ffn\.layers\.1\.", r"encoder.block{\1}.\2.mlp.dwconv.dwconv."),
    (r"^backbone\.layers\.(\d)\.1\.(\d+)\.ffn\.layers\.4\.", r"encoder.block{\1}.\2.mlp.fc2."),
    (r"^decode_head\.convs\.(\d)\.", r"decoder.projections.\1."),
    (r"^decode_head\.fusion_conv\.", "decoder.fuse."),
    (r"^decode_head\.conv_seg\.", "classifier."),
)
SMP_UNET: Rules = (
    (r"^decoder\.blocks\.(\d)\.conv(\d)\.0\.", r"decoder.\1.conv\2.conv."),
    (r"^decoder\.blocks\.(\d)\.conv(\d)\.1\.", r"decoder.\1.conv\2.bn."),
    (r"^segmentation_head\.0\.", "classifier."),
)


def rename(weights: Mapping[str, Tensor], rules: Rules) -> Weights:
    """Return weights under new names: the first rule that fits counts, {N} becomes N + 1 (we count stages from 1)."""
    renamed = {}
    for name, value in weights.items():
        for pattern, replacement in rules:
            new, hits = re.subn(pattern, replacement, name)
            if hits:
                name = re.sub(r"\{(\d)\}", lambda match: str(int(match[1]) + 1), new)
                break
        renamed[name] = value.detach().clone()
    return renamed


def from_hf_segformer(peer: nn.Module) -> Weights:
    """Return transformers' SegFormer under our names; its keys and values become one matrix."""
    weights = rename(peer.state_dict(), HF_SEGFORMER)
    for name in [name for name in weights if ".attention.k_proj." in name]:
        value = weights.pop(name.replace("k_proj", "v_proj"))
        weights[name.replace("attention.k_proj", "attn.kv")] = torch.cat([weights.pop(name), value])
    return weights


def from_mm_segformer(peer: nn.Module) -> Weights:
    """Return mmseg's SegFormer under our names.

    The matrix of queries, keys and values is cut in two; 1x1 convolutions become matrices; the fuse convolution meets
    the coarsest map first with us; the normalisation of each projection, which must have fixed statistics and no ReLU
    behind it, is folded into the projection.
    """
    weights = rename(peer.state_dict(), MM_SEGFORMER)
    for name in [name for name in weights if ".attn.qkv." in name]:
        whole = weights.pop(name)
        width = len(whole) // 3
        weights[name.replace("qkv", "q")], weights[name.replace("qkv", "kv")] = whole[:width], whole[width:]
    for name in [name for name in weights if re.search(r"\.fc[12]\.weight$", name)]:
        weights[name] = weights[name].flatten(1)
    fuse = weights["decoder.fuse.conv.weight"]
    weights["decoder.fuse.conv.weight"] = torch.cat(fuse.chunk(LEVELS, dim=1)[::-1], dim=1)
    for index in range(LEVELS):
        prefix = f"decoder.projections.{index}"
        norm = {key: weights.pop(f"{prefix}.bn.{key}") for key in ("weight", "bias", "running_mean", "running_var")}
        del weights[f"{prefix}.bn.num_batches_tracked"]
        factor = norm["weight"] / (norm["running_var"] + NORM_EPSILON).sqrt()
        weights[f"{prefix}.weight"] = weights.pop(f"{prefix}.conv.weight").flatten(1) * factor[:, None]
        weights[f"{prefix}.bias"] = norm["bias"] - norm["running_mean"] * factor
    return weights


def from_smp_unet(peer: nn.Module) -> Weights:
    """Return smp's U-Net on a ResNet under our names."""
    return rename(peer.state_dict(), SMP_UNET)


def take(net: nn.Module, peer: nn.Module, weights: Weights) -> nn.Module:
    """Load a peer's renamed weights, all of them, and the epsilon of its layer norms.

    Where a peer has one epsilon throughout, that is taken; the published values differ between libraries.
    """
    net.load_state_dict(weights)
    found = {part.eps for part in peer.modules() if isinstance(part, nn.LayerNorm)}
    if len(found) == 1:
        for part in net.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = next(iter(found))
    return net


@torch.no_grad()
def settle(net: nn.Module, seed: int) -> nn.Module:
    """Give every batch norm seeded statistics, factors and shifts, as training would; return the network in eval."""
    generator = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            assert part.running_mean is not None
            assert part.running_var is not None
            size = part.running_mean.shape
            part.running_mean.copy_(0.1 * torch.randn(size, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(size, generator=generator))
            part.weight.copy_(0.5 + torch.rand(size, generator=generator))
            part.bias.copy_(0.1 * torch.randn(size, generator=generator))
    return net.eval()
