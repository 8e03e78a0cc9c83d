"""The criterion of networks that find objects by their centres."""

import numpy as np
import pytest
import torch

from segatlas import criteria
from segatlas.errors import UsageError
from segatlas.losses import CentersOffsets, CrossEntropy
from segatlas.ops.center_maps import maps_of_target
from segatlas.structures import CentersAndOffsets, InstancesTarget

CPU = torch.device("cpu")


def target(*objects, crowd=()):
    """Return a truth of rectangles (class, top, left, bottom, right) on 16 x 16 pixels."""
    masks = np.zeros((len(objects), 16, 16), bool)
    for mask, (_, top, left, bottom, right) in zip(masks, objects, strict=True):
        mask[top:bottom, left:right] = True
    kinds = np.array([one[0] for one in objects], np.int64)
    return InstancesTarget(masks, kinds, np.array([index in crowd for index in range(len(objects))], bool))


def output(seed=0):
    draw = torch.Generator().manual_seed(seed)
    maps = [torch.randn(1, channels, 8, 8, generator=draw, requires_grad=True) for channels in (1, 2, 3)]
    return CentersAndOffsets(*maps, canvas=(16, 16))


@pytest.fixture
def criterion():
    return criteria.build("CentersAndOffsets", [CentersOffsets()])


def test_every_pixel_of_an_object_points_at_its_centre():
    maps = maps_of_target(target((1, 2, 2, 8, 6), (2, 8, 8, 12, 16)), 3, (8, 8), (16, 16), CPU)
    middles = (torch.arange(8) + 0.5) * 2
    at = torch.stack([middles[:, None] + maps.offsets[0], middles + maps.offsets[1]])
    for kind, center in ((1, (5.0, 4.0)), (2, (10.0, 12.0))):
        inside = maps.foreground[kind] == 1
        assert inside.any()
        assert torch.equal(at[:, inside], torch.tensor(center)[:, None].expand(-1, int(inside.sum())))
    assert int((maps.centers == 1).sum()) == 2
    assert torch.equal(maps.inside, maps.foreground.any(dim=0))


def test_the_smaller_of_two_objects_that_overlap_is_on_top():
    maps = maps_of_target(target((0, 4, 4, 8, 8), (1, 0, 0, 16, 16)), 3, (8, 8), (16, 16), CPU)
    assert maps.foreground[0].sum() == 4
    assert maps.foreground[1].sum() == 60


def test_what_a_crowd_covers_changes_no_loss(criterion):
    truth = target((0, 0, 0, 6, 6), (1, 8, 8, 16, 16), crowd=(1,))
    one, other = output(), output()
    for changed in (other.centers, other.offsets, other.foreground):
        changed.data[..., 4:, 4:] += 3
    assert criterion(one, [truth])[0] == criterion(other, [truth])[0]


def test_an_image_of_nothing_but_crowd_has_a_loss_of_zero_with_zero_gradient(criterion):
    given = output()
    total, _ = criterion(given, [target((0, 0, 0, 16, 16), crowd=(0,))])
    total.backward()
    assert total == 0
    assert all(torch.count_nonzero(each.grad) == 0 for each in (given.centers, given.offsets, given.foreground))


def test_an_image_without_objects_teaches_that_there_are_none(criterion):
    given = output()
    total, parts = criterion(given, [target()])
    total.backward()
    assert parts["offsets"] == 0
    assert (given.foreground.grad > 0).all()
    assert (given.centers.grad > 0).all()


def test_a_loss_of_class_maps_is_refused_by_name():
    with pytest.raises(UsageError, match="got cross_entropy; this network trains with centers_offsets"):
        criteria.build("CentersAndOffsets", [CrossEntropy()])


def test_a_class_that_the_network_does_not_have_is_told(criterion):
    with pytest.raises(UsageError, match="class 3, but the network has 3 classes"):
        criterion(output(), [target((3, 0, 0, 4, 4))])
