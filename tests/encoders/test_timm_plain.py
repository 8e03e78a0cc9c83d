"""Plain transformers of timm under our heads, at the sizes that they are used at, from a file of timm."""

from __future__ import annotations

import pytest
import timm
import torch
from fakes.random_weights import randomise

from segatlas.build.network import create_model
from segatlas.encoders.vit import FORMS
from segatlas.layers.padding import pad_to_multiple

NETWORKS = {
    "dinov2": ("vit_small_patch14_dinov2", "vit_base_patch14_reg4_dinov2", "vit_large_patch14_dinov2"),
    "dinov3": ("vit_small_patch16_dinov3", "vit_base_patch16_dinov3", "vit_large_patch16_dinov3"),
    "clip": ("vit_xsmall_patch16_clip_224", "vit_base_patch16_clip_224", "vit_large_patch14_clip_224"),
    "siglip": ("vit_base_patch16_siglip_224", "vit_large_patch16_siglip_256"),  # there is no small one
}
SIZES = (224, 518)
OURS = [
    ("vit_small_patch14_dinov2", {"name": "dinov2_small"}),
    ("vit_small_patch14_reg4_dinov2", {"name": "dinov2_small", "registers": 4}),
    ("vit_small_patch16_dinov3_qkvb", {"name": "dinov3_small"}),
    ("vit_base_patch16_clip_224", {"name": "vit_base", "pre_norm": True, "patch_bias": False, "norm_eps": 1e-5}),
    ("vit_base_patch16_siglip_224", {"name": "vit_base", "class_token": False}),
]
"""Networks of timm -> our own encoder that takes their file."""


def features(head: str, depth: int, encoder: dict, file: str) -> tuple[torch.nn.Module, tuple[int, ...], bool]:
    """Return the encoder of a network made from a file, the blocks that it is asked for, and if these are normed."""
    at = tuple(depth * quarter // 4 - 1 for quarter in range(1, 5))
    own = {
        "linear": {"encoder": encoder, "blocks": 4},
        "upernet": {"encoder": {**encoder, "at": at}, "neck": "resize", "channels": 8},
        "dpt": {"encoder": encoder, "blocks": at, "channels": 8, "readout": "ignore"},
    }[head]
    net = create_model(head, num_classes=3, encoder_weights=file, **own).eval()
    is_timms = encoder["name"] not in FORMS  # timm's own feature maps are not normed
    return net.encoder, tuple(range(depth - 4, depth)) if head == "linear" else at, head != "upernet" or not is_timms


def worst_difference(name: str, encoder: dict, file: str) -> float:
    """Return the largest difference of any head's features from timm's, over timm's largest, at every size."""
    theirs = randomise(timm.create_model(name, dynamic_img_size=True, num_classes=10))
    torch.save(theirs.state_dict(), file)
    worst = 0.0
    for head in ("linear", "upernet", "dpt"):
        ours, at, norm = features(head, len(theirs.blocks), encoder, file)
        for size in SIZES:
            x = pad_to_multiple(torch.randn(1, 3, size, size), theirs.patch_embed.patch_size[0])
            with torch.no_grad():
                found = ours(x) if head == "upernet" else ours(x, at=at, norm=norm).maps()
                expected = theirs.forward_intermediates(x, at, norm=norm, intermediates_only=True)
            for got, wanted in zip(found, expected, strict=True):
                worst = max(worst, float((got - wanted).abs().max() / wanted.abs().max()))
    return worst


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for names in NETWORKS.values() for name in names])
def test_features_under_each_head_are_timms_intermediate_layers_at_224_and_518(name, tmp_path):
    assert worst_difference(name, {"name": name}, str(tmp_path / "timm.pth")) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "encoder"), OURS, ids=[name for name, _ in OURS])
def test_our_own_encoders_give_them_too_from_a_file_of_timm(name, encoder, tmp_path):
    assert worst_difference(name, encoder, str(tmp_path / "timm.pth")) <= 1e-5
