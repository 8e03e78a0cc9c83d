"""What is particular to Mask R-CNN: its stages, its forms, what it is trained on."""

import numpy as np
import pytest
import torch

from segatlas import criteria
from segatlas.build.network import build_network, make_config, shapes_only
from segatlas.errors import UsageError
from segatlas.losses import LOSSES
from segatlas.models.mask_rcnn import ARCHITECTURE, V2
from segatlas.structures import InstancesTarget

K, SIZE = 3, (64, 96)


def network(**fields):
    torch.manual_seed(0)
    return build_network(*make_config("mask_rcnn", {"num_classes": K, **ARCHITECTURE.tiny, **fields}))


def rectangles(*objects, crowd=(), size=SIZE):
    """Return a truth of rectangles (class, top, left, bottom, right)."""
    masks = np.zeros((len(objects), *size), bool)
    for mask, (_, top, left, bottom, right) in zip(masks, objects, strict=True):
        mask[top:bottom, left:right] = True
    kinds = np.array([one[0] for one in objects], np.int64)
    return InstancesTarget(masks, kinds, np.array([index in crowd for index in range(len(objects))], bool))


def trained_on(net, targets, sizes=None, seed=1):
    torch.manual_seed(seed)
    x = torch.randn(len(targets), 3, *SIZE)
    torch.manual_seed(seed)
    output = net.train()(x, targets, sizes)
    total, parts = criteria.build("DetectedMasks", [LOSSES["two_stage"]()])(output, targets)
    return output, total, parts


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("mask_rcnn_r50_tv", 44_450_156), ("mask_rcnn_r50_v2", 46_355_052)],
)
def test_the_published_forms_have_their_parameters_but_for_the_rows_of_no_object(variant, parameters):
    with shapes_only():
        net = build_network(*make_config(variant, {"num_classes": 90}))
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_given_proposals_take_the_place_of_the_networks_own():
    net, x = network().eval(), torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        own = net(x)
        given = net.on_proposals(x, own.raw["proposals"])
    for name in ("boxes", "scores", "labels", "mask_logits"):
        assert torch.equal(getattr(own, name)[0], getattr(given, name)[0])
    assert torch.equal(own.raw["box_logits"], given.raw["box_logits"])


def test_an_image_without_proposals_has_no_objects():
    net = network().eval()
    with torch.no_grad():
        found = net.on_proposals(torch.randn(2, 3, *SIZE), [torch.zeros(0, 4)] * 2)
    assert [len(boxes) for boxes in found.boxes] == [0, 0]
    assert found.mask_logits[0].shape == (0, 28, 28)


def test_channels_are_turned_round_for_an_encoder_trained_on_bgr():
    one, other, x = network().eval(), network(bgr=True).eval(), torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(one(x).raw["rpn_scores"][0], other(x.flip(1)).raw["rpn_scores"][0])


def test_of_overlapping_detections_of_two_classes_the_worse_one_goes_only_where_classes_are_left_aside():
    boxes = torch.tensor([[4.0, 4.0, 40.0, 40.0], [5.0, 4.0, 40.0, 40.0], [50.0, 8.0, 80.0, 40.0]])
    logits = torch.tensor([[9.0, 0.0, 0.0, 0.0], [0.0, 8.0, 0.0, 0.0], [0.0, 0.0, 7.0, 0.0]])
    for agnostic, kept in ((False, [0, 1, 2]), (True, [0, 2])):
        stages = network(class_agnostic=agnostic, score_threshold=0.5).stages
        _, _, labels = stages.detect(boxes, logits, torch.zeros(3, 4 * K), SIZE)
        assert labels.tolist() == kept


def test_no_more_boxes_are_drawn_than_the_config_says():
    output, _, _ = trained_on(network(drawn=(20, 8)), [rectangles((1, 8, 8, 40, 56)), rectangles()])
    assert (output.raw["rpn_labels"] >= 0).sum(dim=1).tolist() == [20, 20]
    assert [len(boxes) for boxes in output.raw["proposals"]] == [8, 8]
    assert (output.raw["box_classes"] < K).sum() <= 2  # a quarter of one image's


def test_anchors_for_another_number_of_levels_are_refused():
    with pytest.raises(UsageError, match="anchor_sizes: got 2, expected one for each of the 5 levels"):
        network(anchor_sizes=(8, 16))


def test_a_batch_with_and_without_objects_trains_and_so_does_one_without_any():
    for targets in ([rectangles((0, 8, 8, 40, 40)), rectangles()], [rectangles(), rectangles()]):
        net = network()
        _, total, parts = trained_on(net, targets)
        total.backward()
        assert total.isfinite()
        assert all(value.isfinite() for value in parts.values())
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_an_object_that_fills_the_image_and_one_of_one_pixel_train():
    _, total, _ = trained_on(network(), [rectangles((0, 0, 0, *SIZE)), rectangles((2, 5, 5, 6, 6))])
    assert total.isfinite()


def test_objects_are_drawn_with_their_own_boxes_as_proposals():
    output, _, _ = trained_on(network(), [rectangles((1, 8, 8, 40, 56))])
    classes = output.raw["box_classes"]
    assert (classes == 1).any()
    assert set(classes.tolist()) <= {1, K}
    first = output.raw["mask_targets"][int((output.raw["box_targets"].abs().sum(1)).argmin())]
    assert first.all()  # inside its own box a rectangle is all object


def test_nothing_in_a_crowd_is_background():
    output, _, _ = trained_on(network(), [rectangles((0, 0, 0, *SIZE), crowd=(0,))])
    assert (output.raw["rpn_labels"] == -1).all()
    assert len(output.raw["box_classes"]) == 0


def test_nothing_in_the_padding_of_an_image_is_judged():
    output, _, _ = trained_on(network(), [rectangles((0, 4, 4, 28, 28))], [(32, 32)])
    net = network()
    maps, _ = net.pyramid(torch.randn(1, 3, *SIZE))
    anchors = torch.cat(net.stages.anchors(maps))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    outside = (centres >= 32).any(dim=1)
    assert (output.raw["rpn_labels"][0, outside] < 1).all()
    assert not (output.raw["rpn_labels"][0, outside] == 0).any()


def test_anchors_of_torchvisions_forms_lie_where_its_own_generator_puts_them():
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    net = network(**V2, anchor_sizes=(32.0, 64.0, 128.0, 256.0, 512.0)).eval()
    height, width = 160, 96  # the coarsest map is rounded up: 3 x 2 cells of 53 x 48 pixels
    image = torch.zeros(1, 3, height, width)
    maps, _ = net.pyramid(image)
    theirs = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    (expected,) = theirs(ImageList(image, [(height, width)]), list(maps))
    assert torch.equal(torch.cat(net.stages.anchors(maps)), expected)
    by_stride = network(**{**V2, "measured_strides": False}, anchor_sizes=(32.0, 64.0, 128.0, 256.0, 512.0)).eval()
    assert not torch.equal(torch.cat(by_stride.stages.anchors(maps)), expected)
