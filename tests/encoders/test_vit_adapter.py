"""segatlas.encoders.vit_adapter."""

from __future__ import annotations

import pytest
import torch
from fakes.golden import digest, filled, golden_input
from torch.nn import functional as F

from segatlas.build.encoder_weights import load_encoder_weights
from segatlas.build.network import build_empty, create_model, make_config, shapes_only
from segatlas.config.schema import OptimizerConfig
from segatlas.conversion.importers.renames import to_theirs
from segatlas.conversion.importers.vit_adapter.backbone import BACKBONE, POSITIONS, changes
from segatlas.encoders.spec import create_encoder, create_token_encoder
from segatlas.training.optim import parameter_groups

COUNTS = {
    "vit_adapter_tiny": 7_966_640,
    "vit_adapter_small": 27_503_888,
    "vit_adapter_base": 99_495_392,
    "vit_adapter_large": 326_584_512,
}
"""The authors' own, which have a position for a class token that nothing depends on: one more row than ours."""

ENTRIES = {"vit_adapter_tiny": 410, "vit_adapter_small": 410, "vit_adapter_base": 410, "vit_adapter_large": 578}
"""Tensors in the authors' state dict."""

GOLDEN = [
    ([1, 192, 16, 24], 0.00262989267682, 1.38547821678, 6.27563063283, {
        7919: 0.296367110336, 15838: 0.105354553484, 23757: 1.07803495236, 31676: -0.644308031117,
        39595: -0.595354463258, 47514: 1.29302721968, 55433: -0.366492412656, 63352: -0.309638237255,
    }),
    ([1, 192, 8, 12], 0.0205754538886, 2.35575180412, 12.9764248977, {
        7919: 0.526973503818, 15838: 0.739402462919, 5325: -4.02354542822, 13244: -3.52629861081,
        2731: -2.58930275335, 10650: -3.48293570265, 137: -4.41496384404, 8056: 2.36907945489,
    }),
    ([1, 192, 4, 6], 0.0855965272989, 2.12063819385, 8.55934353081, {
        3311: -1.82905930644, 2014: 3.45415547215, 717: 0.216948777494, 4028: 2.48516878274,
        2731: -1.37530179166, 1434: 2.12449185083, 137: 2.76065988419, 3448: 0.413453254571,
    }),
    ([1, 192, 2, 3], -0.0498866989981, 1.92503651246, 7.36531847682, {
        1007: 1.13936878938, 862: 1.66457293783, 717: -1.13878692854, 572: 5.35423801437,
        427: 0.573815063391, 282: 0.873992351181, 137: 1.27117604722, 1144: 0.943301376353,
    }),
]  # fmt: skip
"""What the authors' ViT-Adapter-T gives in float64 for a 64 x 96 image, its weights filled by names and shapes."""


def authors_name(ours: str) -> str:
    theirs = to_theirs(f"encoder.{ours}", BACKBONE)
    assert theirs is not None, ours
    return theirs.removeprefix("backbone.")


