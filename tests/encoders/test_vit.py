"""Plain vision transformers written here, against timm's networks and slow obvious forms."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from fakes.random_weights import randomise
from torch.nn import functional as F

from segatlas.build.network import shapes_only
from segatlas.build.vit_weights import translated
from segatlas.encoders import TOKEN_ENCODERS
from segatlas.encoders.spec import create_token_encoder
from segatlas.encoders.vit import FORMS, Positions, VisionTransformer, relations, resize_grid
from segatlas.errors import UsageError

# timm's name -> ours, and the options that make it the same network
PAIRS = {
    "vit_tiny_patch16_224": ("vit_tiny", {}),
    "deit_tiny_patch16_224": ("vit_tiny", {}),
    "vit_small_patch14_dinov2": ("dinov2_small", {}),
    "vit_small_patch14_reg4_dinov2": ("dinov2_small", {"registers": 4}),
    "vit_base_patch14_reg4_dinov2": ("dinov2_base", {"registers": 4, "class_position": False}),
    "vit_small_patch16_dinov3": ("dinov3_small", {}),
    "vit_small_plus_patch16_dinov3_qkvb": ("dinov3_small_plus", {}),
    "vit_base_patch16_siglip_224": ("vit_base", {"class_token": False}),
}
COUNTS = {
    "vit_tiny": 5_524_416,
    "vit_small": 21_665_664,
    "vit_base": 85_798_656,
    "vit_large": 303_301_632,
    "vit_huge": 630_764_800,
    "dinov2_small": 22_056_192,
    "dinov2_base": 86_579_712,
    "dinov2_large": 304_367_616,
    "dinov2_giant": 1_136_479_232,
    "dinov3_small": 21_596_160,
    "dinov3_small_plus": 28_692_480,
    "dinov3_base": 85_659_648,
    "dinov3_large": 303_128_576,
    "dinov3_huge_plus": 840_591_360,
}
"""Parameters of timm's networks without classifier"""


def tiny(**options) -> VisionTransformer:
    torch.manual_seed(0)
    fields = {"depth": 2, "image_size": (64, 64), **options}
    return randomise(create_token_encoder("vit_w32", **fields))


def pair(name: str) -> tuple[torch.nn.Module, VisionTransformer]:
    """Return timm's network of two blocks and ours, with the same weights."""
    ours, options = PAIRS[name]
    theirs = randomise(timm.create_model(name, depth=2, dynamic_img_size=True))
    encoder = create_token_encoder(ours, depth=2, **options).eval()
    tensors, _ = translated(theirs.state_dict(), encoder)
    encoder.load_state_dict(tensors, strict=True)
    return theirs, encoder


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("grid", [(4, 4), (2, 5)])
def test_tokens_equal_timms_intermediate_layers(name, grid):
    theirs, ours = pair(name)
    x = torch.randn(1, 3, *(ours.patch_size * count for count in grid))
    with torch.no_grad():
        for norm in (True, False):
            tokens = ours(x, at=(0, 1), norm=norm)
            expected = theirs.forward_intermediates(x, [0, 1], norm=norm, intermediates_only=True)
            for found, wanted in zip(tokens.maps(), expected, strict=True):
                assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
        whole = torch.cat([ours(x).prefix[0], ours(x).patches[0]], dim=1)
    torch.testing.assert_close(whole, theirs.forward_features(x), rtol=0, atol=1e-4)
    assert whole.shape == (1, ours.prefix_tokens + math.prod(grid), ours.width)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_those_of_timms_networks(name):
    with shapes_only():
        encoder = create_token_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == COUNTS[name]


def test_every_form_has_its_name_in_the_table():
    assert list(FORMS) == list(TOKEN_ENCODERS)


def test_positions_are_resized_as_told_and_left_alone_on_their_own_grid():
    stored = torch.randn(1, 16, 8)
    cells = stored.transpose(1, 2).unflatten(2, (4, 4))
    for mode, antialias in (("bicubic", True), ("bicubic", False), ("bilinear", False)):
        expected = F.interpolate(cells, size=(3, 7), mode=mode, antialias=antialias, align_corners=False)
        found = resize_grid(stored, (4, 4), (3, 7), mode=mode, antialias=antialias)
        torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2))
        torch.testing.assert_close(resize_grid(stored, (4, 4), (4, 4), mode=mode, antialias=antialias), stored)


def test_a_class_token_may_have_no_position_and_the_feed_forward_part_another_width():
    encoder = tiny(class_position=False, registers=2, hidden=48)
    assert encoder.pos_embed.shape == (1, 16, 32)
    assert encoder.blocks[1].mlp.fc1.weight.shape == (48, 32)
    tokens, _ = encoder.embed(torch.randn(1, 3, 64, 64))
    assert torch.equal(tokens[:, :1], encoder.cls_token)


def test_an_image_of_no_whole_patches_is_padded_right_and_bottom():
    encoder, x = tiny(), torch.randn(1, 3, 33, 50)
    padded = F.pad(x, (0, 14, 0, 15))
    with torch.no_grad():
        tokens = encoder(x)
        torch.testing.assert_close(tokens.patches, encoder(padded).patches, rtol=0, atol=0)
    assert (tokens.grid, encoder.size_divisibility) == ((3, 4), 1)


