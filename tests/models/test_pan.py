from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.pan import ARCHITECTURE, FeaturePyramidAttention


def test_variants_have_as_many_parameters_as_segmentation_models_pytorch():
    with shapes_only():
        net = create_model("pan_r34", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(21.52, abs=0.005)


def upsample(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def test_the_attention_is_the_papers_figure():
    torch.manual_seed(0)
    block = FeaturePyramidAttention(3, 2, align_corners=True).eval()
    x = torch.randn(1, 3, 9, 16)
    half = block.at_half(F.max_pool2d(x, 2)).relu()
    quarter = block.at_quarter(F.max_pool2d(half, 2)).relu()
    first, second = block.at_eighth
    eighth = second(first(F.max_pool2d(quarter, 2)).relu()).relu()
    y = block.from_quarter(quarter).relu() + upsample(eighth, (2, 4))
    y = block.from_half(half).relu() + upsample(y, (4, 8))
    expected = block.own(x).relu() * upsample(y, (9, 16)) + block.pooled(x.mean((2, 3), keepdim=True)).relu()
    torch.testing.assert_close(block(x), expected)


def test_a_map_of_less_than_eight_cells_is_padded_for_the_weights_alone():
    torch.manual_seed(0)
    block = FeaturePyramidAttention(3, 2, align_corners=True).eval()
    x = torch.randn(1, 3, 1, 9)
    weights = block.weights(F.pad(x, (0, 0, 0, 7)))[..., :1, :]
    expected = block.own(x).relu() * weights + block.pooled(x.mean((2, 3), keepdim=True)).relu()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("output_stride", [16, 32])
def test_logits_are_at_stride_4_and_nothing_is_padded(output_stride):
    net = create_model("pan", num_classes=3, **ARCHITECTURE.tiny, output_stride=output_stride).eval()
    out = net(torch.randn(1, 3, 65, 97))
    assert (out.logits.shape, out.canvas) == ((1, 3, 17, 25), (65, 97))
    assert len(net.upward) == 3


def test_an_encoder_that_ends_at_stride_4_is_refused():
    with pytest.raises(UsageError, match=r"PAN needs.*\(2, 4\)"):
        create_model("pan", num_classes=3, encoder={"name": "resnet18_w8", "levels": 2})
