"""Counts of channels are searched on sizes alone; what a plan costs is what the smaller network costs."""

from __future__ import annotations

import pytest
import torch
from fakes.prunable import network

from segatlas.bench.subjects import count_flops
from segatlas.build.surgery import resize
from segatlas.pruning.groups import ChannelGroup, GroupMember
from segatlas.pruning.search import Costs, kept_of, smaller_sizes

SIZE = (32, 48)


@pytest.mark.parametrize(
    ("size", "ratio", "round_to", "kept"),
    [(64, 0.5, 8, 32), (64, 0.3, 8, 48), (64, 0.99, 8, 8), (6, 0.5, 8, 6), (10, 0.0, 4, 10), (10, 0.5, 1, 5)],
)
def test_layers_keep_a_multiple_and_at_least_one_of_it(size, ratio, round_to, kept):
    group = ChannelGroup(root="x", channels=size, repeats=1, members=())
    assert kept_of(group, ratio, round_to) == kept


def test_sizes_follow_from_who_reads_and_who_writes():
    alone = tuple((index,) for index in range(4))
    behind = tuple((4 + index,) for index in range(4))
    members = (
        GroupMember(layer="writes", side="writes", channels=alone),
        GroupMember(layer="norm", side="both", channels=alone),
        GroupMember(layer="depthwise", side="both", channels=alone),
        GroupMember(layer="reads", side="reads", channels=behind),
    )
    group = ChannelGroup(root="writes", channels=4, repeats=1, members=members)
    whole = {"writes": (3, 4, 1), "norm": (4, 4, 1), "depthwise": (4, 4, 4), "reads": (8, 5, 1), "other": (5, 5, 1)}
    assert smaller_sizes(whole, [group], {"writes": [0, 3]}) == {
        "writes": (3, 2, 1), "norm": (2, 2, 1), "depthwise": (2, 2, 2), "reads": (6, 5, 1)
    }  # fmt: skip


def test_costs_of_sizes_are_those_of_the_network_cut_to_them():
    net, inputs = network(width=8), torch.zeros(1, 3, *SIZE, device="meta")
    costs = Costs(net, inputs)
    table = {
        "decoder.0.up": (100, 64, 1),
        "decoder.1.convs.0.conv": (64, 20, 1),
        "encoder.levels.4.1.conv": (128, 100, 1),
    }
    told = costs.of(table)
    table |= {"decoder.1.convs.0.bn": (20, 20, 1), "decoder.1.convs.1.conv": (20, 32, 1)}
    table |= {"encoder.levels.4.1.bn": (100, 100, 1)}
    told = costs.of(table)
    resize(net, table, where="here")
    assert told == count_flops(net, inputs) // 2 < costs.whole
