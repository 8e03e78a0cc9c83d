from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import shapes_only
from segatlas.encoders.spec import create_encoder

COUNTS = {"mit_b0": 3_319_392, "mit_b1": 13_151_424, "mit_b2": 24_196_288, "mit_b3": 44_072_128, "mit_b5": 81_443_008}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_those_of_the_authors(name):
    with shapes_only():
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == COUNTS[name]


def test_parameter_names_are_those_of_the_authors():
    keys = set(create_encoder("mit_b0").state_dict())
    assert {
        "patch_embed1.proj.weight",
        "patch_embed1.norm.weight",
        "block1.0.norm1.weight",
        "block1.0.attn.q.weight",
        "block1.0.attn.kv.bias",
        "block1.0.attn.sr.weight",
        "block1.0.attn.norm.weight",
        "block1.0.attn.proj.weight",
        "block1.1.norm2.bias",
        "block1.1.mlp.fc1.weight",
        "block1.1.mlp.dwconv.dwconv.weight",
        "block1.1.mlp.fc2.bias",
        "norm4.weight",
    } <= keys
    assert not any(key.startswith("block4") and ".sr." in key for key in keys)
    assert len(keys) == 2 * (4 * 2 + 4 + 2 * (4 * 8) + 2 * 3 * 2)


def token_form(state, x):
    """MiT-B0 with tokens as (L, D) lists of one image, attention written out."""

    def norm(name, t, eps):
        return F.layer_norm(t, t.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(name, t):
        return t @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def conv(name, t, h, w, **options):
        out = F.conv2d(t.T.reshape(1, -1, h, w), state[f"{name}.weight"], state[f"{name}.bias"], **options)
        return out.flatten(2)[0].T, out.shape[2], out.shape[3]

    features = []
    h, w = x.shape[-2:]
    t = x[0].flatten(1).T
    for stage, (heads, reduction) in enumerate(zip((1, 2, 5, 8), (8, 4, 2, 1), strict=True), start=1):
        step = {"stride": 4, "padding": 3} if stage == 1 else {"stride": 2, "padding": 1}
        t, h, w = conv(f"patch_embed{stage}.proj", t, h, w, **step)
        t = norm(f"patch_embed{stage}.norm", t, 1e-5)
        for block in (0, 1):
            name = f"block{stage}.{block}"
            y = norm(f"{name}.norm1", t, 1e-6)
            q, source = linear(f"{name}.attn.q", y), y
            if reduction > 1:
                source = norm(f"{name}.attn.norm", conv(f"{name}.attn.sr", y, h, w, stride=reduction)[0], 1e-5)
            k, v = linear(f"{name}.attn.kv", source).chunk(2, dim=1)
            parts = []
            for a, b, c in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
                parts.append((a @ b.T / a.shape[1] ** 0.5).softmax(dim=1) @ c)
            t = t + linear(f"{name}.attn.proj", torch.cat(parts, dim=1))
            y = linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", t, 1e-6))
            y, _, _ = conv(f"{name}.mlp.dwconv.dwconv", y, h, w, padding=1, groups=y.shape[1])
            t = t + linear(f"{name}.mlp.fc2", F.gelu(y))
        t = norm(f"norm{stage}", t, 1e-6)
        features.append(t.T.reshape(1, -1, h, w))
    return features


@pytest.mark.parametrize("size", [(64, 96), (77, 45)])
def test_the_channels_last_network_equals_the_token_form_of_the_paper(size):
    torch.manual_seed(0)
    encoder = create_encoder("mit_b0").eval()
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        for ours, expected in zip(encoder(x), token_form(encoder.state_dict(), x), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_maps_come_out_channels_last_without_a_copy():
    for feature in create_encoder("mit_b0")(torch.randn(1, 3, 64, 96)):
        assert feature.is_contiguous(memory_format=torch.channels_last)


def test_drop_path_rises_from_zero_at_the_first_block_to_its_value_at_the_last():
    encoder = create_encoder("mit_b2", drop_path=0.3)
    rates = [block.drop_path.rate for i in (1, 2, 3, 4) for block in encoder.get_submodule(f"block{i}")]
    assert rates == pytest.approx([0.3 * i / 15 for i in range(16)])
