"""Published Swin Transformers, in the layouts that people have them in, give the libraries' own maps."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segatlas.build.encoder_weights import load_encoder_weights
from segatlas.build.network import create_model
from segatlas.build.swin_weights import as_unfolded, from_unfolded, side_of, translated
from segatlas.encoders.spec import create_encoder
from segatlas.errors import WeightsError

SIZE = 4 * 32
"""Of images whose maps are all larger than a window of two tokens, and multiples of it: libraries for classifiers move
no window that holds a whole map, and timm pads what it moved."""


def moved(module):
    """Give all parameters values that are no starting values."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def of_timm():
    timm = pytest.importorskip("timm")
    own = {"embed_dim": 8, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 2, 4), "num_classes": 3}
    return moved(timm.models.swin_transformer.SwinTransformer(img_size=SIZE, window_size=2, **own))


def timm_maps(net, x):
    x, maps = net.patch_embed(x), []
    for layer in net.layers:
        x = layer(x)
        maps.append(x)
    return maps


def as_the_authors(state):
    """Patch merging is the last part of a stage there."""
    return {re.sub(r"^layers\.(\d)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", k): v for k, v in state.items()}


def as_mmpretrain(state):
    pairs = (
        (r"^layers\.", "stages."),
        (r"^patch_embed\.proj", "patch_embed.projection"),
        (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1", ".ffn.layers.0.0"),
        (r"\.mlp\.fc2", ".ffn.layers.1"),
        (r"^norm\.", "norm3."),
    )
    out = {}
    for name, tensor in as_the_authors(state).items():
        new = name
        for pattern, theirs in pairs:
            new = re.sub(pattern, theirs, new)
        out[f"backbone.{new}"] = as_unfolded(tensor) if ".downsample." in name else tensor
    return out


@pytest.mark.parametrize("layout", [dict, as_the_authors, as_mmpretrain])
def test_files_of_timm_the_authors_and_mmpretrain_give_timms_maps(layout):
    theirs = of_timm()
    ours = create_encoder("swin_w8", window=2).eval()
    found, dropped = translated(layout(theirs.state_dict()), ours)
    ours.load_state_dict(found)
    assert all(re.search(r"head|norm\.|relative_position_index|attn_mask", name) for name in dropped)
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = timm_maps(theirs, x)
        if layout is as_mmpretrain:  # whose classifier norms the last map, as ours does
            ours.norm3.reset_parameters()
        for own, other in zip(ours(x), expected, strict=True):
            other = F.layer_norm(other, other.shape[-1:])
            torch.testing.assert_close(own, other.permute(0, 3, 1, 2), rtol=1e-3, atol=1e-4)


def test_a_file_of_torchvision_gives_torchvisions_maps():
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    theirs = moved(
        swin.SwinTransformer(
            patch_size=[4, 4], embed_dim=8, depths=[2, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=[2, 2]
        )
    )
    ours = create_encoder("swin_w8", window=2).eval()
    found, dropped = translated(theirs.state_dict(), ours)
    ours.load_state_dict(found)
    assert {"norm.weight", "head.bias"} <= set(dropped)
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = []
        y = x
        for index, part in enumerate(theirs.features):
            y = part(y)
            if index % 2:
                expected.append(F.layer_norm(y, y.shape[-1:], eps=1e-5))
        for own, other in zip(ours(x), expected, strict=True):
            torch.testing.assert_close(own, other.permute(0, 3, 1, 2), rtol=1e-3, atol=1e-4)


def test_squares_laid_out_channel_by_channel_are_told_column_by_column():
    unfolded = F.unfold(torch.arange(8.0).reshape(1, 2, 2, 2), 2).flatten()  # channels 0..3 and 4..7 of one square
    assert unfolded.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert from_unfolded(unfolded).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    assert torch.equal(as_unfolded(from_unfolded(unfolded)), unfolded)


@pytest.mark.parametrize("channels", [1, 4])
def test_tables_of_another_window_are_resized_and_first_convolutions_get_the_images_channels(tmp_path, channels):
    file = tmp_path / "swin_base_patch4_window12_384_22k.pth"
    state = create_encoder("swin_w8", window=12).state_dict()
    for name, table in state.items():
        if name.endswith("bias_table"):  # a plane: resizing keeps it but at the border
            rows = torch.arange(23.0)
            table.copy_((rows[:, None] + 2 * rows[None]).flatten()[:, None])
    torch.save({"model": as_the_authors({k: v for k, v in state.items() if not re.match(r"norm\d", k)})}, file)
    net = create_model("upernet", num_classes=2, channels=8, encoder="swin_w8", in_channels=channels)
    load_encoder_weights(net, str(file))
    table = net.encoder.layers[0].blocks[1].attn.relative_position_bias_table
    middle = torch.arange(3, 10.0)
    scale = 23 / 13
    expected = (middle[:, None] + 0.5 + 2 * (middle[None] + 0.5)) * scale - 1.5
    torch.testing.assert_close(
        table[:, 0].unflatten(0, (13, 13))[3:10, 3:10], expected, rtol=0, atol=0.2
    )  # of 66; bicubic
    assert net.encoder.patch_embed.proj.weight.shape[1] == channels


def test_a_shallower_encoder_drops_the_stages_that_it_does_not_have():
    ours = create_encoder("swin_w8", levels=3, window=2)
    found, dropped = translated(as_the_authors(of_timm().state_dict()), ours)
    ours.load_state_dict(found)
    assert {name.split(".")[1] for name in dropped if name.startswith("layers.")} >= {"2", "3"}


def test_rows_of_no_square_window_are_told_with_the_tables_name():
    assert (side_of(169, name="t"), side_of(529, name="t")) == (7, 12)
    for rows in (168, 144):
        with pytest.raises(WeightsError, match=rf"t has {rows} rows: expected those of a square window"):
            side_of(rows, name="t")


def test_what_a_file_lacks_is_told_by_our_name(tmp_path):
    state = of_timm().state_dict()
    del state["layers.0.blocks.1.mlp.fc1.weight"]
    torch.save(state, tmp_path / "w.pth")
    net = create_model("upernet", num_classes=2, channels=8, encoder="swin_w8")
    with pytest.raises(WeightsError, match=r"layers\.0\.blocks\.1\.mlp\.fc1\.weight"):
        load_encoder_weights(net, str(tmp_path / "w.pth"))
