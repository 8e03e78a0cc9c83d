from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.unetplusplus import ARCHITECTURE


def test_variants_have_as_many_parameters_as_segmentation_models_pytorch():
    with shapes_only():
        net = create_model("unetplusplus_r34", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(26.10, abs=0.005)


def double(x):
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def test_each_node_joins_what_is_below_it_with_all_earlier_maps_of_its_row():
    torch.manual_seed(0)
    net = create_model("unetplusplus", num_classes=3, **ARCHITECTURE.tiny).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = net.encoder(x)[::-1]  # the deepest first
        grid = [[maps[0]]]
        for row in range(4):
            line = [maps[row + 1]]
            for column in range(row + 1):
                node = net.rows[row][column]
                joined = torch.cat([double(grid[row][column]), *line[::-1]], dim=1)
                line.append(node.conv2(node.conv1(joined)))
            grid.append(line)
        last = net.rows[4][0]
        expected = net.classifier(last.conv2(last.conv1(double(grid[4][-1]))))
        assert torch.equal(net(x).logits, expected)


def test_a_row_without_a_map_of_the_encoder_has_its_last_node_only():
    net = create_model("unetplusplus", num_classes=3, encoder="mit_b0", decoder_channels=(8, 8, 8, 4, 4))
    assert [len(row) for row in net.rows] == [1, 2, 3, 1, 1]
    assert net.eval()(torch.randn(1, 3, 33, 65)).logits.shape == (1, 3, 64, 96)


def test_scse_weights_by_channel_and_by_pixel_but_not_what_joins_nothing_at_full_size():
    fields = {**ARCHITECTURE.tiny, "attention": "scse"}
    net = create_model("unetplusplus", num_classes=3, **fields)
    scse = net.rows[0][0].attention1
    x = torch.randn(1, scse.by_pixel[0].in_channels, 3, 4)
    hidden = F.relu(scse.by_channel[1](x.mean((2, 3), keepdim=True)))
    channel, pixel = scse.by_channel[3](hidden).sigmoid(), scse.by_pixel[0](x).sigmoid()
    torch.testing.assert_close(scse(x), x * channel + x * pixel)
    last = net.rows[-1][0]
    assert [type(part).__name__ for part in (last.attention1, last.attention2)] == ["Identity", "SCSE"]


def test_an_encoder_whose_maps_do_not_double_or_a_decoder_of_too_many_steps_is_refused():
    with pytest.raises(UsageError, match=r"maps double in stride.*\(2, 4, 8, 8, 8\)"):
        create_model("unetplusplus", num_classes=2, encoder="resnet18_w8", output_stride=8)
    with pytest.raises(UsageError, match=r"decoder_channels has 6 entries.*takes 1 to 5"):
        create_model("unetplusplus", num_classes=2, encoder="resnet18_w8", decoder_channels=(4,) * 6)


def test_an_encoder_of_three_levels_takes_a_decoder_of_three_steps():
    fields = {"encoder": {"name": "resnet18_w8", "levels": 3}, "decoder_channels": (8, 8, 4)}
    net = create_model("unetplusplus", num_classes=2, **fields).eval()
    out = net(torch.randn(1, 3, 17, 25))
    assert (out.logits.shape, out.canvas) == ((1, 2, 24, 32), (24, 32))
