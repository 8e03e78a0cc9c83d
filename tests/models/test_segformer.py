from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.segformer import ARCHITECTURE, MLPDecoder

PUBLISHED_MILLIONS = {"b0": 3.75, "b1": 13.72, "b2": 27.46, "b3": 47.34, "b4": 64.11, "b5": 84.71}


@pytest.mark.parametrize("size", PUBLISHED_MILLIONS)
def test_variants_have_the_published_number_of_parameters_for_150_classes(size):
    with shapes_only():
        net = create_model("segformer", num_classes=150, **ARCHITECTURE.variants[f"segformer_{size}"])
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED_MILLIONS[size], abs=0.005)


def upsample_concatenate_fuse(decoder: MLPDecoder, features: list[torch.Tensor]) -> torch.Tensor:
    """The decoder as the paper draws it."""
    upsampled = []
    for x, projection in zip(features, decoder.projections, strict=True):
        tokens = projection(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        upsampled.append(F.interpolate(tokens, size=features[0].shape[-2:], mode="bilinear", align_corners=False))
    return F.relu(decoder.fuse.bn(decoder.fuse.conv(torch.cat(upsampled[::-1], dim=1))))


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.mark.parametrize("training", [False, True])
def test_fusing_before_the_upsampling_equals_the_literal_decoder_with_its_gradients(training):
    torch.manual_seed(0)
    decoder = MLPDecoder((4, 6, 8, 10), 12).train(training)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    sizes = [(17, 23), (9, 12), (5, 6), (3, 3)]
    features = [torch.randn(2, c, *s, requires_grad=True) for c, s in zip((4, 6, 8, 10), sizes, strict=True)]
    wrt = [*features, *decoder.parameters()]

    expected = upsample_concatenate_fuse(decoder, features)
    got = decoder(features)
    assert relative(got, expected) <= 1e-5

    upstream = torch.randn_like(expected)
    for name, ours, theirs in zip(
        [*"abcd", *(n for n, _ in decoder.named_parameters())],
        torch.autograd.grad(got, wrt, upstream),
        torch.autograd.grad(expected, wrt, upstream),
        strict=True,
    ):
        if training and "projections" in name and "bias" in name:
            continue  # batch norm removes every constant: this gradient is zero, and rounding is all there is
        assert relative(ours, theirs) <= 1e-5, name


def test_the_decoder_s_inference_form_equals_the_literal_decoder():
    torch.manual_seed(0)
    decoder = MLPDecoder((4, 6, 8, 10), 12).double().eval()
    for tensor in decoder.parameters():
        torch.nn.init.normal_(tensor)
    decoder.fuse.bn.running_mean.normal_()
    decoder.fuse.bn.running_var.uniform_(0.5, 2)
    sizes = [(17, 23), (9, 12), (5, 6), (3, 3)]
    features = [torch.randn(2, c, *s, dtype=torch.float64) for c, s in zip((4, 6, 8, 10), sizes, strict=True)]
    with torch.no_grad():
        assert relative(decoder.inference_form()(features), upsample_concatenate_fuse(decoder, features)) <= 1e-12


def test_a_resnet_gives_its_four_coarsest_maps():
    net = create_model("segformer", num_classes=2, encoder="resnet18", decoder_channels=8)
    assert [p.in_features for p in net.decoder.projections] == [64, 128, 256, 512]


def test_drop_path_reaches_the_encoder_and_defaults_to_the_encoders_own():
    def last_rate(**fields):
        return create_model("segformer", num_classes=2, decoder_channels=8, **fields).encoder.block4[-1].drop_path.rate

    assert last_rate() == pytest.approx(0.1)
    assert last_rate(drop_path=0.3) == pytest.approx(0.3)
    with pytest.raises(UsageError, match=r"encoder\.drop_path = 0\.3: unknown option of resnet18"):
        create_model("segformer", num_classes=2, encoder="resnet18", drop_path=0.3)
