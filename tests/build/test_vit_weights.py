"""Files of plain vision transformers in the layouts that people have."""

from __future__ import annotations

import math
import re

import pytest
import timm
import torch
from fakes.random_weights import randomise
from torch.nn import functional as F

from segatlas.build.network import create_model
from segatlas.encoders.spec import create_token_encoder
from segatlas.errors import UsageError, WeightsError

TINY = {"name": "vit_w32", "depth": 2, "image_size": [64, 64]}


def source(**options):
    torch.manual_seed(3)
    return randomise(create_token_encoder("vit_w32", **{"depth": 2, "image_size": (64, 64), **options}))


def loaded(path, **options):
    """Return the encoder of a network made from a file, in eval mode."""
    encoder = {**TINY, **options}
    return create_model("linear", num_classes=2, encoder=encoder, encoder_weights=str(path)).eval().encoder


def split(state, ending, names):
    """Cut the rows of every tensor that ends so into equal parts of other names."""
    out = {}
    for key, tensor in state.items():
        if key.endswith(ending):
            parts = tensor.chunk(len(names))
            out |= {key.removesuffix(ending) + name: part for name, part in zip(names, parts, strict=True)}
        else:
            out[key] = tensor
    return out


def renamed(state, *pairs):
    out = {}
    for key, tensor in state.items():
        for pattern, new in pairs:
            key = re.sub(pattern, new, key)
        out[key] = tensor
    return out


def timm_layout(state):
    return {
        **state,
        "head.weight": torch.ones(10, 32),
        "head.bias": torch.ones(10),
        "pre_logits.fc.weight": torch.ones(2),
    }


def mae_layout(state):
    decoder = {"decoder_embed.weight": torch.ones(4, 32), "decoder_blocks.0.norm1.bias": torch.ones(4)}
    return {"model": {**state, **decoder, "mask_token": torch.ones(1, 1, 4), "decoder_pos_embed": torch.ones(1, 17, 4)}}


def mmseg_layout(state):
    return renamed(
        state,
        (r"^blocks", "layers"),
        (r"patch_embed\.proj", "patch_embed.projection"),
        (r"attn\.qkv\.", "attn.attn.in_proj_"),
        (r"attn\.proj", "attn.attn.out_proj"),
        (r"mlp\.fc1", "ffn.layers.0.0"),
        (r"mlp\.fc2", "ffn.layers.1"),
        (r"norm(\d)", r"ln\1"),
        (r"^norm\.", "ln1."),
    )


def hugging_face_layout(state):
    state = split(state, "attn.qkv.weight", [f"attention.attention.{n}.weight" for n in ("query", "key", "value")])
    state = split(state, "attn.qkv.bias", [f"attention.attention.{n}.bias" for n in ("query", "key", "value")])
    return renamed(
        state,
        (r"^blocks", "vit.encoder.layer"),
        (r"^patch_embed\.proj", "vit.embeddings.patch_embeddings.projection"),
        (r"^cls_token", "vit.embeddings.cls_token"),
        (r"^pos_embed", "vit.embeddings.position_embeddings"),
        (r"attn\.proj", "attention.output.dense"),
        (r"norm1", "layernorm_before"),
        (r"norm2", "layernorm_after"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
        (r"^norm\.", "vit.layernorm."),
    ) | {"classifier.weight": torch.ones(10, 32)}


def two_biases_layout(state):
    state = split(state, "attn.qkv.bias", ["attn.q_bias", "attn.k_bias_unused", "attn.v_bias"])
    return {key: tensor for key, tensor in state.items() if not key.endswith("k_bias_unused")}


@pytest.mark.parametrize(
    "layout", [timm_layout, mae_layout, mmseg_layout, hugging_face_layout, two_biases_layout], ids=lambda f: f.__name__
)
def test_each_layout_gives_the_tokens_of_the_network_that_it_was_written_from(layout, tmp_path):
    theirs = source()
    torch.save(layout(theirs.state_dict()), tmp_path / "a.pth")
    ours, x = loaded(tmp_path / "a.pth"), torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).patches, theirs(x).patches, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
