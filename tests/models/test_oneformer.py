"""segatlas.models.oneformer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model
from segatlas.errors import UsageError
from segatlas.models.oneformer import TASK_WORDS, WORDS, OneFormer

TINY = {
    "encoder": {"name": "swin_w8", "drop_path": 0.0},
    "queries": 5,
    "channels": 16,
    "mask_channels": 12,
    "heads": 4,
    "pixel_layers": 1,
    "pixel_hidden": 8,
    "points": 2,
    "groups": 2,
    "first_layers": 2,
    "layers": 4,
    "hidden": 24,
    "dropout": 0.0,
}


def make(**fields: Any) -> OneFormer:
    torch.manual_seed(0)
    net: Any = create_model("oneformer", **{"num_classes": 4, **TINY, **fields})
    return net.eval()


def test_what_is_asked_for_is_all_that_differs_and_is_the_last_query():
    x = torch.randn(1, 3, 64, 96)
    nets = {task: make(asked_for=task) for task in TASK_WORDS}
    with torch.no_grad():
        found = {task: net(x) for task, net in nets.items()}
    assert len({float(one.class_logits.sum()) for one in found.values()}) == 3
    panoptic = nets["panoptic"]
    for net in nets.values():
        assert net.state_dict().keys() == panoptic.state_dict().keys()
    panoptic.words = TASK_WORDS["instance"]
    with torch.no_grad():
        assert torch.equal(panoptic(x).mask_logits, found["instance"].mask_logits)


def test_the_words_are_numbers_with_zeros_behind_and_stay_whole_under_autocast():
    net = make()
    words = torch.zeros(1, WORDS)
    words[0, :7] = torch.tensor([49406.0, 518, 10549, 533, 1072, 24755, 49407])
    with torch.no_grad():
        expected = net.norm(net.task_embedding(words))
        assert torch.equal(net.task_token(), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(net.task_token(), expected)


def test_masks_of_attention_are_those_of_the_queries_so_far_brought_to_the_size_of_each_map():
    net, x = make(), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        predicted = net(x)
        net.train()
        layers = net(x).layers
    assert len(layers) == 5
    torch.testing.assert_close(layers[-1].mask_logits, predicted.mask_logits, rtol=1e-4, atol=1e-4)
    seen = []
    for layer in net.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[4]))
    with torch.no_grad():
        layers = net(x).layers
    for index, (allowed, layer) in enumerate(zip(seen, layers, strict=False)):
        size = [(2, 3), (4, 6), (8, 12)][index % 3]
        inside = F.interpolate(layer.mask_logits, size=size, mode="bilinear").sigmoid().flatten(2) >= 0.5
        for image in range(2):
            for query in range(5):
                own = inside[image, query]
                assert torch.equal(allowed[image, 0, query], own if own.any() else torch.ones_like(own))


def test_queries_begin_as_the_task_token_and_take_over_positions_of_cells():
    net = make(first_layers=0)
    token, features = net.task_token(), torch.randn(2, 12, 3, 5)
    with torch.no_grad():
        x = net.first_look(token, net.query_positions[:-1], features)
    torch.testing.assert_close(x, net.first_look.norm(token).expand(2, 4, -1))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="groups: got 3, expected a divisor of 16"):
        make(groups=3)
    with pytest.raises(UsageError, match="queries: got 1, expected 2 or more"):
        make(queries=1)
    with pytest.raises(UsageError, match="expected multiples of 4"):
        make(channels=18, heads=2)
