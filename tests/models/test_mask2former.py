"""What is particular to Mask2Former: where queries look, which layers predict, and that both ways there agree."""

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import build_network, make_config, shapes_only
from segatlas.errors import UsageError
from segatlas.layers.query_decoder import allowed_cells, resized, sine_positions
from segatlas.models.mask2former import ARCHITECTURE

K = 3


def network(**fields):
    torch.manual_seed(0)
    return build_network(*make_config("mask2former", {"num_classes": K, **ARCHITECTURE.tiny, **fields}))


@pytest.mark.parametrize(
    ("variant", "classes", "parameters"),
    [
        ("mask2former_r50", 133, 44_036_998),
        ("mask2former_r50", 150, 44_041_367),
        ("mask2former_swin_t", 150, 47_439_633),
    ],
)
def test_the_published_forms_have_their_parameters(variant, classes, parameters):
    with shapes_only():
        net = build_network(*make_config(variant, {"num_classes": classes}))
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_every_layer_predicts_while_training_and_the_last_one_alone_otherwise():
    net, x = network(layers=4), torch.randn(2, 3, 61, 93)
    output = net.train()(x)
    assert tuple(output.aux) == ("layer_0", "layer_1", "layer_2", "layer_3")
    for layer in output.layers:
        assert layer.class_logits.shape == (2, 6, K + 1)
        assert layer.mask_logits.shape == (2, 6, 16, 24)  # stride 4 of the padded image
    assert tuple(output.canvas) == (64, 96)
    assert not net.eval()(x).aux


def test_masks_of_resized_features_are_resized_masks():
    net, x = network(layers=4).double().eval(), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        quick = net(x)
        net.training = True  # the network alone: it makes all masks at full size and resizes them
        plain = net(x)
    for name in ("class_logits", "mask_logits"):
        assert torch.allclose(getattr(quick, name), getattr(plain, name), atol=1e-12, rtol=1e-10)


def test_a_query_looks_inside_its_mask_and_one_with_an_empty_mask_everywhere():
    logits = torch.tensor([[[[-1.0, 2.0], [0.0, -3.0]], [[-1.0, -1.0], [-1.0, -1.0]]]])
    allowed = allowed_cells(logits)
    assert allowed.shape == (1, 1, 2, 4)
    assert allowed[0, 0].tolist() == [[False, True, True, False], [True] * 4]


def test_what_lies_outside_of_a_mask_does_not_change_a_query():
    net = network().eval()
    layer, queries = net.layers[0], torch.randn(1, 6, 8)
    cells = torch.randn(1, 10, 8)
    allowed = torch.zeros(1, 1, 6, 10, dtype=torch.bool)
    allowed[..., :4] = True
    other = torch.cat([cells[:, :4], torch.randn(1, 6, 8)], dim=1)
    with torch.no_grad():
        first, second = (layer(queries, net.query_positions, one, one, allowed) for one in (cells, other))
    assert torch.equal(first, second)


def test_attention_takes_no_gradient_from_masks():
    net, x = network(layers=2).train(), torch.randn(1, 3, 64, 64)
    output = net(x)
    (output.class_logits.sum() + output.mask_logits.sum()).backward()
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    assert not allowed_cells(resized(logits, (2, 2))).requires_grad


def slow_positions(height, width, channels):
    """Carion et al. 2020, number by number."""
    found = torch.empty(height, width, channels)
    half = channels // 2
    for row in range(height):
        for column in range(width):
            for axis, (place, side) in enumerate(((row, height), (column, width))):
                angle = (place + 1) / (side + 1e-6) * 2 * torch.pi
                for index in range(half):
                    wave = torch.tensor(angle / 10000 ** (2 * (index // 2) / half))
                    found[row, column, axis * half + index] = wave.cos() if index % 2 else wave.sin()
    return found.flatten(0, 1)


def test_positions_are_sines_and_cosines_of_the_place_as_a_fraction_of_the_map():
    assert torch.allclose(sine_positions((3, 5), 8, torch.empty(1)), slow_positions(3, 5, 8), atol=1e-6)


def test_a_finer_map_follows_from_the_transformers_finest_one():
    net = network().eval()
    decoder = net.pixel_decoder
    with torch.no_grad():
        maps = net.encoder(torch.randn(1, 3, 64, 96))[-4:]
        found = decoder(maps)
        assert found.grids == ((2, 3), (4, 6), (8, 12))
        finest = found.cells[-1].transpose(1, 2).unflatten(2, (8, 12))
        upsampled = F.interpolate(finest, size=(16, 24), mode="bilinear", align_corners=False)
        expected = decoder.mask_features(decoder.output[0](decoder.lateral[0](maps[0]) + upsampled))
    assert torch.equal(found.features, expected)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"heads": 3}, "heads: got 3, expected a divisor of 8"),
        ({"groups": 5}, "groups: got 5, expected a divisor of 8"),
        ({"channels": 6, "heads": 2}, "channels: got 6, expected a multiple of 4"),
        ({"encoder": {"name": "resnet18_w8", "levels": 3}}, "gives 3 maps, expected 4 or more"),
    ],
)
def test_settings_that_no_network_can_be_made_of_are_named(fields, told):
    with pytest.raises(UsageError, match=told):
        network(**fields)
