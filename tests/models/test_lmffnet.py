"""segatlas.models.lmffnet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.build.network import build_empty, create_model, make_config
from segatlas.errors import UsageError
from segatlas.models.lmffnet import ARCHITECTURE, GatedClassifier, Halve, QuarterWeighting, SplitBlock, quarters_of


def by_the_table(classes: int) -> int:
    """Add the parameters up layer by layer: convolutions without bias, 3 more a channel for each norm and PReLU."""

    def conv(given: int, out: int, side: int, groups: int = 1) -> int:
        return given * out * side**2 // groups

    def block(width: int) -> int:
        half, quarter = width // 2, width // 4
        near_and_far = 2 * (conv(quarter, quarter, 3, quarter) + 3 * quarter)
        ends = conv(width, half, 3) + 3 * half + conv(half, half, 3) + 3 * half + conv(half, width, 1) + 3 * width
        return near_and_far + ends

    def weighting(width: int) -> int:
        return conv(width, width, 2, width) + 2 * width * (width // 8) + 1

    def merge(width: int) -> int:
        return 3 * width + conv(width, width, 1)

    stem = conv(3, 32, 3) + 2 * conv(32, 32, 3) + 3 * 3 * 32 + merge(35)
    fine = conv(35, 64 - 35, 3) + 3 * 64 + 3 * block(64) + weighting(64) + merge(131)
    deep = conv(131, 128, 3) + 3 * 128 + 8 * block(128) + weighting(128) + merge(259)
    gate = conv(131, 16, 1) + conv(259, 32, 1) + conv(48, 48, 3, 48) + 3 * 48 + conv(48, classes, 1)
    return stem + fine + deep + gate + conv(259, 259, 3, 259) + 3 * 259 + conv(259, classes, 1)


@pytest.mark.parametrize(("classes", "count"), [(11, 1_344_236), (19, 1_346_692)])
def test_parameters_are_those_of_the_authors_network(classes, count):
    net = build_empty(*make_config("lmffnet", {"num_classes": classes}))
    assert sum(parameter.numel() for parameter in net.parameters()) == count == by_the_table(classes)


def test_layers_are_those_of_the_authors_network():
    net = build_empty(*make_config("lmffnet", {"num_classes": 11}))
    assert net.encoder.channels == (35, 131, 259)
    levels = (net.encoder.level4, net.encoder.level8)
    dilations = [[block.far[0].dilation[0] for block in level.blocks] for level in levels]
    assert dilations == [[2, 2, 2], [4, 4, 8, 8, 16, 16, 32, 32]]
    assert [(level.down.pools, level.down.conv.out_channels) for level in levels] == [(True, 29), (False, 128)]
    assert {norm.eps for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}


def shaken(module: nn.Module) -> nn.Module:
    """Return a module in eval mode whose norms and slopes are no identities."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (part.bias, part.running_mean):
                nn.init.normal_(tensor)
        elif isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0, 0.5)
    return module.eval()


def normed(x: Tensor, norm: nn.Sequential) -> Tensor:
    bn, slopes = norm[0], norm[1].weight.view(-1, 1, 1)
    x = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-3)
    return torch.where(x > 0, x, slopes * x)


def test_a_block_filters_one_half_near_and_the_other_far():
    torch.manual_seed(0)
    block, x = shaken(SplitBlock(8, 4)), torch.randn(2, 8, 11, 13)
    with torch.no_grad():
        y = normed(F.conv2d(x, block.reduce[0].weight, padding=1), block.reduce[1])
        near = normed(F.conv2d(y[:, :2], block.near[0].weight, padding=1, groups=2), block.near[1])
        far = normed(F.conv2d(y[:, 2:], block.far[0].weight, padding=4, dilation=4, groups=2), block.far[1])
        y = normed(F.conv2d(torch.cat([near, far], 1), block.join[0].weight, padding=1), block.join[1])
        expected = normed(F.conv2d(y, block.widen.weight) + x, block.norm)
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1), (1, 4)])
def test_quarters_are_those_of_adaptive_pooling(size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(quarters_of(x), F.adaptive_avg_pool2d(x, 2))


def test_channels_are_weighted_by_their_average_and_those_of_their_quarters():
    torch.manual_seed(0)
    weighting, x = shaken(QuarterWeighting(16)), torch.randn(2, 16, 6, 10)
    first, slope, second, _ = weighting.weigh
    with torch.no_grad():
        found = weighting(x)
        for n in range(2):
            seen = torch.stack(
                [
                    x[n, c].mean()
                    + sum(
                        weighting.quarters.weight[c, 0, i, j] * x[n, c, 3 * i : 3 * i + 3, 5 * j : 5 * j + 5].mean()
                        for i in range(2)
                        for j in range(2)
                    )
                    for c in range(16)
                ]
            )
            hidden = first.weight @ seen
            hidden = torch.where(hidden > 0, hidden, slope.weight * hidden)
            factors = torch.sigmoid(second.weight @ hidden)
            torch.testing.assert_close(found[n], factors[:, None, None] * x[n])


def test_a_step_down_adds_largest_values_only_where_channels_are_added():
    torch.manual_seed(0)
    x = torch.randn(1, 6, 8, 10)
    for out in (9, 6, 4):
        down = shaken(Halve(6, out))
        with torch.no_grad():
            y = F.conv2d(x, down.conv.weight, stride=2, padding=1)
            y = torch.cat([y, F.max_pool2d(x, 2)], 1) if out == 9 else y
            torch.testing.assert_close(down(x), normed(y, down.norm))
        assert y.shape[1] == out


def test_scores_are_upsampled_and_then_gated():
    torch.manual_seed(0)
    net = shaken(create_model("lmffnet", num_classes=5, **ARCHITECTURE.tiny))
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        _, fine, deep = features = net.encoder(F.pad(x, (0, 1, 0, 7)))
        out, head = net(x), net.classifier
        assert isinstance(head, GatedClassifier)
        coarse = F.interpolate(F.conv2d(deep, head.deep.weight), scale_factor=2, mode="bilinear")
        mixed = head.mix(torch.cat([F.conv2d(fine, head.fine.weight), coarse], 1))
        gate = F.conv2d(mixed, head.gate.weight).sigmoid()
        scores = F.interpolate(head.scores(net.decode(features)), scale_factor=2, mode="bilinear")
        torch.testing.assert_close(out.logits, scores * gate)
    assert (out.canvas, tuple(out.logits.shape)) == ((40, 48), (1, 5, 10, 12))


def test_the_image_is_merged_in_at_each_stride():
    torch.manual_seed(0)
    net = create_model("lmffnet", num_classes=5, **ARCHITECTURE.tiny).eval()
    x, seen = torch.randn(1, 3, 32, 40), []
    for merge in (net.encoder.merge, net.encoder.level4.merge, net.encoder.level8.merge):
        merge.register_forward_hook(lambda _, given, __: seen.append(given[-1]))
    with torch.no_grad():
        net(x)
        for image in seen:
            x = F.avg_pool2d(x, 3, stride=2, padding=1)
            assert torch.equal(image, x)
    assert len(seen) == 3


@pytest.mark.parametrize(
    "fields",
    [{"widths": (32, 64, 126)}, {"widths": (0, 4, 4)}, {"dilations": ((0,), (1,))}, {"gate_channels": (0, 1)}],
)
def test_widths_that_cannot_be_halved_twice_and_numbers_below_1_are_refused(fields):
    with pytest.raises(UsageError, match="expected numbers"):
        create_model("lmffnet", num_classes=5, **fields)