def test_dinov2s_own_files_have_registers_chunks_of_blocks_and_gates(gated, tmp_path):
    options = {"registers": 4, "layer_scale": 1e-5}
    theirs = source(**options)
    state = renamed(theirs.state_dict(), (r"^reg_token", "register_tokens"), (r"^blocks\.(\d)", r"blocks.0.\1"))
    torch.save({**state, "mask_token": torch.ones(1, 32)}, tmp_path / "dinov2.pth")
    ours, x = loaded(tmp_path / "dinov2.pth", **options), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).patches, theirs(x).patches, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["authors", "timm", "hugging_face"])
def test_gates_of_feed_forward_parts_may_lie_apart(layout, tmp_path):
    from segatlas.build.vit_weights import translated

    torch.manual_seed(0)
    theirs = randomise(create_token_encoder("dinov3_small_plus", depth=1))
    state = theirs.state_dict()
    if layout == "authors":
        state = split(state, "mlp.fc1.weight", ["mlp.w1.weight", "mlp.w2.weight"])
        state = split(state, "mlp.fc1.bias", ["mlp.w1.bias", "mlp.w2.bias"])
        mask = torch.ones(3 * 384)
        mask[384 : 2 * 384] = 0
        two = [state.pop(f"blocks.0.attn.{kind}_bias") for kind in "qv"]
        state["blocks.0.attn.qkv.bias"] = torch.cat([two[0], torch.full((384,), math.nan), two[1]])
        state = renamed(state, (r"mlp\.fc2", "mlp.w3"), (r"^reg_token", "storage_tokens"))
        state |= {"blocks.0.attn.qkv.bias_mask": mask, "rope_embed.periods": torch.ones(16)}
    elif layout == "timm":
        state = split(state, "mlp.fc1.weight", ["mlp.fc1_g.weight", "mlp.fc1_x.weight"])
        state = split(state, "mlp.fc1.bias", ["mlp.fc1_g.bias", "mlp.fc1_x.bias"])
        state = renamed(state, (r"ls(\d)\.gamma", r"gamma_\1"))
    else:
        state = split(state, "mlp.fc1.weight", ["mlp.gate_proj.weight", "mlp.up_proj.weight"])
        state = split(state, "mlp.fc1.bias", ["mlp.gate_proj.bias", "mlp.up_proj.bias"])
        state = split(state, "attn.qkv.weight", [f"attention.{n}_proj.weight" for n in "qkv"])
        state = renamed(
            state,
            (r"^blocks", "layer"),
            (r"mlp\.fc2", "mlp.down_proj"),
            (r"attn\.proj", "attention.o_proj"),
            (r"ls(\d)\.gamma", r"layer_scale\1.lambda1"),
            (r"^patch_embed\.proj", "embeddings.patch_embeddings"),
            (r"^cls_token", "embeddings.cls_token"),
            (r"^reg_token", "embeddings.register_tokens"),
        )
    ours = create_token_encoder("dinov3_small_plus", depth=1).eval()
    ours.load_state_dict(translated(state, ours)[0])
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).patches, theirs(x).patches, rtol=0, atol=1e-4)


def test_positions_of_another_grid_are_resized(tmp_path):
    theirs = source(image_size=(96, 96))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = loaded(tmp_path / "a.pth")
    cells = theirs.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (6, 6))
    expected = F.interpolate(cells, size=(4, 4), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours.pos_embed[:, 1:], expected)
    torch.testing.assert_close(ours.pos_embed[:, :1], theirs.pos_embed[:, :1])


def test_positions_may_have_no_row_for_the_class_token_or_one_for_a_distilled_token(tmp_path):
    theirs = source()
    cells = theirs.pos_embed[:, 1:]
    for first, dist in ((cells[:, :0], {}), (theirs.pos_embed[:, :1].expand(-1, 2, -1), {"dist_token": cells[:, :1]})):
        torch.save({**theirs.state_dict(), "pos_embed": torch.cat([first, cells], dim=1), **dist}, tmp_path / "a.pth")
        ours = loaded(tmp_path / "a.pth")
        torch.testing.assert_close(ours.pos_embed[:, 1:], cells)
        expected = first[:, :1] if first.shape[1] else torch.zeros(1, 1, 32)
        torch.testing.assert_close(ours.pos_embed[:, :1], expected)


def test_a_class_token_without_position_takes_over_the_row_that_a_file_has_for_it(tmp_path):
    theirs, x = source(), torch.randn(1, 3, 64, 64)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = loaded(tmp_path / "a.pth", class_position=False)
    assert torch.equal(ours.pos_embed, theirs.pos_embed[:, 1:])
    torch.testing.assert_close(ours.cls_token, theirs.cls_token + theirs.pos_embed[:, :1])
    with torch.no_grad():
        torch.testing.assert_close(ours(x).patches, theirs(x).patches, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [14, 20])
