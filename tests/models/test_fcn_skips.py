from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.layers.init import start_bilinear

FULLY = (512 * 49 + 1) * 4096 + (4096 + 1) * 4096
VGG = 14_714_688


@pytest.mark.parametrize(("variant", "widths"), [("fcn_32s", ()), ("fcn_16s", (512,)), ("fcn_8s", (512, 256))])
def test_variants_have_the_layers_of_the_paper(variant: str, widths: tuple[int, ...]):
    with shapes_only():
        net = create_model(variant, num_classes=21)
    scores = sum((width + 1) * 21 for width in (4096, *widths))
    assert sum(p.numel() for p in net.parameters()) == VGG + FULLY + scores + len(widths) * 21 * 21 * 16


def test_a_transposed_convolution_starts_as_bilinear_interpolation():
    up = torch.nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1, bias=False)
    start_bilinear(up.weight)
    x = torch.randn(1, 3, 6, 7)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(up(x)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])


def test_scores_of_finer_maps_after_their_pooling_are_added_to_doubled_scores():
    torch.manual_seed(0)
    net = create_model("fcn_skips", num_classes=3, encoder="vgg11", channels=8).eval()
    head = net.classifier
    for parameter in head.scores.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 3, 70, 96)
    with torch.no_grad():
        y, pooled = F.pad(x, (0, 0, 0, 26)), []
        for layer in net.encoder.features:
            y = layer(y)
            if isinstance(layer, torch.nn.MaxPool2d):
                pooled.append(y)
        scores = head.scores[0](F.relu(net.fc7(F.relu(net.fc6(pooled[4])))))
        scores = head.ups[0](scores) + head.scores[1](pooled[3])
        scores = head.ups[1](scores) + head.scores[2](pooled[2])
        out = net(x)
    torch.testing.assert_close(out.logits, scores)
    assert out.logits.shape == (1, 3, 12, 12)
    assert out.canvas == (96, 96)


def test_skips_begin_with_nothing_to_say():
    net = create_model("fcn_skips", num_classes=2, encoder="resnet18_w8", channels=4)
    assert not any(score.weight.any() or score.bias.any() for score in list(net.classifier.scores)[1:])


def test_an_encoder_that_does_not_reach_stride_32_is_refused():
    with pytest.raises(UsageError, match="down to stride 32"):
        create_model("fcn_skips", num_classes=2, encoder={"name": "resnet18", "output_stride": 8})
