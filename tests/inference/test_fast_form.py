"""The fast form against the plain network, on little networks made to mislead it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segatlas.inference import fast_form as room
from segatlas.inference.fast_form import fast_form, leaves, weights_state
from segatlas.ops import torch_private
from segatlas.structures import DetectedMasks, InputSpec, SemanticLogits

IMAGE = (InputSpec(),)


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


class Net(nn.Module):
    """Wraps a module that maps (N, 3, h, w) to (N, 8, h', w') as a network with a classifier."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body
        self.classifier = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return SemanticLogits(self.classifier(self.body(x)), (x.shape[-2], x.shape[-1]))


def prepared(body: nn.Module, dtype=torch.float64) -> Net:
    net = Net(body).to(dtype).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
    return net


def norms(net: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def check(body: nn.Module, norms_left: int) -> None:
    net, x = prepared(body), torch.randn(2, 3, 17, 23, dtype=torch.float64)
    before = copy.deepcopy(net.state_dict())
    fast = fast_form(net, IMAGE)
    assert fast is not net
    assert norms(fast) == norms_left
    with torch.no_grad():
        torch.testing.assert_close(fast(x).logits, net(x).logits, rtol=1e-10, atol=1e-10)
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 8, 3, bias=False),
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.Conv2d(3, 8, 3, dilation=2, padding=2, padding_mode="reflect"),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4)),
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8, bias=False)),
    ],
)
def test_a_norm_behind_a_convolution_is_folded_into_it(convolution):
    check(nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(inplace=True)), norms_left=0)


def test_a_norm_without_parameters_of_its_own_is_folded_too():
    check(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)), norms_left=0)


class UsedTwice(nn.Module):
    """The convolution's result goes into the norm and past it."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.bn, self.way = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), way

    def forward(self, x):
        x = self.conv(x)
        return self.way(x, self.bn)


@pytest.mark.parametrize(
    "way",
    [
        lambda x, bn: x + bn(x),
        lambda x, bn: bn(x) + x.mean(),
        lambda x, bn: bn(x.relu_()),
        lambda x, bn: bn(x).mul(x.sigmoid()),
        lambda x, bn: bn(F.max_pool2d(x, 2)),
        lambda x, bn: bn(x) + bn(x),
        lambda x, bn: torch.cat([bn(x)[:, :4], x[:, 4:]], dim=1),
    ],
)
def test_a_result_that_goes_elsewhere_too_keeps_its_norm(way):
    check(UsedTwice(way), norms_left=1)


class Shared(nn.Module):
    """One convolution behind which two norms take turns; or two with one weight."""

    def __init__(self, tie: bool):
        super().__init__()
        self.one, self.bn1, self.bn2 = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.two = nn.Conv2d(3, 8, 1) if tie else self.one
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.bn1(self.one(x)) + self.bn2(self.two(2 * x))


@pytest.mark.parametrize("tie", [False, True])
def test_a_shared_convolution_or_weight_keeps_its_norms(tie):
    check(Shared(tie), norms_left=2)


class Doubling(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("convolution", [Doubling(3, 8, 1), nn.ConvTranspose2d(3, 8, 2, stride=2), nn.Identity()])
def test_convolutions_of_other_kinds_keep_their_norms(convolution):
    width = 3 if isinstance(convolution, nn.Identity) else 8
    check(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.Conv2d(width, 8, 1)), norms_left=1)


def test_a_norm_by_the_batch_s_own_statistics_stays():
    check(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)), norms_left=1)


class ByHand(nn.Module):
    """Uses the convolution's weight beside the convolution, which nothing can see."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.bn(self.conv(x)) * self.conv.weight.sum()


def test_a_form_that_would_give_other_numbers_is_not_used_and_a_warning_says_so(caplog):
    net = prepared(ByHand())
    with caplog.at_level("WARNING", logger="segatlas"):
        assert fast_form(net, IMAGE) is net
    assert "fast form of Net is wrong by" in caplog.text