def test_patches_of_another_size_are_resized_as_timm_resizes_them(side, tmp_path):
    theirs = source()
    state = dict(theirs.state_dict())
    state["patch_embed.proj.weight"] = kernel = torch.randn(32, 3, side, side)
    torch.save(state, tmp_path / "a.pth")
    expected = timm.layers.resample_patch_embed(kernel, [16, 16])
    torch.testing.assert_close(loaded(tmp_path / "a.pth").patch_embed.proj.weight, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_an_image_of_other_channels_adapts_the_patch_embedding(channels, tmp_path):
    theirs = source()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    net = create_model(
        "linear", num_classes=2, in_channels=channels, encoder=TINY, encoder_weights=str(tmp_path / "a.pth")
    )
    torch.testing.assert_close(net.encoder.patch_embed.proj.weight.sum(1), theirs.patch_embed.proj.weight.sum(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.1.mlp.fc2.bias"), r"1 missing in the file: blocks\.1\.mlp\.fc2\.bias 32"),
        (
            lambda s: s.update({"blocks.2.norm1.bias": torch.ones(32)}),
            r"1 not in the network: blocks\.2\.norm1\.bias 32",
        ),
        (
            lambda s: s.update({"pos_embed": torch.ones(1, 15, 32)}),
            "pos_embed has 15 rows: expected those of a square grid",
        ),
        (lambda s: s.update({"blocks.0.ls1.gamma": torch.ones(32)}), r"not in the network: blocks\.0\.ls1\.gamma"),
        (lambda s: s.update({"cls_token": torch.ones(1, 1, 48)}), r"cls_token: file 1x1x48, network 1x1x32"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path):
    state = dict(source().state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message):
        loaded(tmp_path / "a.pth")


def test_relative_positions_and_factors_of_layers_keep_their_start_where_a_file_has_none(tmp_path):
    torch.save(source().state_dict(), tmp_path / "mae.pth")
    ours = loaded(tmp_path / "mae.pth", relative_positions=True, layer_scale=1.0, final_norm=False)
    assert not ours.blocks[1].attn.relative.table.any()
    assert bool((ours.blocks[1].ls2.gamma == 1).all())


BEIT = {
    "relative_positions": True,
    "absolute_positions": False,
    "key_bias": False,
    "layer_scale": 0.1,
    "final_norm": False,
}


def authors_of_beit(state):
    return {
        "model": renamed(state, (r"ls(\d)\.gamma", r"gamma_\1"), (r"relative\.table", "relative_position_bias_table"))
    }


def mmseg_beit(state):
    state = authors_of_beit(state)["model"]
    pairs = (r"^blocks", "layers"), (r"patch_embed\.proj", "patch_embed.projection"), (r"norm(\d)", r"ln\1")
    feed_forward = (r"mlp\.fc1", "ffn.layers.0.0"), (r"mlp\.fc2", "ffn.layers.1")
    return renamed(state, *pairs, *feed_forward, (r"^", "backbone."))


def hugging_face_beit(state):
    state = split(state, "attn.qkv.weight", [f"attention.attention.{n}.weight" for n in ("query", "key", "value")])
    table = "attention.attention.relative_position_bias.relative_position_bias_table"
    pairs = (r"attn\.q_bias", "attention.attention.query.bias"), (r"attn\.v_bias", "attention.attention.value.bias")
    state = renamed(state, *pairs, (r"attn\.relative\.table", table), (r"ls(\d)\.gamma", r"lambda_\1"))
    pairs = (
        (r"attn\.proj", "attention.output.dense"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
    )
    state = renamed(state, *pairs, (r"norm1", "layernorm_before"), (r"norm2", "layernorm_after"))
    pairs = (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"), (r"^cls", "embeddings.cls")
    return renamed(state, *pairs, (r"^blocks", "encoder.layer"), (r"^", "beit."))


@pytest.mark.parametrize("layout", [authors_of_beit, mmseg_beit, hugging_face_beit], ids=lambda f: f.__name__)
def test_each_layout_of_beit_gives_the_tokens_of_the_network_that_it_was_written_from(layout, tmp_path):
    theirs = source(**BEIT)
    torch.save(layout(theirs.state_dict()), tmp_path / "beit.pth")
    ours, x = loaded(tmp_path / "beit.pth", **BEIT), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).patches, theirs(x).patches, rtol=0, atol=1e-5)


def test_a_table_that_all_blocks_share_goes_to_each_and_is_resized(tmp_path):
    state = {k: t for k, t in source(**BEIT).state_dict().items() if not k.endswith("relative.table")}
    table = torch.randn(11 * 11 + 3, 2)
    torch.save({**state, "rel_pos_bias.relative_position_bias_table": table}, tmp_path / "beit.pth")
    ours = loaded(tmp_path / "beit.pth", **BEIT)
    for block in ours.blocks:
        assert block.attn.relative.table.shape == (7 * 7 + 3, 2)
        torch.testing.assert_close(block.attn.relative.table[-3:], table[-3:])
    torch.testing.assert_close(ours.blocks[0].attn.relative.table, ours.blocks[1].attn.relative.table)


def test_biases_of_keys_that_change_nothing_are_left_out(tmp_path):
    theirs = source(relative_positions=True, absolute_positions=False, final_norm=False)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    assert bool(theirs.blocks[0].attn.qkv.bias.chunk(3)[1].any())
    ours, x = loaded(tmp_path / "a.pth", **{**BEIT, "layer_scale": 0.0}), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).patches, theirs(x).patches, rtol=0, atol=1e-5)


def test_positions_of_another_grid_are_resized_for_timms_own_transformers_too(tmp_path):
    import timm

    theirs = randomise(timm.create_model("vit_tiny_patch16_224", depth=1, img_size=96, num_classes=3))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    encoder = {"name": "vit_tiny_patch16_224", "depth": 1}
    ours = create_model("linear", num_classes=2, encoder=encoder, encoder_weights=str(tmp_path / "a.pth")).encoder
    theirs.set_input_size((224, 224))
    torch.testing.assert_close(ours.model.pos_embed, theirs.pos_embed)


def test_weights_of_timm_are_fetched_by_their_name_and_bring_their_statistics(tmp_path, monkeypatch):
    from segatlas.build import encoder_weights

    asked = []
    torch.save(source().state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(encoder_weights, "fetch_file", lambda *args, **_: asked.append(args[0]) or tmp_path / args[1])
    name = "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"
    net = create_model("linear", num_classes=2, encoder=TINY, encoder_weights=name)
    assert asked == [name]
    assert net.encoder_statistics == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(UsageError, match=r"no such weights; expected one of timm/vit_base_patch16_224\.augreg"):
        create_model("linear", num_classes=2, encoder=TINY, encoder_weights="timm/vit_base_patch16_224.no_such_tag")
    with pytest.raises(UsageError, match="expected timm/ and the name of one of timm's networks"):
        create_model("linear", num_classes=2, encoder=TINY, encoder_weights="timm/no_such_network")


HEADS = {
    "segmenter": {"layers": 1},
    "setr": {"blocks": [1, 0]},
    "dpt": {"blocks": [0, 1], "level_channels": [4, 8], "channels": 8},
    "upernet": {"neck": "resize", "channels": 8},
}


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("head", HEADS)
def test_under_each_decoder_a_file_of_another_grid_fills_the_transformer_alone(head, channels, tmp_path):
    theirs = source(image_size=(96, 96))
    torch.save(timm_layout(theirs.state_dict()), tmp_path / "a.pth")
    fields = {"num_classes": 3, "in_channels": channels, "encoder": TINY, **HEADS[head]}
    nets = []
    for weights in (None, str(tmp_path / "a.pth")):
        torch.manual_seed(0)
        nets.append(create_model(head, encoder_weights=weights, **fields).eval())
    before, after = (net.state_dict() for net in nets)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert all(name.startswith("encoder.") for name in changed)
    vit = getattr(nets[1].encoder, "vit", nets[1].encoder)
    for name in ("blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.bias", "cls_token"):
        assert torch.equal(vit.state_dict()[name], theirs.state_dict()[name])
    assert vit.pos_embed.shape == (1, 1 + 4 * 4, 32)
    torch.testing.assert_close(vit.patch_embed.proj.weight.sum(1), theirs.patch_embed.proj.weight.sum(1))
    with torch.no_grad():
        assert torch.isfinite(nets[1](torch.randn(1, channels, 40, 56)).logits).all()
