"""What is particular to Panoptic FPN: how classes are numbered, and what its semantic branch is trained on."""

import numpy as np
import pytest
import torch

from segatlas import criteria
from segatlas.build.network import build_network, make_config
from segatlas.errors import UsageError
from segatlas.losses import LOSSES
from segatlas.models.panoptic_fpn import ARCHITECTURE
from segatlas.structures import SegmentsTarget

SIZE = (64, 96)


def network(**fields):
    torch.manual_seed(0)
    return build_network(*make_config("panoptic_fpn", {"num_classes": 4, **ARCHITECTURE.tiny, **fields}))


def segments():
    """Return a truth: stuff of class 0, things of classes 2 and 3, ignored below, a crowd of class 3 at the right."""
    ids = np.zeros(SIZE, np.int32)
    ids[8:30, 8:30], ids[30:50, 40:70], ids[:, 90:], ids[60:] = 1, 2, 3, -1
    flags = [np.array(values, bool) for values in ([0, 1, 1, 1], [0, 0, 0, 1])]
    return SegmentsTarget(ids, np.array([0, 2, 3, 3]), *flags)


@pytest.mark.parametrize(
    ("fields", "things", "semantic"),
    [
        ({"stuff": 2, "stuff_classes": (0, 1), "other": "first"}, [-1, -1, 0, 1], [1, 2, 0, 0]),
        ({"stuff": 2, "stuff_classes": (0, 1), "other": "last"}, [-1, -1, 0, 1], [0, 1, 2, 2]),
        ({"stuff": 1, "stuff_classes": (0,), "other": "first"}, [-1, 0, 1, 2], [1, 0, 0, 0]),
    ],
)
def test_classes_are_numbered_among_things_and_among_semantic_logits(fields, things, semantic):
    net = network(**fields).train()
    target = segments()
    torch.manual_seed(0)
    raw = net(torch.randn(1, 3, *SIZE), [target]).raw
    found = raw["box_classes"]
    count = 4 - fields["stuff"]
    assert set(found[found < count].tolist()) == {things[2], things[3]}
    labels = raw["semantic_labels"][0]
    assert int(labels[0, 0]) == semantic[0]
    assert int(labels[10, 10]) == semantic[2]
    assert (labels[60:] == 255).all()
    assert (labels[:60, 90:] == 255).all()


def test_it_trains_with_both_losses_and_without_any_thing():
    losses = [LOSSES["two_stage"](), LOSSES["semantic_branch"](weight=0.5)]
    empty = SegmentsTarget(np.zeros(SIZE, np.int32), np.array([0]), np.array([False]), np.array([False]))
    net = network(stuff=1, stuff_classes=(0,)).train()
    for targets in ([segments()], [empty]):
        output = net(torch.randn(1, 3, *SIZE), targets)
        total, parts = criteria.build("DetectedMasks", losses)(output, targets)
        total.backward()
        assert total.isfinite()
        assert parts["semantic_branch"] > 0


def test_a_network_without_things_is_refused():
    with pytest.raises(UsageError, match="stuff: got 4 of 4 classes"):
        network(stuff=4)


def test_classes_of_stuff_that_are_not_as_many_as_stated_are_refused():
    with pytest.raises(UsageError, match=r"stuff_classes: got \(0, 0\), expected 2"):
        network(stuff=2, stuff_classes=(0, 0))
