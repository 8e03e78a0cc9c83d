"""Window, pooling and convolutional pyramids at 512 x 512: MMSegmentation's networks, the same weights in ours."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.networks import Pairing, plain_logits
from benchmarks.plain_transformers import Theirs, mmseg_network, of_mmseg, pairing
from benchmarks.rows import Target

FASTER, NOT_SLOWER, UNASKED = Target(time=1.1, memory=1.0), Target(time=1.0, memory=1.0), Target()
SEGNEXT = "segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512"
POOLFORMER = "poolformer/fpn_poolformer_s12_8xb4-40k_ade20k-512x512"
SWIN = "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512"
CONVNEXT = "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512"
TWINS = "twins/twins_svt-s_uperhead_8xb2-160k_ade20k-512x512"
KNET = "knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512"


def same_patterns(batch: int, splits: int, width: int, patterns: int, device: Any = None) -> Tensor:
    """Return the patterns that our SegNeXt begins with."""
    drawn = torch.rand(1, width, patterns, generator=torch.Generator().manual_seed(0))
    return F.normalize(drawn, dim=1).expand(batch * splits, -1, -1)


@cache
def segnext() -> Theirs:
    """Build the peer's SegNeXt-T; it draws patterns at every call, here those of ours, so that logits compare."""
    theirs = mmseg_network(SEGNEXT)
    for module in theirs.net.modules():
        if hasattr(module, "_build_bases"):
            module._build_bases = same_patterns  # type: ignore[assignment]
    return theirs


FAMILIES: dict[str, Pairing] = {
    name: replace(family, fp32=NOT_SLOWER if name.startswith("knet") else FASTER, bf16=bf16, group="pyramids")
    for name, family, bf16 in (
        ("upernet_swin_t", of_mmseg("UPerNet on Swin-T", SWIN), Target(time=2.0)),
        ("segnext_t", pairing("SegNeXt-T", "mmseg", segnext, plain_logits), UNASKED),
        ("poolformer_s12", of_mmseg("Semantic FPN on PoolFormer-S12", POOLFORMER), UNASKED),
        ("upernet_convnext_t", of_mmseg("UPerNet on ConvNeXt-T", CONVNEXT), UNASKED),
        ("upernet_twins_svt_s", of_mmseg("UPerNet on Twins-SVT-S", TWINS), UNASKED),
        ("knet_fcn_r50", of_mmseg("K-Net on FCN, ResNet-50", KNET), UNASKED),
    )
}


ROWS = tuple(row for name, family in FAMILIES.items() for row in family.rows(name))
