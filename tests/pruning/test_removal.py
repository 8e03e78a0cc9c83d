"""What is left of a pruned network costs what was asked, and is the network that no longer reads what was removed."""

from __future__ import annotations

import copy

import pytest
import torch
from fakes.prunable import CLASSES, network
from torch import nn

from segatlas.bench.subjects import count_flops
from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.build.surgery import layer_sizes, surgery_of
from segatlas.errors import MissingExtraError, SegAtlasError, UsageError
from segatlas.hub.loading import load_pretrained
from segatlas.inference.fast_form import fast_form
from segatlas.models.reading import load_architecture
from segatlas.pruning import Prunable, PruneSettings, prune_network
from segatlas.pruning import groups as groups_file
from segatlas.pruning.removal import Whole, _plan, followed_inputs, unsound_groups
from segatlas.pruning.search import Removal
from segatlas.structures import InputSpec

SIZE = (32, 48)
HALF = PruneSettings(macs=0.5, size=SIZE, round_to=1)


@pytest.fixture(scope="module")
def whole():
    return network()


@pytest.fixture(scope="module")
def pruned(whole):
    return prune_network(whole, HALF)


def macs(net: nn.Module) -> int:
    return count_flops(net, torch.zeros(1, 3, *SIZE, device="meta")) // 2


def test_half_of_the_multiply_accumulates_is_left_by_the_count_of_bench(whole, pruned):
    net, report = pruned
    assert report.macs == (macs(whole), macs(net))
    assert abs(report.macs[1] / report.macs[0] - 0.5) <= HALF.tolerance
    assert report.parameters == tuple(sum(p.numel() for p in one.parameters()) for one in (whole, net))
    assert report.layers == len(surgery_of(net)) > 0
    assert report.difference < 1e-12
    assert layer_sizes(whole)["encoder.conv1"] == (3, 16, 1), "the network itself stays as it is"


def test_torch_pruning_counts_the_same_in_convolutions(pruned):
    import torch_pruning as tp

    net = copy.deepcopy(pruned[0])
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:  # whose additions it counts, too
        module.bias = None
    _, _, by_layer, _ = tp.utils.count_ops_and_params(net, torch.zeros(1, 3, *SIZE), layer_wise=True)
    assert sum(by_layer[module] or 0 for module in convolutions) == macs(net)


def test_heads_keep_their_classes_and_the_image_its_channels(pruned):
    sizes = layer_sizes(pruned[0])
    assert sizes["classifier"][1] == sizes["aux_head.classifier"][1] == len(CLASSES)
    assert sizes["aux_head.classifier"][0] < layer_sizes(network())["aux_head.classifier"][0], "its own width goes down"
    assert sizes["encoder.conv1"][0] == 3


def test_it_comes_back_from_its_folder_has_a_fast_form_and_exports(pruned, tmp_path):
    net, _ = pruned
    back, card = load_pretrained(save_pretrained(net, tmp_path / "m", classes=CLASSES))
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        logits = net(x).logits
        assert torch.equal(back(x).logits, logits)
        assert card.surgery == surgery_of(net)
        fast = fast_form(back, (InputSpec(),))
        assert fast is not back
        assert torch.allclose(fast(x).logits, logits, atol=1e-4 * float(logits.abs().max()))
        program = torch.export.export(back, (x,)).module()
        assert torch.allclose(program(x).logits, logits, atol=1e-4 * float(logits.abs().max()))


def test_a_pruned_network_is_pruned_again_and_the_records_add_up(whole, pruned, tmp_path):
    again, report = prune_network(pruned[0], PruneSettings(macs=0.6, size=SIZE, round_to=1))
    assert report.macs[0] == pruned[1].macs[1]
    assert abs(macs(again) / macs(whole) - 0.3) < 0.03
    back, _ = load_pretrained(save_pretrained(again, tmp_path / "m", classes=CLASSES))
    assert layer_sizes(back) == layer_sizes(again)


@pytest.mark.slow
def test_a_network_on_an_encoder_with_sums_and_depthwise_convolutions_is_pruned_in_rounds():
    net = network("deeplabv3plus", encoder="mobilenet_v2", channels=16)
    settings = PruneSettings(macs=0.6, size=(64, 64), round_to=4, steps=2, importance="bn", tolerance=0.05)
    smaller, report = prune_network(net, settings)
    assert abs(report.macs[1] / report.macs[0] - 0.6) <= 0.05
    cut = {name: sizes for name, sizes in surgery_of(smaller).items() if sizes[2] > 1}
    assert cut, "depthwise convolutions, too"
    assert all(one == other == groups and one % 4 == 0 for one, other, groups in cut.values())


def test_a_network_whose_channels_cannot_be_followed_is_refused_by_name():
    net = create_model("psanet", **{"num_classes": 3, **load_architecture("psanet").tiny})
    with pytest.raises(UsageError, match="channels of a psanet cannot be followed: torch-pruning has no rule"):
        prune_network(net, PruneSettings(macs=0.5, size=SIZE))


