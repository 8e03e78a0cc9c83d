"""Objects are read from planted maps of centres, offsets and foreground."""

import numpy as np
import torch

from segatlas.ops.center_maps import maps_of_target
from segatlas.postprocess import find
from segatlas.structures import CentersAndOffsets, InstancesTarget

TALL, WIDE = 24, 32


def planted(masks, kinds):
    """Return the output of a network that knows the truth, at stride 1."""
    truth = InstancesTarget(np.array(masks), np.array(kinds), np.zeros(len(kinds), bool))
    maps = maps_of_target(truth, 3, (TALL, WIDE), (TALL, WIDE), torch.device("cpu"))
    centers = (maps.centers == 1).float() * 20 - 10
    return CentersAndOffsets(centers[None], maps.offsets[None], maps.foreground[None] * 20 - 10, canvas=(TALL, WIDE))


def rectangle(top, left, bottom, right):
    mask = np.zeros((TALL, WIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


def found(output, size=(TALL, WIDE), crop=(TALL, WIDE)):
    return find("CentersAndOffsets", "instance")(output, size, crop=crop)[0].instances


def test_touching_objects_of_one_class_and_one_with_a_hole_come_back_as_they_were():
    ring = rectangle(12, 16, 23, 31) & ~rectangle(15, 20, 19, 27)
    masks = [rectangle(1, 1, 9, 9), rectangle(1, 9, 9, 17), ring]
    objects = found(planted(masks, [1, 1, 2]))
    assert len(objects) == 3
    for mask, kind in zip(masks, (1, 1, 2), strict=True):
        assert any(np.array_equal(one.mask, mask) and one.class_index == kind for one in objects)
    assert all(0.99 < one.score <= 1 for one in objects)


def test_results_have_the_size_that_is_asked_for_and_padding_plays_no_part():
    output = planted([rectangle(2, 2, 8, 8), rectangle(18, 26, 24, 32)], [0, 2])
    (one,) = found(output, size=(32, 48), crop=(16, 24))
    assert one.mask.shape == (32, 48)
    assert one.class_index == 0
    assert one.box == (4, 4, 16, 16)


def test_an_image_without_centres_or_without_foreground_has_no_objects():
    output = planted([rectangle(2, 2, 8, 8)], [0])
    assert found(output._replace(centers=output.centers - 40)) == ()
    assert found(output._replace(foreground=output.foreground - 40)) == ()
