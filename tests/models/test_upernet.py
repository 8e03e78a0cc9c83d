from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.encoders.spec import create_token_encoder
from segatlas.errors import UsageError
from segatlas.models.upernet import ARCHITECTURE, DeconvolveNeck, ResizeNeck


@pytest.mark.parametrize(("aux", "millions"), [(True, 66.52), (False, 64.12)])
def test_it_has_the_published_number_of_parameters_for_150_classes(aux, millions):
    with shapes_only():
        net = create_model("upernet", num_classes=150, aux=aux)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_decoder_equals_the_one_that_upsamples_and_concatenates_with_its_gradients(align_corners, training):
    torch.manual_seed(0)
    fields = {**ARCHITECTURE.tiny, "pool_scales": (1, 3)}
    net = create_model("upernet", num_classes=3, align_corners=align_corners, **fields).train(training)
    sizes = ((17, 23), (9, 12), (5, 6), (3, 3))
    features = [torch.randn(2, c, *s, requires_grad=True) for c, s in zip((8, 16, 32, 64), sizes, strict=True)]

    def up(x, size):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    def block(part, x):
        return F.relu(part.bn(part.conv(x)))

    pooled = [block(conv, F.adaptive_avg_pool2d(features[3], s)) for conv, s in zip(net.ppm.pools, (1, 3), strict=True)]
    top = block(net.ppm.fuse, torch.cat([features[3], *(up(x, sizes[3]) for x in pooled)], dim=1))
    levels = [top]
    for i in (2, 1, 0):
        levels.insert(0, block(net.lateral[i], features[i]) + up(levels[0], sizes[i]))
    outputs = [block(conv, x) for conv, x in zip(net.output, levels[:3], strict=True)] + [top]
    expected = block(net.fuse, torch.cat([up(x, sizes[0]) for x in outputs], dim=1))

    got = net.decode(features)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    wrt = [*features, net.fuse.conv.weight, net.ppm.fuse.conv.weight]
    upstream = torch.randn_like(expected)
    slow = torch.autograd.grad(expected, wrt, upstream, retain_graph=True)
    for ours, theirs in zip(torch.autograd.grad(got, wrt, upstream), slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


ON_TRANSFORMERS = {  # millions of parameters for 150 classes with and, as in inference, without the auxiliary head
    "upernet_vit_b16_mln": (144.17, 142.36),
    "upernet_deit_s16": (52.09, 51.17),
    "upernet_deit_b16": (120.57, 118.77),
}

COUNTED = {  # the same, as numbers: MMSegmentation's networks, counted
    "upernet_beit_b": (163_407_980, 161_599_446),
    "upernet_beit_l": (441_271_084, 438_872_726),
    "upernet_swin_t": (59_941_862, 59_018_064),
    "upernet_swin_s": (81_259_766, 80_335_968),
    "upernet_swin_b": (121_279_716, 120_061_006),
    "upernet_swin_b_w12": (121_415_076, 120_196_366),
    "upernet_swin_l": (233_759_936, 231_951_402),
    "upernet_swin_l_w12": (233_962_976, 232_154_442),
    "upernet_twins_pcpvt_s": (54_080_044, 53_303_702),
    "upernet_twins_pcpvt_b": (73_802_284, 73_025_942),
    "upernet_twins_pcpvt_l": (90_963_500, 90_187_158),
    "upernet_twins_svt_s": (53_856_300, 53_227_414),
    "upernet_twins_svt_b": (87_724_460, 86_800_662),
    "upernet_twins_svt_l": (132_782_892, 131_564_182),
    "upernet_convnext_t": (60_242_636, 59_318_838),
    "upernet_convnext_s": (81_877_196, 80_953_398),
    "upernet_convnext_b": (122_102_956, 120_884_246),
    "upernet_convnext_l": (234_994_796, 233_186_262),
    "upernet_convnext_xl": (391_140_396, 388_742_038),
}


@pytest.mark.parametrize("name", COUNTED)
def test_variants_on_beit_swin_twins_and_convnext_have_exactly_mmsegmentations_number_of_parameters(name):
    with torch.device("meta"):
        nets = [create_model(name, num_classes=150, aux=aux) for aux in (True, False)]
    assert tuple(sum(p.numel() for p in net.parameters()) for net in nets) == COUNTED[name]


def test_the_auxiliary_head_sees_the_normed_map_where_maps_are_normed():
    torch.manual_seed(0)
    net = create_model("upernet", num_classes=3, norm_maps=True, **ARCHITECTURE.tiny).eval()
    features = [torch.randn(2, c, s, s) for c, s in zip((8, 16, 32, 64), (16, 8, 4, 2), strict=True)]
    torch.nn.init.normal_(net.norms[2].weight)
    expected = net.aux_head(net.norms[2](features[2]))
    torch.testing.assert_close(net.aux(features)["fcn"], expected)


@pytest.mark.parametrize("name", ON_TRANSFORMERS)
def test_variants_on_transformers_have_mmsegmentations_number_of_parameters(name):
    with shapes_only():
        net = create_model(name, num_classes=150, aux=True, encoder={"patch_bias": False})
    own = {key: p.numel() for key, p in net.named_parameters()}
    whole, inference = ON_TRANSFORMERS[name]
    assert sum(own.values()) / 1e6 == pytest.approx(whole, abs=0.006)
    assert sum(n for key, n in own.items() if "aux_head" not in key) / 1e6 == pytest.approx(inference, abs=0.006)


def test_the_neck_of_resized_maps_equals_the_one_that_upsamples_before_its_convolutions():
    torch.manual_seed(0)
    neck = ResizeNeck(8)
    for conv in (*neck.lateral, *neck.output):
        torch.nn.init.normal_(conv.bias)
    maps = [torch.randn(2, 8, 5, 7, requires_grad=True) for _ in range(4)]
    expected = []
    for x, lateral, output, scale in zip(maps, neck.lateral, neck.output, (4, 2, 1, 0.5), strict=True):
        expected.append(output(F.interpolate(lateral(x), scale_factor=scale, mode="bilinear")))
    got = neck(maps)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    slow = torch.autograd.grad([x.sin().sum() for x in expected], [*maps, neck.output[0].weight], retain_graph=True)
    fast = torch.autograd.grad([x.sin().sum() for x in got], [*maps, neck.output[0].weight])
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("neck", [ResizeNeck, DeconvolveNeck])
def test_a_map_of_one_pixel_is_halved_to_one_pixel(neck):
    maps = [torch.randn(1, 8, 1, 3) for _ in range(4)]
    assert [tuple(x.shape[-2:]) for x in neck(8).eval()(maps)] == [(4, 12), (2, 6), (1, 3), (1, 1)]


def test_the_auxiliary_head_sees_the_map_that_is_named():
    fields = {"encoder": {"name": "vit_w32", "image_size": (32, 32)}, "channels": 8, "aux": True, "aux_channels": 8}
    sizes = {}
    for level in (1, 2, 3):
        net = create_model("upernet", num_classes=3, neck="resize", aux_level=level, **fields).train()
        sizes[level] = net(torch.randn(2, 3, 64, 64)).aux["fcn"].shape[-1]
    assert sizes == {1: 2, 2: 4, 3: 8}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"encoder": "resnet18_w8"},
            r"takes four maps of one width and stride, but resnet18_w8 gives maps of 8, 8, 16, 32, 64 channels",
        ),
        (
            {"encoder": {"name": "vit_w32", "at": [3]}},
            "four maps of one width and stride, but vit_w32 gives maps of 32 ",
        ),
        ({"encoder": {"name": "vit_w32", "at": [4]}}, "the encoder has 4 blocks, and no block 4"),
        ({"encoder": "vit_w32", "aux_level": 0}, "aux_level: got 0, expected 1 or more"),
    ],
)
def test_what_no_neck_can_be_made_for_is_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        create_model("upernet", num_classes=3, neck="resize", **fields)


def test_a_plain_transformer_of_timm_stands_under_the_neck_with_the_blocks_that_are_named():
    encoder = {"name": "test_vit", "at": [0, 1, 3, 5]}
    net = create_model("upernet", num_classes=3, encoder=encoder, neck="resize", channels=8).eval()
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        assert net(x).logits.shape == (1, 3, 12, 12)
        tokens = create_token_encoder("test_vit").eval()
        state = {key.replace("model.model.", "model."): t for key, t in net.encoder.state_dict().items()}
        tokens.load_state_dict({key: state.get(key, t) for key, t in tokens.state_dict().items()})
        image = torch.randn(1, 3, 32, 48)
        expected = tokens(image, at=(0, 1, 3, 5), norm=False).maps()
        for found, wanted in zip(net.encoder(image), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder", ["resnet18_w8", "hrnet_w8_small", "mit_b0"])
def test_any_encoder_of_four_levels_will_do(encoder):
    net = create_model("upernet", num_classes=3, encoder=encoder, channels=8).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 33, 47)).logits.shape == (1, 3, 9, 12)