def test_what_cannot_be_reached_is_refused_with_what_can(whole):
    found = Prunable(whole, SIZE)
    least = found.least(4)
    assert 0.05 < least < 0.3

    def plan(step=1, **asked):
        return _plan(found, PruneSettings(size=SIZE, **asked), step, Whole.of(found))

    with pytest.raises(UsageError, match=rf"macs: 0\.05 cannot be reached: {least:.3g} is left where each layer"):
        plan(macs=0.05, round_to=4)
    with pytest.raises(UsageError, match=r"cannot be met within 0\.0001: the nearest to be had is 0\.\d+; a smaller"):
        plan(macs=0.5123, round_to=4, tolerance=1e-4)
    with pytest.raises(UsageError, match=r"ratio: 0\.9 would leave no channel of \d+ layers: .*decoder\.1\.conv1"):
        plan(ratio=0.9, round_to=1)
    with pytest.raises(UsageError, match=r"ratio: 0\.9 would leave no channel of"):
        plan(ratio=0.9, round_to=1, steps=3)


def test_of_several_rounds_the_last_alone_has_to_meet_what_was_asked(whole):
    found = Prunable(whole, SIZE)
    settings = PruneSettings(macs=0.4246, size=SIZE, round_to=4, tolerance=1e-4, steps=2)
    nearest = _plan(found, settings, 1, Whole.of(found))
    assert 1e-4 < abs(nearest.macs / found.costs.whole - (1 + 0.4246) / 2) < 0.1
    with pytest.raises(UsageError, match=r"macs: 0\.425 cannot be met within 0\.0001"):
        _plan(found, settings, 2, Whole.of(found))


def test_a_ratio_is_of_what_there_was_before_the_first_round(whole):
    found = Prunable(whole, SIZE)
    settings = PruneSettings(ratio=0.5, size=SIZE, round_to=4, steps=8)
    group = next(one for one in found.graph.groups if "encoder.conv1" in [member.layer for member in one.members])
    removed = [len(_plan(found, settings, step, Whole.of(found)).removed[group.root]) for step in (1, 3, 6, 8)]
    assert removed == [0, 4, 8, 8], "of 16 a multiple of 4 stays, and a round in which nothing goes is made up for"


def test_a_ratio_takes_that_part_of_each_group(whole):
    net, _ = prune_network(whole, PruneSettings(ratio=0.25, size=SIZE, round_to=1))
    cut = surgery_of(net)
    assert cut["encoder.conv1"] == (3, 12, 1)
    assert cut["encoder.layer1.1.conv2"] == (12, 12, 1)
    assert cut["decoder.0.conv1.conv"] == (24, 12, 1), "two maps side by side, tied to each other by a sum"
    assert cut["classifier"] == (6, len(CLASSES), 1)


@pytest.mark.slow
def test_transposed_convolutions_lose_channels_on_both_sides():
    net, report = prune_network(network("unet", width=4), PruneSettings(ratio=0.5, size=(16, 16), round_to=1))
    assert surgery_of(net)["decoder.0.up"] == (32, 16, 1)
    assert report.difference < 1e-12


def test_removing_other_channels_than_those_that_nobody_reads_is_found_out(whole, monkeypatch):
    found = Prunable(whole, SIZE)
    remove = type(found.graph).remove
    shifted = lambda graph, group, chosen: remove(graph, group, [one + 1 for one in chosen])  # noqa: E731
    monkeypatch.setattr(type(found.graph), "remove", shifted)
    plan = Removal(removed={group.root: [0] for group in found.graph.groups}, macs=0)
    with pytest.raises(
        SegAtlasError, match="it gives other numbers than the network that does not read these channels"
    ):
        found.prune(plan)


class Shuffled(nn.Module):
    """A layer behind which every second pair of channels is swapped, as nobody who follows channels would expect."""

    def __init__(self, inside: nn.Module):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        x = self.inside(x)
        n, c, h, w = x.shape
        return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def test_only_groups_whose_channels_are_mixed_up_stay_whole(whole):
    net = copy.deepcopy(whole)
    net.encoder.layer1[0].conv1 = Shuffled(net.encoder.layer1[0].conv1)
    unsound = unsound_groups(net, followed_inputs(load_architecture("unet").inputs(net.config)))
    assert unsound == ["encoder.layer1.0.conv1.inside"]


def test_a_transformer_keeps_its_tokens_and_heads_and_loses_channels_between_its_two_layers():
    net = network("segmenter", encoder={"name": "vit_w32", "depth": 1}, layers=1)
    net, report = prune_network(net, PruneSettings(ratio=0.5, size=(32, 32), round_to=1))
    layers = {f"{part}.blocks.0.mlp.fc{number}" for part in ("encoder", "decoder") for number in (1, 2)}
    assert set(surgery_of(net)) == layers
    assert set(report.kept.values()) == {"a layer norm", "lengths of vectors"}


def test_without_torch_pruning_the_extra_is_named(whole, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    with pytest.raises(MissingExtraError, match=r'pruning needs torch-pruning - .*"segatlas\[prune\]"'):
        groups_file.torch_pruning()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"macs": 1.0}, r"macs: got 1, expected a fraction between 0 and 1"),
        ({"ratio": -0.1}, r"ratio: got -0\.1"),
        ({"macs": float("nan")}, r"macs: got nan"),
        ({}, r"give macs, the fraction that stays, or ratio"),
        ({"macs": 0.5, "ratio": 0.5}, r"give macs"),
        (
            {"macs": 0.5, "importance": "size"},
            r"importance: got 'size', expected one of: magnitude, bn, taylor, random",
        ),
        ({"macs": 0.5, "steps": 0}, r"steps: got 0"),
        ({"macs": 0.5, "seed": 2**32}, r"seed: got 4294967296, expected 0 to 4294967295"),
        ({"macs": 0.5, "seed": -1}, r"seed: got -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields, told):
    with pytest.raises(UsageError, match=told):
        PruneSettings(**fields)
