from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.deeplabv3plus import ARCHITECTURE, SMP

MILLIONS = {
    "deeplabv3plus_r50": (43.69, True),
    "deeplabv3plus_mobilenet_v2": (15.35, True),
    "deeplabv3plus_r34_smp": (22.48, False),
}


@pytest.mark.parametrize("variant", MILLIONS)
def test_variants_have_the_published_number_of_parameters_for_150_classes(variant):
    expected, aux = MILLIONS[variant]
    fields = dict(ARCHITECTURE.variants[variant]) | ({"aux_channels": 256} if aux else {})
    with shapes_only():
        net = create_model("deeplabv3plus", num_classes=150, aux=aux, **fields)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_logits_are_at_stride_4_whatever_the_encoders_stride(output_stride):
    net = create_model("deeplabv3plus", num_classes=3, **ARCHITECTURE.tiny, output_stride=output_stride).eval()
    assert net(torch.randn(1, 3, 64, 97)).logits.shape == (1, 3, 16, 25)


def test_the_decoder_is_the_papers_figure():
    torch.manual_seed(0)
    net = create_model("deeplabv3plus", num_classes=3, **ARCHITECTURE.tiny).eval()
    x = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        features = net.encoder(x)
        last, early = features[-1], features[1]
        pooled = net.aspp.pool(last.mean((2, 3), keepdim=True)).expand(-1, -1, *last.shape[-2:])
        wide = torch.cat([*(branch(last) for branch in net.aspp.branches), pooled], dim=1)
        context = F.relu(net.aspp.fuse.bn(net.aspp.fuse.conv(wide)))
        context = F.interpolate(context, early.shape[-2:], mode="bilinear", align_corners=False)
        expected = net.classifier(net.refine(torch.cat([context, net.low(early)], dim=1)))
        assert torch.allclose(net(x).logits, expected, atol=1e-4)


def test_an_encoder_without_a_map_at_stride_4_is_refused():
    with pytest.raises(UsageError, match="map at stride 4"):
        create_model("deeplabv3plus", num_classes=3, encoder="timm/vit_tiny_patch16_224", output_stride=None)


def test_segmentation_models_pytorchs_form_has_one_norm_in_a_separable_convolution():
    net = create_model("deeplabv3plus", num_classes=3, **{**SMP, "encoder": "resnet18_w8", "channels": 8})
    assert [len(net.fuse_convs), len(net.refine)] == [1, 1]
    assert net.refine[0].depthwise_bn is None
    assert net.aspp.fuse.conv.kernel_size == (1, 1)
