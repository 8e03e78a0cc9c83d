"""segatlas.models.enet."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segatlas.build.network import build_empty, create_model, make_config
from segatlas.errors import UsageError
from segatlas.models.enet import ALONG, PLAIN, ROUND, Bottleneck, UpBottleneck


def parameters(name: str, **fields) -> int:
    return sum(parameter.numel() for parameter in build_empty(*make_config(name, fields)).parameters())


def by_the_table(classes: int) -> int:
    """Return the parameters of the paper's table, counted layer by layer: convolutions, batch norms, PReLUs."""

    def conv(given: int, made: int, cells: int, bias: bool = False) -> int:
        return given * made * cells + bias * made

    def norm(width: int) -> int:  # with the slopes of a PReLU
        return 3 * width

    def bottleneck(given: int, made: int, between: int, into: int = 1) -> int:
        inside = made // 4
        return conv(given, inside, into) + 2 * norm(inside) + between + conv(inside, made, 1) + norm(made)

    def usual(width: int) -> int:
        return bottleneck(width, width, conv(width // 4, width // 4, 9, bias=True))

    asymmetric = bottleneck(128, 128, conv(32, 32, 5) + conv(32, 32, 5, bias=True))
    total = conv(3, 13, 9, bias=True) + norm(16)
    total += bottleneck(16, 64, conv(16, 16, 9, bias=True), into=4) + 4 * usual(64)
    total += bottleneck(64, 128, conv(32, 32, 9, bias=True), into=4) + 2 * (6 * usual(128) + 2 * asymmetric)
    for given, made, further in ((128, 64, 2), (64, 16, 1)):
        up = bottleneck(given, made, conv(made // 4, made // 4, 9, bias=True)) + conv(given, made, 1) + 2 * made
        total += up + further * usual(made)
    return total + conv(16, classes, 4, bias=True)


@pytest.mark.parametrize(("classes", "count"), [(11, 364_127), (19, 364_647), (20, 364_712)])
def test_parameters_are_those_of_the_papers_table(classes, count):
    assert parameters("enet", num_classes=classes) == count == by_the_table(classes)
    assert round(count / 1e6, 2) in (0.36, 0.37)


def test_a_round_has_the_papers_eight_bottlenecks():
    names = {PLAIN: "plain", ALONG: "asymmetric 5"}
    kinds = ", ".join(names.get(kind, f"dilated {kind}") for kind in ROUND)
    assert kinds == "plain, dilated 2, asymmetric 5, dilated 4, plain, dilated 8, asymmetric 5, dilated 16"
    net = build_empty(*make_config("enet", {"num_classes": 5}))
    assert len(net.encoder.stage1) == 5
    assert len(net.encoder.stage2) == 17
    row, column = net.encoder.stage2[3].branch[2]
    assert (row.kernel_size, column.kernel_size) == ((1, 5), (5, 1))


def test_values_go_back_where_the_pooled_maxima_were():
    torch.manual_seed(0)
    up = UpBottleneck(8, 4).eval()
    nn.init.zeros_(up.branch[4].weight)  # the branch gives its last norm's shift alone, which is 0
    x, pooled = torch.randn(2, 8, 3, 2), torch.randn(2, 4, 6, 4)
    with torch.no_grad():
        values, places = up.main(x), F.max_pool2d(pooled, 2, return_indices=True)[1]
        expected = F.prelu(F.max_unpool2d(values, places, 2), up.activation.weight)
        assert torch.equal(up(x, pooled), expected)
    assert ((expected != 0).sum((2, 3)) == 6).all()


def test_dropout_leaves_out_whole_channels_of_the_branch_and_never_the_map():
    torch.manual_seed(0)
    block = Bottleneck(8, dropout=0.5).train()
    nn.init.ones_(block.activation.weight)  # no activation
    x = torch.randn(64, 8, 4, 4)
    left = ((block(x) - x) == 0).all(-1).all(-1)
    assert 0.4 < left.float().mean() < 0.6


def test_sizes_that_are_no_multiple_of_8_are_padded_and_many_channels_are_not_pooled():
    net = create_model("enet", num_classes=5, widths=(8, 12, 16), blocks=0, rounds=1, in_channels=9).eval()
    with torch.no_grad():
        out = net(torch.randn(1, 9, 33, 47))
    assert (out.canvas, out.logits.shape) == ((40, 48), (1, 5, 40, 48))
    assert not net.encoder.initial.pools


@pytest.mark.parametrize("widths", [(3, 8, 16), (16, 16, 32), (16, 64, 32)])
def test_widths_that_do_not_grow_are_refused(widths):
    with pytest.raises(UsageError, match="widths: got"):
        create_model("enet", num_classes=5, widths=widths)
