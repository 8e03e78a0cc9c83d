"""segatlas.models.espnetv2."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import build_empty, create_model, make_config
from segatlas.errors import UsageError
from segatlas.models.espnetv2 import ARCHITECTURE, NARROW, WIDE, DepthwisePyramid, PooledSizes


@pytest.mark.parametrize(
    ("scale", "city", "voc", "unused"),
    [
        ("05", 80_342, 80_353, 112),
        ("10", 234_010, 234_021, 224),
        ("15", 468_362, 468_373, 352),
        ("20", 789_242, 789_253, 480),
    ],
)
def test_parameters_are_those_of_the_published_files_but_for_activations_that_never_run(scale, city, voc, unused):
    for fields, count in (({"num_classes": 19, "ignored_output": True}, city), ({"num_classes": 21}, voc)):
        net = build_empty(*make_config(f"espnetv2_s{scale}", fields))
        assert sum(parameter.numel() for parameter in net.parameters()) + unused == count


def test_dilations_are_smaller_at_stride_16():
    net = build_empty(*make_config("espnetv2", {"num_classes": 5}))
    blocks = [net.encoder.downs[2], net.encoder.levels[1][0], net.encoder.levels[2][0]]
    found = [tuple(conv.dilation[0] for conv in block.pyramid.dilated) for block in blocks]
    assert found == [WIDE, WIDE, NARROW] == [(1, 2, 3, 4), (1, 2, 3, 4), (1, 1, 2, 3)]
    assert [len(level) for level in net.encoder.levels] == [0, 3, 7]


def test_a_pyramid_adds_its_dilations_up():
    torch.manual_seed(0)
    block = DepthwisePyramid(16, 16, WIDE).eval()
    x = torch.randn(1, 16, 9, 11)
    with torch.no_grad():
        y = block.reduce(x)
        maps = [
            F.conv2d(y, conv.weight, padding=d, dilation=d, groups=4)
            for d, conv in zip(WIDE, block.dilated, strict=True)
        ]
        sums = torch.stack(maps).cumsum(0)
        torch.testing.assert_close(block(x), block.bn(block.join(block.norm(torch.cat(list(sums), 1)))))


@pytest.mark.parametrize("size", [(70, 3), (9, 24)])
def test_a_map_is_looked_at_in_five_sizes_of_five_cells_at_least(size):
    torch.manual_seed(0)
    pool = PooledSizes(6, 4, align_corners=True).eval()
    seen = []
    for conv in pool.filters:
        conv.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape[-2:])))
    with torch.no_grad():
        assert pool(torch.randn(1, 6, *size)).shape == (1, 4, *size)
    expected = [tuple(max(5, math.ceil(side * scale)) for side in size) for scale in (2.0, 1.5, 1.0, 0.5, 0.1)]
    expected[2] = size
    assert seen == expected


def test_the_five_sizes_of_a_channel_are_mixed_together():
    torch.manual_seed(0)
    pool = PooledSizes(6, 4, align_corners=True).eval()
    given = []
    pool.norm.register_forward_hook(lambda _, __, out: given.append(out))
    pool.mix.register_forward_hook(lambda _, taken, __: given.append(taken[0]))
    with torch.no_grad():
        pool(torch.randn(1, 6, 8, 8))
    sizes_first, mixed = given
    for channel in range(4):
        for index in range(5):
            assert torch.equal(mixed[:, 5 * channel + index], sizes_first[:, 4 * index + channel])


def test_one_output_more_is_kept_and_left_out_of_the_logits():
    torch.manual_seed(0)
    net = create_model("espnetv2", num_classes=5, ignored_output=True, **ARCHITECTURE.tiny).eval()
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        outputs, out = net.classifier(net.decode(net.encoder(x))), net(x)
    assert outputs.shape == (1, 6, 17, 24)
    assert torch.equal(out.logits, outputs[:, :5])
    assert (out.canvas, out.resample.align_corners) == ((33, 47), True)


@pytest.mark.parametrize("widths", [(16, 32, 48, 60), (16, 16, 32, 48), (32, 16, 48, 64)])
def test_widths_that_do_not_grow_in_groups_are_refused(widths):
    with pytest.raises(UsageError, match="multiples of 16, each more than the one before"):
        create_model("espnetv2", num_classes=5, widths=widths)
