from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.models.ocrnet import ARCHITECTURE, concatenated

TINY = {"num_classes": 5, **ARCHITECTURE.tiny}
DILATED = {**TINY, "encoder": "resnet18_w8", "output_stride": 8, "levels": 1}


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("variant", "millions"), [("ocrnet_hr18", 12.18), ("ocrnet_hr48", 70.53)])
def test_variants_have_the_published_number_of_parameters_for_150_classes(variant, millions):
    with shapes_only():
        net = create_model("ocrnet", num_classes=150, **ARCHITECTURE.variants[variant])
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_the_numbers_are_those_of_loops_over_regions_and_pixels():
    net = create_model("ocrnet", **TINY).eval().double()
    x = torch.randn(2, 3, 33, 47).double()
    with torch.no_grad():
        features = net.encoder(x)
        coarse = net.region_logits(features)
        wide = net.bottleneck(concatenated(features, align_corners=False))
        expected = torch.empty_like(wide)
        for n in range(2):
            pixels, logits = wide[n].flatten(1), coarse[n].flatten(1)
            regions = [(pixels * torch.exp(k - k.logsumexp(0))).sum(1) for k in logits]
            as_maps = torch.stack(regions, dim=1)[None, :, :, None]
            keys = net.attention.key(as_maps)[0, :, :, 0]
            values = net.attention.value(as_maps)[0, :, :, 0]
            queries = net.attention.query(wide[n : n + 1])[0].flatten(1)
            context = torch.stack([values @ (keys.T @ q / len(q) ** 0.5).softmax(0) for q in queries.T], dim=1)
            context = net.attention.out(context.unflatten(1, wide.shape[2:])[None])
            expected[n] = net.fuse(torch.cat([context, wide[n : n + 1]], dim=1))
        torch.testing.assert_close(net.decode(features), expected)


def test_the_coarse_logits_before_the_upsampling_equal_those_of_the_concatenated_maps():
    net = create_model("ocrnet", **TINY).eval().double()
    with torch.no_grad():
        features = net.encoder(torch.randn(1, 3, 65, 97).double())
        head = net.region_head
        literal = head.classifier(head.conv(concatenated(features, align_corners=False)))
        torch.testing.assert_close(net.region_logits(features), literal)


def test_on_one_map_the_regions_come_from_the_map_before_it_by_a_3x3_convolution():
    net = create_model("ocrnet", **DILATED).eval()
    assert net.region_head.conv.conv.kernel_size == (3, 3)
    with torch.no_grad():
        features = net.encoder(torch.randn(1, 3, 33, 33))
        before = net.region_logits(features)
        features[-1] = features[-1] + 1
        assert torch.equal(net.region_logits(features), before)
        assert before.shape[2:] == features[-1].shape[2:]


def test_the_regions_logits_are_given_while_training_unless_switched_off():
    x = torch.randn(2, 3, 33, 47)
    out = create_model("ocrnet", **TINY).train()(x)
    assert list(out.aux) == ["regions"]
    assert out.aux["regions"].shape == out.logits.shape
    silent = create_model("ocrnet", **{**TINY, "aux": False}).train()
    assert silent.aux_names == ()
    assert silent(x).aux == {}


def test_the_attention_is_over_classes_so_that_a_shuffle_of_the_image_shuffles_the_context():
    net = create_model("ocrnet", **TINY).eval()
    x, regions = torch.randn(1, 16, 4, 6), torch.randn(1, 16, 5, 1)
    order = torch.randperm(24)
    with torch.no_grad():
        plain = net.attention(x, regions).flatten(2)[:, :, order]
        shuffled = net.attention(x.flatten(2)[:, :, order].unflatten(2, (4, 6)), regions[:, :, torch.randperm(5)])
    torch.testing.assert_close(F.relu(shuffled.flatten(2)), plain, rtol=1e-4, atol=1e-5)