def test_relative_positions_bias_attention_by_the_distance_of_two_patches():
    encoder = tiny(relative_positions=True, absolute_positions=False, image_size=(32, 48))
    attention, (h, w) = encoder.blocks[0].attn, (2, 3)
    table = attention.relative.table
    torch.nn.init.normal_(table)
    bias = torch.zeros(2, 1 + h * w, 1 + h * w)
    for q in range(1 + h * w):
        for k in range(1 + h * w):
            dy, dx = ((q - 1) // w - (k - 1) // w, (q - 1) % w - (k - 1) % w)
            row = (dy + h - 1) * (2 * w - 1) + dx + w - 1
            row = -1 if q == k == 0 else -3 if q == 0 else -2 if k == 0 else row
            bias[:, q, k] = table[row]
    x = torch.randn(1, 1 + h * w, 32)
    q, k, v = attention.qkv(x).reshape(1, 1 + h * w, 3, 2, 16).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) / 4 + bias).softmax(-1)
    expected = attention.proj((weights @ v).transpose(1, 2).flatten(2))
    positions = Positions((h, w), relation=relations((h, w), torch.device("cpu")))
    torch.testing.assert_close(attention(x, positions), expected)
    assert encoder(torch.randn(1, 3, 80, 64)).grid == (5, 4)


def test_a_mask_keeps_queries_from_keys_with_and_without_a_bias():
    for options in ({}, {"relative_positions": True}):
        encoder = tiny(**options)
        x, positions = encoder.embed(torch.randn(2, 3, 32, 32))
        mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
        mask[..., :4, 4] = False
        changed = x.clone()
        changed[:, 4] += 1
        with torch.no_grad():
            first, second = (encoder.blocks[0](t, positions, mask) for t in (x, changed))
        torch.testing.assert_close(first[:, :4], second[:, :4], rtol=0, atol=0)
        assert not torch.equal(first[:, 4], second[:, 4])


def test_further_tokens_before_the_others_are_not_turned_by_rotary_positions():
    encoder = randomise(create_token_encoder("dinov3_small", depth=1))
    x, positions = encoder.embed(torch.randn(1, 3, 32, 48))
    queries = torch.randn(1, 3, x.shape[-1])
    moved = Positions(positions.grid, rotation=tuple(torch.roll(t, 1, 0) for t in positions.rotation))
    mask = torch.eye(3 + x.shape[1], dtype=torch.bool)
    with torch.no_grad():
        whole = torch.cat([queries, x], dim=1)
        alone, shifted = encoder.blocks[0](whole, positions, mask), encoder.blocks[0](whole, moved, mask)
    torch.testing.assert_close(alone, shifted, rtol=0, atol=1e-6)  # each token sees itself only


def test_the_final_norm_may_be_left_to_the_last_block_as_mmsegmentation_does():
    each, last = tiny(), tiny(norm_last_only=True)
    last.load_state_dict(each.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        plain, found = each(x, at=(0, 1), norm=False).patches, last(x, at=(0, 1)).patches
    torch.testing.assert_close(found[0], plain[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1], each.norm(plain[1]))


def test_blocks_come_in_the_order_asked_for_and_none_after_the_last_of_them_is_run():
    encoder, run = tiny(depth=3), []
    for index, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda *_, index=index: run.append(index))
    with torch.no_grad():
        tokens = encoder(torch.randn(1, 3, 32, 48), at=(-2, 0, 1))
    assert run == [0, 1]
    torch.testing.assert_close(tokens.patches[0], tokens.patches[2], rtol=0, atol=0)
    with pytest.raises(UsageError, match="the encoder has 3 blocks, and no block 3"):
        encoder(torch.randn(1, 3, 32, 32), at=(3,))


@pytest.mark.parametrize("options", [{}, {"relative_positions": True, "pre_norm": True}, {"registers": 2}])
def test_every_parameter_gets_a_gradient_and_checkpointing_changes_none(options):
    found = []
    for checkpointing in (False, True):
        encoder = tiny(drop_path=0.3, dropout=0.1, layer_scale=0.1, **options).train()
        encoder.gradient_checkpointing = checkpointing
        torch.manual_seed(1)
        tokens = encoder(torch.randn(2, 3, 32, 48))
        (tokens.maps()[0].square().mean() + tokens.prefix[0].mean()).backward()
        found.append({key: p.grad for key, p in encoder.named_parameters()})
    assert [key for key, grad in found[0].items() if grad is None or not grad.any()] == []
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", FORMS)
def test_stages_are_the_patch_embedding_and_each_block_and_hold_all_but_tokens_and_positions(name):
    with shapes_only():
        encoder = create_token_encoder(name, depth=3)
    stages = encoder.stages()
    staged = [id(p) for stage in stages for module in stage for p in module.parameters()]
    loose = {key for key, p in encoder.named_parameters() if id(p) not in staged}
    assert (len(stages), len(staged)) == (1 + 3, len(set(staged)))
    assert loose <= {"cls_token", "reg_token", "pos_embed"}


@pytest.mark.parametrize("name", ["vit_w32", "dinov3_small"])
def test_exported_with_any_batch_and_size_it_gives_what_it_gave(name):
    encoder = randomise(create_token_encoder(name, depth=1, image_size=(64, 64)))

    class Patches(torch.nn.Module):
        def forward(self, x):
            return encoder(x).patches[0]

    net = Patches().eval()
    net.encoder = encoder
    sizes = {0: torch.export.Dim("n", max=8), 2: 16 * torch.export.Dim("h", min=2, max=64)}
    sizes[3] = 16 * torch.export.Dim("w", min=2, max=64)
    exported = torch.export.export(net, (torch.randn(2, 3, 48, 80),), dynamic_shapes=({**sizes},)).module()
    for shape in ((1, 3, 64, 64), (3, 3, 96, 32)):
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(exported(x), net(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relative_positions": True, "registers": 1}, "relative_positions: expected a class token and no registers"),
        ({"relative_positions": True, "class_token": False}, "expected a class token and no registers"),
        ({"registres": 1}, "unknown option of vit_w32 - did you mean 'registers'"),
        ({"position_resize": "nearest"}, "position_resize"),
    ],
)
def test_options_that_contradict_each_other_or_are_none_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        create_token_encoder("vit_w32", **options)
