from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError


def parameters(**fields) -> int:
    with shapes_only():
        return sum(p.numel() for p in create_model("unet", **fields).parameters())


def test_the_plain_network_has_the_published_31_million_parameters():
    assert parameters(num_classes=2) == 31_037_698


def test_the_encoder_form_has_as_many_parameters_as_segmentation_models_pytorch():
    assert parameters(num_classes=1, encoder="resnet34") == 24_436_369
    assert parameters(num_classes=1, encoder="resnet18") == 14_328_209
    assert parameters(num_classes=1, encoder="mobilenet_v2") == 6_628_945


def conv_bn_relu(state, name, x):
    x = F.conv2d(x, state[f"{name}.conv.weight"], padding=1)
    bn = (state[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(x, *bn))


def two_convs(state, name, x):
    return conv_bn_relu(state, f"{name}.1", conv_bn_relu(state, f"{name}.0", x))


def test_the_plain_network_is_the_figure_of_the_paper():
    torch.manual_seed(0)
    net = create_model("unet", num_classes=3, width=2).eval()
    state, x = net.state_dict(), torch.randn(1, 3, 32, 48)
    down = [two_convs(state, "encoder.levels.0", x)]
    for level in range(1, 5):
        down.append(two_convs(state, f"encoder.levels.{level}", F.max_pool2d(down[-1], 2)))
    up = down.pop()
    for step in range(4):
        name = f"decoder.{step}"
        up = F.conv_transpose2d(up, state[f"{name}.up.weight"], state[f"{name}.up.bias"], stride=2)
        up = two_convs(state, f"{name}.convs", torch.cat([down.pop(), up], dim=1))
    expected = F.conv2d(up, state["classifier.weight"], state["classifier.bias"])
    torch.testing.assert_close(net(x).logits, expected)


def test_the_encoder_form_doubles_by_nearest_neighbour_and_takes_a_skip_where_the_encoder_has_a_map():
    torch.manual_seed(0)
    net = create_model("unet", num_classes=3, encoder="mit_b0", decoder_channels=(8, 8, 8, 4, 4)).eval()
    state, x = net.state_dict(), torch.randn(1, 3, 64, 96)
    *skips, y = net.encoder(x)
    for step in range(5):
        y = y.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        if skips:
            y = torch.cat([y, skips.pop()], dim=1)
        y = conv_bn_relu(state, f"decoder.{step}.conv2", conv_bn_relu(state, f"decoder.{step}.conv1", y))
    expected = F.conv2d(y, state["classifier.weight"], state["classifier.bias"], padding=1)
    torch.testing.assert_close(net(x).logits, expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))


def test_padding_of_the_plain_network_is_zeros_right_and_bottom_and_named_in_the_canvas():
    torch.manual_seed(0)
    net = create_model("unet", num_classes=2, width=2).eval()
    multiple = net.encoder.strides[-1]
    x = torch.randn(1, 3, 2 * multiple - 5, 3 * multiple - 1)
    canvas = torch.zeros(1, 3, 2 * multiple, 3 * multiple)
    canvas[:, :, :-5, :-1] = x
    out = net(x)
    assert out.canvas == (2 * multiple, 3 * multiple)
    assert torch.equal(out.logits, net(canvas).logits)


@pytest.mark.parametrize(("encoder", "steps", "half"), [("resnet18", 5, None), ("mit_b0", 5, (30, 45))])
def test_the_encoder_form_upsamples_to_the_size_of_each_map_of_an_odd_image_and_pads_nothing(encoder, steps, half):
    torch.manual_seed(0)
    net = create_model("unet", num_classes=2, encoder=encoder, decoder_channels=(4,) * steps).eval()
    sizes = []
    for step in net.decoder:
        step.register_forward_hook(lambda module, args, out: sizes.append(tuple(out.shape[-2:])))
    out = net(torch.randn(1, 3, 61, 91))
    stride_2 = half or (31, 46)
    assert sizes == [(4, 6), (8, 12), (16, 23), stride_2, (61, 91)]
    assert out.canvas == (61, 91)
    assert out.logits.shape[-2:] == (61, 91)


@pytest.mark.parametrize(("steps", "stride"), [(1, 16), (2, 8), (3, 4), (4, 2), (5, 1)])
def test_fewer_decoder_steps_leave_the_logits_at_a_coarser_stride(steps, stride):
    net = create_model("unet", num_classes=2, encoder="resnet18", decoder_channels=(4,) * steps).eval()
    assert net(torch.randn(1, 3, 64, 64)).logits.shape[-1] == 64 // stride


@pytest.mark.parametrize("steps", [0, 6])
def test_a_decoder_of_no_steps_or_too_many_is_refused(steps):
    with pytest.raises(UsageError, match=rf"decoder_channels has {steps} entries.*1 to 5"):
        create_model("unet", num_classes=2, encoder="resnet18", decoder_channels=(4,) * steps)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    net = create_model("unet", num_classes=2, width=4, dropout=0.5)
    x = torch.randn(2, 3, 32, 32)
    net.train()
    assert not torch.equal(net(x).logits, net(x).logits)
    net.eval()
    assert torch.equal(net(x).logits, net(x).logits)
