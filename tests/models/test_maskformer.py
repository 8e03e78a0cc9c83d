"""What is particular to MaskFormer: the pyramid, the transformer on its last map, sizes that are not padded."""

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import build_network, make_config, shapes_only
from segatlas.models.maskformer import ARCHITECTURE

K = 3


def network(**fields):
    torch.manual_seed(0)
    return build_network(*make_config("maskformer", {"num_classes": K, **ARCHITECTURE.tiny, **fields}))


@pytest.mark.parametrize(
    ("variant", "classes", "parameters"),
    [
        ("maskformer_r50", 150, 41_307_863),
        ("maskformer_swin_t", 150, 41_757_009),
        ("maskformer_r50_panoptic", 133, 45_065_158),
    ],
)
def test_the_published_forms_have_their_parameters(variant, classes, parameters):
    with shapes_only():
        net = build_network(*make_config(variant, {"num_classes": classes}))
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(("padding", "canvas", "masks"), [(32, (64, 96), (16, 24)), (1, (61, 93), (16, 24))])
def test_images_stay_as_they_are_without_padding_and_masks_cover_them(padding, canvas, masks):
    output = network(padding=padding).eval()(torch.randn(1, 3, 61, 93))
    assert tuple(output.canvas) == canvas
    assert output.mask_logits.shape == (1, 6, *masks)


def test_every_layer_predicts_while_training_and_the_last_one_alone_otherwise():
    net, x = network(layers=3), torch.randn(2, 3, 64, 64)
    output = net.train()(x)
    assert tuple(output.aux) == ("layer_0", "layer_1") == net.aux_names
    assert all(layer.class_logits.shape == (2, 6, K + 1) for layer in output.layers)
    assert not net.eval()(x).aux
    with torch.no_grad():
        quick = net(x)
        net.training = True
        assert torch.equal(net(x).mask_logits, quick.mask_logits)


def test_without_a_transformer_queries_see_the_encoders_last_map():
    net = network(pixel_layers=0).eval()
    assert not net.pixel_layers
    assert net.pyramid.coarsest.conv.in_channels == net.encoder.channels[-1]
    assert network().pyramid.coarsest.conv.in_channels == 8


def test_the_pyramid_adds_each_map_to_the_coarser_one_upsampled_by_nearest_neighbour():
    pyramid = network(pixel_layers=0).eval().pyramid
    maps = [torch.randn(1, channels, side, side) for channels, side in zip((8, 16, 32, 64), (16, 8, 4, 2), strict=True)]
    with torch.no_grad():
        x = pyramid.coarsest(maps[3])
        for level in (2, 1, 0):
            upsampled = F.interpolate(x, size=maps[level].shape[-2:], mode="nearest")
            x = pyramid.output[level](pyramid.lateral[level](maps[level]) + upsampled)
        assert torch.equal(pyramid(maps), pyramid.mask_features(x))


def test_queries_begin_as_zeros_so_that_the_first_values_never_count():
    net, x = network().eval(), torch.randn(1, 3, 64, 64)
    weight = net.layers[0].self_attention.v.weight
    assert not weight.requires_grad
    with torch.no_grad():
        before = net(x).mask_logits
        weight.normal_()
        assert torch.equal(net(x).mask_logits, before)