class Rounding(nn.Module):
    """Multiplies the rounding of its convolution by a million."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.bn(self.conv(x))
        return torch.sin(1e6 * y)


def test_a_form_that_only_rounds_otherwise_is_not_used_and_one_line_tells_it(caplog, monkeypatch):
    net = prepared(Rounding(), torch.float32)
    monkeypatch.setattr(room, "_told", set())
    with caplog.at_level("INFO", logger="segatlas"):
        assert fast_form(net, IMAGE) is net
        assert fast_form(net, IMAGE) is net  # as at the next validation: not said again
    assert "fast form of Net rounds otherwise" in caplog.text
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_comparison_runs_in_the_network_s_own_precision_also_inside_an_autocast(precision, caplog):
    layers = [layer for _ in range(8) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
    net = prepared(nn.Sequential(nn.Conv2d(3, 8, 1), *layers), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), caplog.at_level("INFO", logger="segatlas"):
        assert fast_form(net, IMAGE, precision) is not net
    assert not caplog.records


def finds(count: int) -> DetectedMasks:
    return DetectedMasks((torch.zeros(count, 4),), (torch.ones(count),), (), (torch.ones(count, 2, 2),), (8, 8))


def test_a_network_that_finds_nothing_in_the_trial_has_its_fast_form_and_one_that_finds_more_in_it_has_not():
    class Finds(nn.Module):
        def __init__(self, plain: int, fast: int):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.plain, self.fast = plain, fast

        def forward(self, x):
            self.norm(self.conv(x))
            return finds(self.plain if isinstance(self.norm, nn.BatchNorm2d) else self.fast)

    for plain, fast, is_made in ((0, 0, True), (2, 2, True), (0, 1, False), (2, 1, False)):
        net = Finds(plain, fast).eval()
        assert (fast_form(net, IMAGE) is not net) == is_made


def test_untouched_tensors_are_shared_and_touched_ones_are_not():
    net = prepared(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)), torch.float32)
    fast = fast_form(net, IMAGE)
    assert fast.classifier.weight.data_ptr() == net.classifier.weight.data_ptr()
    assert fast.body[0].weight.data_ptr() != net.body[0].weight.data_ptr()


def mixed(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        return net(x).logits


def test_in_bf16_the_classifier_stays_float32_and_images_of_any_size_are_close():
    body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3, groups=2))
    net = prepared(body, torch.float32)
    low = fast_form(net, IMAGE, "bf16")
    for size in [(20, 31), (64, 64), (9, 200)]:
        x = torch.randn(2, 3, *size)
        with torch.inference_mode():
            expected = net(x).logits
        got = mixed(low, x)
        assert got.dtype == torch.float32
        assert 0 < (got - expected).abs().max() < 0.05 * expected.abs().max()
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            features = low.body(x)
        assert features.dtype == torch.bfloat16
        with torch.inference_mode():
            torch.testing.assert_close(got, net.classifier(features.float()), rtol=1e-5, atol=1e-5)


def test_bf16_runs_the_same_where_torch_offers_no_packing(monkeypatch):
    net, x = prepared(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), torch.float32), torch.randn(1, 3, 40, 40)
    packed = fast_form(net, IMAGE, "bf16")
    torch_private.can_pack.cache_clear()
    with monkeypatch.context() as gone:
        gone.setattr(torch_private, "private", lambda name: None)
        plain = fast_form(net, IMAGE, "bf16")
    torch_private.can_pack.cache_clear()
    assert isinstance(packed.body[0], room.PackedConv2d)
    assert type(plain.body[0]) is nn.Conv2d
    torch.testing.assert_close(mixed(packed, x), mixed(plain, x), rtol=0.02, atol=0.02)


def test_leaves_are_what_lies_in_nested_lists_tuples_and_dictionaries():
    x = torch.ones(2, 3)
    assert [*leaves(([1, {"a": (2,), "b": []}], x.max(1), None))][:2] == [1, 2]
    assert [leaf for leaf in leaves({"a": x, "b": (x, [x])}) if leaf is x] == [x] * 3


def test_the_state_of_weights_changes_with_them():
    net = prepared(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)))
    states = [weights_state(net)]
    with torch.no_grad():
        net.classifier.weight.mul_(2)
    states.append(weights_state(net))
    net.body[1].running_mean.add_(1)
    states.append(weights_state(net))
    net.classifier.weight.data = net.classifier.weight.data.clone()
    states.append(weights_state(net))
    assert len(set(states)) == 4
    assert weights_state(net) == states[-1]