def authors_filled(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the encoder's state, each tensor filled by the rule under the authors' name and in their shape."""
    to_ours, back = changes()[POSITIONS]
    state = {}
    for name, tensor in encoder.state_dict().items():
        special = f"encoder.{name}" == POSITIONS
        shape = back(tensor).shape if special else tensor.shape
        values = filled(authors_name(name), tuple(shape)) if tensor.is_floating_point() else tensor
        state[name] = to_ours(values) if special else values
    return state


def test_the_golden_digest_of_the_authors_network():
    encoder = create_encoder("vit_adapter_tiny").double().eval()
    encoder.load_state_dict(authors_filled(encoder))
    with torch.no_grad():
        maps = encoder(golden_input((1, 3, 64, 96)))
    for found, (shape, mean, std, absmax, at) in zip(map(digest, maps), GOLDEN, strict=True):
        assert found["shape"] == shape
        for value, expected in ((found["mean"], mean), (found["std"], std), (found["absmax"], absmax)):
            assert abs(value - expected) <= 1e-6 * absmax
        for place, expected in at.items():
            assert abs(found["at"][str(place)] - expected) <= 1e-6 * absmax


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_tensors_are_as_many_as_the_authors_have(name):
    with shapes_only():
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == COUNTS[name] - encoder.channels[0]
    assert len({authors_name(key) for key in encoder.state_dict()}) == ENTRIES[name]


@pytest.mark.parametrize(("size", "millions"), [("t", 36), ("s", 58), ("b", 134), ("l", 364)])
def test_with_a_upernet_on_it_there_are_as_many_parameters_as_the_authors_state(size, millions):
    net = build_empty(*make_config(f"upernet_vit_adapter_{size}", {"num_classes": 150, "aux": True}))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.6)


def test_names_and_shapes_of_the_small_one_are_the_authors():
    with shapes_only():
        encoder = create_encoder("vit_adapter_small")
    shapes = {authors_name(key): tuple(t.shape) for key, t in encoder.state_dict().items()}
    expected = {
        "level_embed": (3, 384),
        "blocks.11.gamma2": (384,),
        "blocks.0.attn.qkv.weight": (1152, 384),
        "spm.stem.0.weight": (64, 3, 3, 3),
        "spm.stem.7.running_var": (64,),
        "spm.conv4.0.weight": (256, 256, 3, 3),
        "spm.fc1.bias": (384,),
        "interactions.0.injector.gamma": (384,),
        "interactions.2.injector.attn.sampling_offsets.weight": (144, 384),
        "interactions.2.injector.attn.attention_weights.bias": (72,),
        "interactions.1.extractor.attn.sampling_offsets.weight": (48, 384),
        "interactions.1.extractor.attn.attention_weights.weight": (24, 384),
        "interactions.1.extractor.ffn.fc1.weight": (96, 384),
        "interactions.1.extractor.ffn.dwconv.dwconv.weight": (96, 1, 3, 3),
        "interactions.3.extra_extractors.1.ffn_norm.weight": (384,),
        "interactions.3.extra_extractors.0.ffn.dwconv.dwconv.bias": (96,),
        "up.weight": (384, 384, 2, 2),
        "norm4.running_mean": (384,),
    }
    assert {name: shapes[name] for name in expected} == expected


def test_at_first_the_transformer_is_told_nothing_and_runs_as_it_would_alone():
    torch.manual_seed(0)
    encoder = create_encoder("vit_adapter_w32", layer_scale=1.0).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        _finest, *_maps = encoder.spm(x)
        alone = [m for t in (0, 1, 2, 3) for m in encoder.vit(x, at=(t,)).maps()]
        kept = []
        encoder.pyramid = lambda finest, maps, own: kept.extend(own) or maps
        encoder(x)
    for got, expected in zip(kept, alone, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_the_feed_forward_part_convolves_each_map_alone_with_one_kernel():
    torch.manual_seed(0)
    part = create_encoder("vit_adapter_w32").interactions[0].extractors[0].ffn
    grids = [(4, 6), (2, 3), (1, 2)]
    cells = torch.randn(2, 32, 32)
    got = part(cells, grids)
    start = 0
    for h, w in grids:
        x = cells[:, start : start + h * w] @ part.fc1.weight.t() + part.fc1.bias
        x = F.conv2d(x.transpose(1, 2).reshape(2, -1, h, w), part.dwconv.weight, part.dwconv.bias, padding=1, groups=8)
        expected = part.fc2(F.gelu(x.flatten(2).transpose(1, 2)))
        torch.testing.assert_close(got[:, start : start + h * w], expected, rtol=1e-4, atol=1e-5)
        start += h * w


def test_layer_decay_falls_over_the_transformer_and_leaves_the_adapter_at_the_encoders_rate():
    net = create_model("upernet", encoder="vit_adapter_w32", num_classes=3, channels=8)
    groups = parameter_groups(net, OptimizerConfig(layer_decay=0.5, encoder_lr_factor=0.1), 1.0)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    vit = net.encoder.vit
    found = [rates[id(vit.blocks[i].norm1.weight)] for i in range(4)]
    assert found == pytest.approx([0.1 * 0.5**depth for depth in (4, 3, 2, 1)])
    assert rates[id(vit.pos_embed)] == pytest.approx(0.1 * 0.5**5)
    assert rates[id(vit.patch_embed.proj.weight)] == pytest.approx(0.1 * 0.5**5)
    for part in (*net.encoder.spm.parameters(), *net.encoder.interactions.parameters(), net.encoder.up.weight):
        assert rates[id(part)] == pytest.approx(0.1)
    assert rates[id(net.classifier.weight)] == 1


def test_an_imagenet_file_fills_the_transformer_and_leaves_the_adapter_as_it_starts(tmp_path):
    torch.manual_seed(1)
    theirs = {**create_token_encoder("vit_w32").state_dict(), "head.weight": torch.ones(10, 32)}
    torch.save(theirs, tmp_path / "deit.pth")

    def make(**fields):
        torch.manual_seed(0)
        return create_model("upernet", encoder="vit_adapter_w32", num_classes=3, channels=8, **fields)

    before = make().encoder.state_dict()
    net = make()
    dropped = load_encoder_weights(net, str(tmp_path / "deit.pth"))
    assert set(dropped) == {"cls_token", "norm.weight", "norm.bias", "head.weight"}
    for name, tensor in net.encoder.state_dict().items():
        own = name.removeprefix("vit.")
        if name == "vit.pos_embed":
            assert torch.equal(tensor, theirs[own][:, 1:])
        elif name.endswith(".gamma") and name.startswith("vit."):
            assert (tensor == 1).all()
        else:
            assert torch.equal(tensor, theirs[own] if name.startswith("vit.") else before[name]), name


def test_drop_path_rises_over_the_blocks_and_is_at_its_value_in_the_extractors():
    with shapes_only():
        encoder = create_encoder("vit_adapter_small")
    assert [b.drop_path.rate for b in encoder.vit.blocks] == pytest.approx([0.2 * i / 11 for i in range(12)])
    rates = [e.drop_path.rate for i in encoder.interactions for e in i.extractors]
    assert rates == [0.2] * 6
    assert create_encoder("vit_adapter_w32", drop_path=0.0).interactions[3].extractors[2].drop_path.rate == 0
