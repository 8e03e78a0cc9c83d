from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.build.network import shapes_only
from segatlas.encoders.spec import create_encoder
from segatlas.errors import UsageError

BACKBONE_PARAMETERS = {"resnet18": 11_176_512, "resnet34": 21_284_672, "resnet50": 23_508_032, "resnet101": 42_500_160}


@pytest.mark.parametrize("name", BACKBONE_PARAMETERS)
def test_parameter_counts_are_the_published_ones_without_classifier(name):
    with shapes_only():
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == BACKBONE_PARAMETERS[name]


@pytest.mark.parametrize(
    ("output_stride", "strides"), [(32, (2, 4, 8, 16, 32)), (16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))]
)
@pytest.mark.parametrize("name", ["resnet18", "resnet50d"])
def test_output_stride_dilates_the_last_layers_instead_of_striding(name, output_stride, strides):
    encoder = create_encoder(name, output_stride=output_stride).eval()
    assert encoder.strides == strides
    assert tuple(64 // f.shape[-1] for f in encoder(torch.randn(1, 3, 64, 64))) == strides
    dilations = {m.dilation[0] for m in encoder.layer4.modules() if isinstance(m, nn.Conv2d)}
    assert max(dilations) == 32 // output_stride


def test_a_dilated_network_sees_what_the_striding_one_sees():
    """Every second value of the dilated last map equals the strided map, away from the border."""
    torch.manual_seed(0)
    strided, dilated = create_encoder("resnet18").eval(), create_encoder("resnet18", output_stride=16).eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, 512, 64)
    with torch.no_grad():
        torch.testing.assert_close(dilated(x)[-1][:, :, ::2, ::2], strided(x)[-1], rtol=1e-4, atol=1e-4)


def test_another_output_stride_is_refused():
    with pytest.raises(UsageError, match="output_stride = 4"):
        create_encoder("resnet18", output_stride=4)


def test_c_and_d_forms_have_a_stem_of_three_convolutions_and_only_d_averages_its_shortcuts():
    def convolutions(part):
        return [m.kernel_size[0] for m in part.modules() if isinstance(m, nn.Conv2d)]

    plain, c, d = (create_encoder(name) for name in ("resnet50", "resnet50c", "resnet50d"))
    assert [convolutions(net.conv1) for net in (plain, c, d)] == [[7], [3, 3, 3], [3, 3, 3]]
    pools = [sum(isinstance(m, nn.AvgPool2d) for m in net.modules()) for net in (plain, c, d)]
    assert pools == [0, 0, 3]


@pytest.mark.parametrize("name", ["resnet50", "resnet101c"])
def test_the_stride_of_a_bottleneck_is_in_its_3x3_convolution(name):
    block = create_encoder(name).layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))
