"""segatlas.models.eomt."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model
from segatlas.errors import UsageError
from segatlas.models.eomt import ARCHITECTURE, EoMT, usual_fading

SIZE = (40, 56)


def make(**fields: Any) -> EoMT:
    torch.manual_seed(0)
    encoder = {"name": "vit_w32", "depth": 3, "registers": 2, "class_position": False, "image_size": (64, 64)}
    net: Any = create_model("eomt", **{"num_classes": 4, "queries": 5, "query_blocks": 2, "encoder": encoder, **fields})
    torch.nn.init.normal_(net.classifier.weight)
    return net.eval()


@torch.no_grad()
def slowly(net: EoMT, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every query by itself, attention written out, and what it may not see is cut off one by one."""
    encoder: Any = net.encoder
    height, width = (-(-side // 16) * 16 for side in x.shape[-2:])
    tokens, positions = encoder.embed(F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])))
    grid, q, prefix = positions.grid, net.config.queries, encoder.prefix_tokens
    for index, block in enumerate(encoder.blocks):
        allowed = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool)
        if index >= 1:
            if index == 1:
                tokens = torch.cat([net.queries[None], tokens], dim=1)
            _, masks = predicted(net, tokens, grid)
            allowed = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool)
            for query in range(q):
                small = F.interpolate(masks[:, query : query + 1], size=grid, mode="bilinear")[0, 0].flatten()
                for patch, value in enumerate(small):
                    allowed[query, q + prefix + patch] = bool(value > 0)
        attn, heads = block.attn, block.attn.heads
        parts = attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)
        query, key, value = (one[0].unflatten(1, (heads, -1)).transpose(0, 1) for one in parts)
        products = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        weights = products.masked_fill(~allowed, float("-inf")).softmax(-1)
        tokens = tokens + block.ls1(attn.proj((weights @ value).transpose(0, 1).flatten(1))[None])
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return predicted(net, tokens, grid)


def predicted(net: EoMT, tokens: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    normed = net.encoder.norm(tokens)
    q = net.config.queries
    fine = net.upsampling(normed[:, q + net.encoder.prefix_tokens :].transpose(1, 2).unflatten(2, grid))
    return net.classifier(normed[:, :q]), torch.einsum("nqd,ndhw->nqhw", net.mask_head(normed[:, :q]), fine)


def test_it_is_a_transformer_whose_queries_see_the_patches_of_their_masks():
    net, x = make(), torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        found = net(x)
    classes, masks = slowly(net, x)
    assert found.canvas == (48, 64)
    assert found.mask_logits.shape == (1, 5, 12, 16)
    torch.testing.assert_close(found.class_logits, classes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.mask_logits, masks, rtol=1e-4, atol=1e-4)


def test_masks_fade_block_by_block_and_a_trained_network_has_none():
    net, x = make(), torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        masked = net(x).mask_logits
        assert usual_fading(4)[0] == pytest.approx((1 / 6, 1 / 3))
        assert usual_fading(4)[-1] == pytest.approx((2 / 3, 5 / 6))
        net.advance(0.1)
        assert net.mask_fractions.tolist() == [1, 1]
        net.advance(0.25)  # half of the first block's stretch
        assert net.mask_fractions.tolist() == pytest.approx([0.5**0.9, 1])
        net.advance(0.35)
        assert (net.mask_fractions.tolist(), net.masked) == ([0, 1], (False, True))
        net.advance(1.0)
        assert (net.mask_fractions.tolist(), net.masked) == ([0, 0], (False, False))
        assert not torch.equal(net(x).mask_logits, masked)
        other = make()
        other.load_state_dict(net.state_dict())
        assert other.masked == (False, False)
        assert torch.equal(other(x).mask_logits, net(x).mask_logits)


def test_masks_that_do_not_fade_stay():
    net = make(fading=())
    net.advance(1.0)
    assert net.mask_fractions.tolist() == [1, 1]


def test_a_draw_lets_as_many_queries_off_as_the_fraction_says():
    net = make().train()
    masks = -torch.ones(2, 1000, 12, 16)
    seen = {}
    for fraction in (1.0, 0.25, 0.0):
        net.mask_fractions.fill_(fraction)
        allowed = net.masks_of_attention(masks, 0, (3, 4))
        assert allowed[:, :, 1000:].all()  # patches and prefix tokens see everything
        assert allowed[..., :1003].all()  # and everything sees queries and prefix tokens
        of_queries = allowed[:, 0, :1000, 1003:]
        assert torch.equal(of_queries.any(-1), of_queries.all(-1))  # all patches or none
        seen[fraction] = float(of_queries.float().mean())
    assert (seen[1.0], seen[0.0]) == (0, 1)
    assert seen[0.25] == pytest.approx(0.75, abs=0.05)


def test_training_gives_what_each_block_with_queries_begins_with():
    net = make().train()
    found = net(torch.randn(2, 3, *SIZE))
    assert list(found.aux) == ["layer_0", "layer_1"]
    assert [one.mask_logits.shape for one in found.layers] == [(2, 5, 12, 16)] * 3
    net.advance(1.0)
    assert len(net(torch.randn(2, 3, *SIZE)).aux) == 2


def test_an_encoder_of_timm_or_too_few_blocks_are_refused():
    with pytest.raises(UsageError, match="one written here"):
        make(encoder="timm/vit_tiny_patch16_224")
    with pytest.raises(UsageError, match="query_blocks: got 4, expected 3"):
        make(query_blocks=4)
    with pytest.raises(UsageError, match="fading: got 1 pairs, expected 2"):
        make(fading=((0.0, 0.5),))
    with pytest.raises(UsageError, match="the second one the larger"):
        make(fading=((0.5, 0.5), (0.0, 1.0)))


def test_the_variants_are_the_published_networks():
    sizes = {"s": (384, 12, 3), "b": (768, 12, 3), "l": (1024, 24, 4)}
    for size, (width, depth, blocks) in sizes.items():
        for kind in ("", "_dinov3"):
            with torch.device("meta"):
                net: Any = create_model(f"eomt_{size}{kind}", num_classes=133)
            assert (net.encoder.width, len(net.encoder.blocks), net.config.query_blocks) == (width, depth, blocks)
            assert (net.encoder.patch_size, net.encoder.prefix_tokens, net.config.queries) == (16, 5, 200)
            assert len(net.upsampling) == 2
            assert (net.encoder.pos_embed is None) == bool(kind)
            if not kind:
                assert net.encoder.pos_embed.shape == (1, 40 * 40, width)


def test_every_key_of_a_variant_is_one_of_the_config():
    names = {field.name for field in dataclasses.fields(ARCHITECTURE.config)} | {"encoder_options"}
    assert {key for fields in ARCHITECTURE.variants.values() for key in fields} <= names


def test_a_smaller_image_is_padded_with_black_and_its_canvas_is_the_whole_square():
    net, x = make(padded_to=64), torch.randn(1, 3, 40, 56)
    black = torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    whole = black[:, None, None].repeat(1, 64, 64)[None].clone()
    whole[:, :, :40, :56] = x
    with torch.no_grad():
        found, expected = net(x), make()(whole)
    assert found.canvas == (64, 64)
    assert torch.equal(found.mask_logits, expected.mask_logits)
    larger = torch.randn(1, 3, 80, 64)
    with torch.no_grad():
        assert torch.equal(net(larger).class_logits, make()(larger).class_logits)
