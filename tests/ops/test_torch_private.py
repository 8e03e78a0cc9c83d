"""What torch does not promise, and the public way beside each use of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.ops import torch_private


def refuse(*given):
    raise TypeError("takes other arguments now")


@pytest.fixture(params=[None, refuse], ids=["gone", "changed"])
def without(request, monkeypatch):
    """A torch whose private names are gone or take other arguments."""
    monkeypatch.setattr(torch_private, "private", lambda name: request.param)
    torch_private.can_pack.cache_clear()
    yield
    torch_private.can_pack.cache_clear()


def test_a_private_name_is_found_by_its_dots_or_not_there():
    assert torch_private.private("nn.functional.relu") is torch.nn.functional.relu
    assert torch_private.private("_C._no_such_thing") is None
    assert torch_private.private("ops.mkldnn._no_such_thing") is None


@pytest.mark.parametrize("threads", [1, 2])
def test_the_rule_says_the_same_of_the_slow_path_as_torch_itself(threads, monkeypatch):
    torch.set_num_threads(threads)
    told = torch_private.takes_slow_path()
    for other in (None, refuse):
        monkeypatch.setattr(torch_private, "private", lambda name, found=other: found)
        assert torch_private.takes_slow_path() is told


def test_an_autocast_around_the_trial_of_packing_plays_no_part():
    torch_private.can_pack.cache_clear()
    told = torch_private.can_pack()
    torch_private.can_pack.cache_clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch_private.can_pack() is told


def test_nothing_is_packed_by_a_torch_that_cannot(without):
    assert not torch_private.can_pack()


def test_nothing_is_packed_where_the_numbers_would_be_others(monkeypatch):
    monkeypatch.setattr(torch_private, "convolve_packed", lambda x, *_: torch.zeros(1, 8, 4, 4, dtype=torch.bfloat16))
    torch_private.can_pack.cache_clear()
    assert not torch_private.can_pack()
    torch_private.can_pack.cache_clear()


@pytest.mark.parametrize("found", [None, refuse, torch_private.private("UntypedStorage._new_shared")])
def test_a_tensor_in_shared_memory_has_shape_and_type(found, monkeypatch):
    monkeypatch.setattr(torch_private, "private", lambda name: found)
    made = torch_private.empty_in_shared_memory((2, 3, 4), torch.int16)
    made.fill_(7)
    assert (made.shape, made.dtype, made.is_shared(), int(made.sum())) == ((2, 3, 4), torch.int16, True, 168)


@pytest.mark.parametrize("counts", [True, False])
def test_a_change_in_place_changes_the_version_of_a_tensor(counts):
    weight = nn.Parameter(torch.ones(3))
    one = weight if counts else Uncounted(weight)
    first = torch_private.version(one)
    assert torch_private.version(one) == first
    with torch.no_grad():
        weight[1] = 5
    assert torch_private.version(one) != first


class Uncounted:
    """A tensor without a counter of its changes."""

    def __init__(self, tensor):
        self.detach, self.is_inference = tensor.detach, tensor.is_inference


def test_a_tensor_of_inference_mode_has_no_version():
    with torch.inference_mode():
        assert torch_private.version(torch.ones(2)) == 0
