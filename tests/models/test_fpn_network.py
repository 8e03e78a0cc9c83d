from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.fpn import ARCHITECTURE


def test_variants_have_as_many_parameters_as_segmentation_models_pytorch():
    with shapes_only():
        net = create_model("fpn_r34", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(23.17, abs=0.005)


@pytest.mark.parametrize("merge", ["add", "cat"])
def test_levels_flow_down_and_are_brought_to_the_finest_ones_size(merge):
    torch.manual_seed(0)
    net = create_model("fpn", num_classes=3, **{**ARCHITECTURE.tiny, "merge": merge}).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        below, ready = None, []
        for level, features in reversed(list(enumerate(net.encoder(x)[-4:]))):
            y = net.lateral[level](features)
            if below is not None:
                y = y + below.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            below = y
            for conv in net.levels[level]:
                y = conv(y)
                if level:
                    y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
            ready.append(y)
        joined = torch.cat(ready, dim=1) if merge == "cat" else sum(ready)
        torch.testing.assert_close(net(x).logits, net.classifier(joined), rtol=1e-4, atol=1e-6)
    assert net(x).resample.align_corners


def test_of_an_encoder_with_three_maps_the_image_is_the_finest_level():
    fields = {**ARCHITECTURE.tiny, "encoder": {"name": "resnet18_w8", "levels": 3}, "in_channels": 2}
    net = create_model("fpn", num_classes=3, **fields).eval()
    assert net.lateral[0].in_channels == 2
    out = net(torch.randn(1, 2, 17, 25))
    assert (out.logits.shape, out.canvas) == ((1, 3, 24, 32), (24, 32))


def test_upsampling_inside_by_the_librarys_factor_ends_at_the_images_size_at_most():
    fields = {**ARCHITECTURE.tiny, "inner_upsampling": 4, "encoder": {"name": "resnet18_w8", "levels": 4}}
    torch.manual_seed(0)
    net = create_model("fpn", num_classes=3, **fields).eval()
    x = torch.randn(1, 3, 32, 48)
    out = net(x)
    plain = net.classifier(net.decode(net.encode(x)))  # stride 2
    larger = F.interpolate(plain, scale_factor=4, mode="bilinear", align_corners=True)  # as the library has it
    torch.testing.assert_close(out.logits, F.interpolate(larger, (32, 48), mode="bilinear", align_corners=False))
    assert not out.resample.align_corners


def test_an_encoder_of_too_few_maps_is_refused():
    with pytest.raises(UsageError, match=r"FPN needs an encoder with 4 maps.*\(2, 4\)"):
        create_model("fpn", num_classes=3, encoder={"name": "resnet18_w8", "levels": 2})
