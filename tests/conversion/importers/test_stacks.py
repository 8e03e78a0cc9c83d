from __future__ import annotations

import torch

from segatlas.conversion.importers.stacks import Stack, stack_to_ours, stack_to_theirs

ONE = Stack(theirs={"layers.{i}.qkv_weight": 1}, ours={"blocks.{i}.q.weight": 1, "blocks.{i}.kv.weight": 2})
TWO = Stack(theirs={"layers.{i}.key": 1, "layers.{i}.value": 1}, ours={"blocks.{i}.kv": 1})


def test_one_tensor_is_cut_by_ratios_and_put_together_again():
    whole = torch.arange(12.0).reshape(6, 2)
    ours, others = stack_to_ours({"layers.4.qkv_weight": whole, "norm": whole}, [ONE])
    assert torch.equal(ours["blocks.4.q.weight"], whole[:2])
    assert torch.equal(ours["blocks.4.kv.weight"], whole[2:])
    assert list(others) == ["norm"]
    theirs, none = stack_to_theirs(ours, [ONE])
    assert torch.equal(theirs["layers.4.qkv_weight"], whole)
    assert not none


def test_several_tensors_become_one_in_the_order_of_the_table_not_of_the_file():
    key, value = torch.zeros(3, 2), torch.ones(3, 2)
    ours, _ = stack_to_ours({"layers.0.value.weight": value, "layers.0.key.weight": key}, [TWO])
    assert torch.equal(ours["blocks.0.kv.weight"], torch.cat([key, value]))
    theirs, _ = stack_to_theirs(ours, [TWO])
    assert torch.equal(theirs["layers.0.key.weight"], key)
    assert torch.equal(theirs["layers.0.value.weight"], value)


def test_a_stack_that_is_not_whole_or_cannot_be_cut_stays_as_it_is():
    lone = {"layers.0.key.weight": torch.zeros(3, 2)}
    assert stack_to_ours(lone, [TWO]) == ({}, lone)
    uneven = {"layers.0.qkv_weight": torch.zeros(4, 2)}
    assert stack_to_ours(uneven, [ONE]) == ({}, uneven)
