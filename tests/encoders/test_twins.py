"""segatlas.encoders.twins."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segatlas.build.encoder_names import renamed
from segatlas.build.encoder_weights import load_encoder_weights
from segatlas.build.network import create_model
from segatlas.encoders.spec import create_encoder
from segatlas.encoders.twins import SIZES, TokenWindows
from segatlas.errors import UsageError, WeightsError

COUNTS = {
    "twins_pcpvt_small": 23_592_192,
    "twins_pcpvt_base": 43_314_432,
    "twins_pcpvt_large": 60_475_648,
    "twins_svt_small": 23_548_672,
    "twins_svt_base": 55_303_296,
    "twins_svt_large": 98_248_192,
}


@pytest.mark.parametrize("name", COUNTS)
def test_encoders_have_exactly_mmsegmentations_number_of_parameters(name):
    with torch.device("meta"):
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == COUNTS[name]


def by_tokens(attn, x, p):
    """Attention within windows of one map (h, w, D), written out token by token."""
    heads = attn.heads
    h, w, width = x.shape
    rows, columns = (-(-side // p) * p for side in (h, w))
    q, k, v = attn.qkv(F.pad(x, (0, 0, 0, columns - w, 0, rows - h))).chunk(3, dim=-1)
    without_padding = rows > h and columns > w
    out = torch.zeros(h, w, width)
    for y in range(h):
        for z in range(w):
            top, left = y // p * p, z // p * p
            keys = [(a, b) for a in range(top, top + p) for b in range(left, left + p)]
            if without_padding:
                keys = [(a, b) for a, b in keys if a < h and b < w]
            for head in range(heads):
                part = slice(head * width // heads, (head + 1) * width // heads)
                products = [q[y, z, part] @ k[a, b, part] / (width // heads) ** 0.5 for a, b in keys]
                weights = torch.stack(products).softmax(dim=0)
                out[y, z, part] = sum(weight * v[a, b, part] for weight, (a, b) in zip(weights, keys, strict=True))
    return attn.proj(out)


@pytest.mark.parametrize("size", [(6, 3), (5, 7), (6, 7), (7, 3), (1, 1)])
def test_padding_is_left_out_of_windows_where_both_sides_are_padded_and_takes_part_where_one_is(size):
    torch.manual_seed(0)
    attn = create_encoder("twins_svt_w8", window=3).blocks[1][0].attn.eval()
    nn.init.normal_(attn.qkv.bias)  # tokens of padding have keys and values, too
    maps = torch.randn(2, *size, 16)
    with torch.no_grad():
        found = attn(maps, TokenWindows.of(maps.shape, 3, maps.device))
        expected = torch.stack([by_tokens(attn, one, 3) for one in maps])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def of_timm(name):
    """Return timm's network of a small size, with values that are no starting values."""
    twins = pytest.importorskip("timm.models.twins")
    size = SIZES[name]
    torch.manual_seed(0)
    net = twins.Twins(
        img_size=64,
        num_classes=3,
        embed_dims=size.widths,
        num_heads=size.heads,
        mlp_ratios=size.mlp_ratios,
        depths=size.depths,
        sr_ratios=(8, 4, 2, 1),
        wss=(4, 4, 4, 2) if size.windows else None,
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


def timm_maps(net, x):
    maps, count = [], x.shape[0]
    for embed, drop, blocks, position in zip(net.patch_embeds, net.pos_drops, net.blocks, net.pos_block, strict=True):
        x, size = embed(x)
        x = drop(x)
        for number, block in enumerate(blocks):
            x = block(x, size)
            if number == 0:
                x = position(x, size)
        x = x.reshape(count, *size, -1).permute(0, 3, 1, 2)
        maps.append(x)
    return maps


def as_mmsegmentation(state):
    """Give timm's tensors the names that they have in MMSegmentation's files, which have one matrix for all three."""
    out = {}
    for name, tensor in state.items():
        if ".attn.q." in name:
            kind = name.rpartition(".")[2]
            both = torch.cat([tensor, state[name.replace(".q.", ".kv.")]])
            out[name.replace("blocks.", "layers.").replace(f".q.{kind}", f".attn.in_proj_{kind}")] = both
            continue
        if ".attn.kv." in name or name.startswith(("norm.", "head.")):
            continue
        new = name.replace("pos_block.", "position_encodings.").replace(".proj.0.", ".proj.")
        new = new.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        if name.startswith("patch_embeds."):
            new = new.replace(".proj.", ".projection.")
        if ".attn.proj." in name and name.rpartition(".attn.")[0] + ".attn.kv.weight" in state:
            new = new.replace(".attn.proj.", ".attn.attn.out_proj.")
        out[new.replace("blocks.", "layers.")] = tensor
    return out


@pytest.mark.parametrize("layout", [dict, as_mmsegmentation])
@pytest.mark.parametrize("name", ["twins_pcpvt_w8", "twins_svt_w8"])
def test_files_of_timm_the_authors_and_mmsegmentation_give_timms_maps(name, layout):
    theirs = of_timm(name)
    ours = create_encoder(name, window=4, stage_norms=False, norm_eps=1e-6).eval()
    if SIZES[name].windows:
        theirs.blocks[3][0].attn.ws = 4  # one window for all stages, as ours has
    ours.load_state_dict(renamed(name, ours.state_dict(), layout(theirs.state_dict())))
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        for own, other in zip(ours(x), timm_maps(theirs, x), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 4])
def test_norms_of_stages_start_anew_and_the_first_convolution_gets_the_images_channels(tmp_path, channels):
    torch.save(of_timm("twins_svt_w8").state_dict(), tmp_path / "alt_gvt_small.pth")
    net = create_model("upernet", num_classes=2, channels=8, encoder="twins_svt_w8", in_channels=channels)
    dropped = load_encoder_weights(net, str(tmp_path / "alt_gvt_small.pth"))
    assert set(dropped) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert net.encoder.patch_embeds[0].proj.weight.shape[1] == channels
    assert bool((net.encoder.stage_norms[2].weight == 1).all())


def test_what_a_file_lacks_is_told_by_our_name(tmp_path):
    state = of_timm("twins_pcpvt_w8").state_dict()
    del state["pos_block.2.proj.0.weight"]
    torch.save(state, tmp_path / "pcpvt_small.pth")
    net = create_model("semantic_fpn", num_classes=2, channels=8, encoder="twins_pcpvt_w8")
    with pytest.raises(WeightsError, match=r"pos_block\.2\.proj\.0\.weight"):
        load_encoder_weights(net, str(tmp_path / "pcpvt_small.pth"))


@pytest.mark.parametrize("name", ["twins_pcpvt_w8", "twins_svt_w8"])
@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 1)])
def test_maps_have_the_size_of_the_image_over_the_stride_rounded_up(name, size):
    encoder = create_encoder(name).eval()
    maps = encoder(torch.randn(1, 3, *size))
    for x, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert x.shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_checkpointed_stages_give_the_same_gradients():
    torch.manual_seed(0)
    encoder = create_encoder("twins_svt_w8", drop_path=0.0, window=3).train()
    x = torch.randn(2, 3, 32, 40)
    found = []
    for checkpointing in (False, True):
        encoder.gradient_checkpointing = checkpointing
        encoder.zero_grad()
        sum(m.square().sum() for m in encoder(x)).backward()
        found.append([p.grad.clone() for p in encoder.parameters()])
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_window_of_one_token_is_refused():
    with pytest.raises(UsageError, match="window = 1: expected 2 or more tokens"):
        create_encoder("twins_svt_w8", window=1)
