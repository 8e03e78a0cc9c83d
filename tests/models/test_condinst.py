"""What is particular to CondInst: its masks, its cells, what it is trained on, images that are odd."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from fakes.objects_truth import rectangles
from torch.nn import functional as F

from segatlas import criteria
from segatlas.build.network import build_network, make_config, shapes_only
from segatlas.errors import UsageError
from segatlas.losses import LOSSES
from segatlas.models.condinst import ARCHITECTURE, Cells, chosen

K, SIZE = 3, (64, 96)
SMALL = {"levels": 4, "detect_from": 1, "mask_levels": 4, "coarser_levels": 1, "object_sizes": (16, 32, 64)}
"""Masks from stride 4, boxes from stride 8 on."""


def network(**fields):
    torch.manual_seed(0)
    return build_network(*make_config("condinst", {"num_classes": K, **ARCHITECTURE.tiny, **fields}))


def trained_on(net, targets, sizes=None, seed=1):
    torch.manual_seed(seed)
    x = torch.randn(len(targets), 3, *SIZE)
    torch.manual_seed(seed)
    output = net.train()(x, targets, sizes)
    total, parts = criteria.build("DetectedMasks", [LOSSES["dynamic_masks"]()])(output, targets)
    return output, total, parts


def test_the_published_form_has_its_parameters():
    with shapes_only():
        net = build_network(*make_config("condinst_r50", {"num_classes": 80}))
    assert sum(p.numel() for p in net.parameters()) == 34_164_299


@pytest.mark.parametrize("fields", [{}, {"dynamic_layers": 2, "mask_upsampling": 4}, SMALL])
def test_masks_are_those_of_each_objects_own_convolutions_over_offsets_and_features(fields):
    net, x = network(**fields).eval(), torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        output = net(x)
        cells = net.cells(output.raw["distances"])
        index = torch.tensor([0, 5, len(cells.middles) - 1])
        features = output.raw["mask_features"][1]
        weights = torch.cat([level[1].flatten(1).T for level in output.raw["mask_weights"]])[index]
        found = net.masks(features, weights, chosen(cells, index))
    inner, stride = net.config.dynamic_channels, net.finest
    for row, mask in zip(index.tolist(), found, strict=True):
        x0, y0 = cells.middles[row].tolist()
        unit = float(cells.strides[row]) * net.config.offset_unit
        height, width = features.shape[1:]
        across = torch.tensor([(x0 - (column + 0.5) * stride) / unit for column in range(width)])
        down = torch.tensor([(y0 - (line + 0.5) * stride) / unit for line in range(height)])
        seen = torch.cat([across.expand(1, height, width), down[:, None].expand(1, height, width), features])
        widths = [len(seen), *[inner] * (net.config.dynamic_layers - 1), 1]
        numbers = weights[index.tolist().index(row)]
        bias_at = sum(a * b for a, b in pairwise(widths))
        at = 0
        for a, b in pairwise(widths):
            seen = F.relu(seen) if at else seen
            matrix, bias = numbers[at : at + a * b].view(b, a, 1, 1), numbers[bias_at : bias_at + b]
            seen = F.conv2d(seen[None], matrix, bias)[0]
            at, bias_at = at + a * b, bias_at + b
        assert bias_at == len(numbers)
        factor = net.config.mask_upsampling
        samples = mask[factor // 2 :: factor, factor // 2 :: factor]
        assert mask.shape == (height * factor, width * factor)
        assert torch.allclose(samples, seen[0], atol=1e-5)


def test_boxes_reach_as_far_from_their_cell_as_the_map_says_and_scores_are_products():
    net, x = network(score_threshold=0.0, top=400, nms_iou=1.0, candidates=10_000).eval(), torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        output = net(x)
    raw, middles = output.raw, net.cells(output.raw["distances"]).middles
    flat = {name: torch.cat([level[0].flatten(1).T for level in raw[name]]) for name in ("distances", "centerness")}
    boxes = torch.cat([middles - flat["distances"][:, :2], middles + flat["distances"][:, 2:]], dim=1)
    boxes[:, 0::2], boxes[:, 1::2] = boxes[:, 0::2].clamp(0, SIZE[1]), boxes[:, 1::2].clamp(0, SIZE[0])
    likely = torch.cat([level[0].flatten(1).T for level in raw["class_logits"]]).sigmoid()
    scores = likely * flat["centerness"].sigmoid()
    assert len(output.boxes[0]) > 100
    for box, score, label in zip(output.boxes[0], output.scores[0], output.labels[0], strict=True):
        apart = (boxes - box).abs().amax(dim=1) + (scores[:, label] - score).abs()
        assert apart.min() < 1e-5
    assert (output.scores[0].diff() <= 0).all()


def test_the_root_of_a_score_changes_no_order():
    x = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        plain, root = network().eval()(x), network(root_scores=True).eval()(x)
    assert torch.equal(plain.boxes[0], root.boxes[0])
    assert torch.allclose(plain.scores[0].sqrt(), root.scores[0])


def test_masks_are_samples_of_the_truth_in_the_middle_of_what_they_cover():
    net = network(train_masks=4)
    target = rectangles((1, 8, 8, 40, 56), size=SIZE)
    output, _, _ = trained_on(net, [target])
    truths = output.raw["mask_targets"]
    assert net.mask_stride == 4
    assert 0 < len(truths) <= 4
    for mask in truths:
        assert np.array_equal(mask.numpy(), target.masks[0, 2::4, 2::4])


def test_cells_stand_for_the_smallest_object_around_whose_middle_they_lie():
    net = network()
    output, _, _ = trained_on(net, [rectangles((0, 0, 0, 40, 40), (2, 12, 12, 28, 28), size=SIZE)])
    cells, classes = net.cells(output.raw["distances"]), output.raw["cell_classes"][0]
    middles = cells.middles[classes == 2]
    assert len(middles)
    assert ((middles > 12) & (middles < 28)).all()
    assert (cells.strides[classes == 0] > 8).all()  # its sides are farther away than the finest level's


def test_a_batch_with_and_without_objects_trains_and_so_does_one_without_any():
    for targets in (
        [rectangles((0, 8, 8, 40, 40), size=SIZE), rectangles(size=SIZE)],
        [rectangles(size=SIZE), rectangles(size=SIZE)],
    ):
        net = network()
        _, total, parts = trained_on(net, targets)
        total.backward()
        assert total.isfinite()
        assert all(value.isfinite() for value in parts.values())
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_an_object_that_fills_the_image_and_one_of_one_pixel_train():
    output, total, _ = trained_on(
        network(), [rectangles((0, 0, 0, *SIZE), size=SIZE), rectangles((2, 4, 4, 5, 5), size=SIZE)]
    )
    assert total.isfinite()
    assert (output.raw["mask_targets"] == 1).all(dim=(1, 2)).any()


def test_nothing_in_a_crowd_is_judged_that_stands_for_no_object():
    output, _, parts = trained_on(network(), [rectangles((0, 0, 0, *SIZE), crowd=(0,), size=SIZE)])
    inside = output.raw["cell_classes"] == -1
    net = network()
    middles = net.cells(output.raw["distances"]).middles
    shown = (middles[:, 0] < SIZE[1]) & (middles[:, 1] < SIZE[0])
    assert inside[0, shown].all()
    assert parts["class"] == 0


def test_nothing_in_the_padding_of_an_image_is_judged():
    output, _, _ = trained_on(network(), [rectangles((0, 4, 4, 28, 28), size=SIZE)], [(32, 40)])
    middles = network().cells(output.raw["distances"]).middles
    outside = (middles[:, 0] >= 40) | (middles[:, 1] >= 32)
    assert (output.raw["cell_classes"][0, outside] == -1).all()
    truths = output.raw["mask_targets"]
    assert (truths[:, 8:] == -1).all()
    assert (truths[:, :, 10:] == -1).all()
    assert (truths[:, :8, :10] >= 0).all()


def test_an_image_of_one_pixel_is_predicted():
    with torch.no_grad():
        output = network().eval()(torch.randn(1, 3, 1, 1))
    assert output.canvas == (32, 32)
    assert all(box.max() <= 1 for box in output.boxes[0])


def test_no_detections_give_no_masks():
    with torch.no_grad():
        output = network(score_threshold=0.9).eval()(torch.randn(2, 3, *SIZE))
    assert [len(boxes) for boxes in output.boxes] == [0, 0]
    assert output.mask_logits[0].shape == (0, 16, 24)


def test_masks_are_computed_in_float32_under_bf16():
    net = network().eval()
    cells = Cells(torch.tensor([[700.0, 4.0]]), torch.tensor([8.0]), torch.zeros(1, 2))
    features, weights = torch.randn(4, 8, 200), torch.randn(1, sum(a * b + b for a, b in net.layers))
    with torch.no_grad():
        plain = net.masks(features, weights, cells)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(net.masks(features, weights, cells), plain)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"object_sizes": (16, 32)}, r"object_sizes: got \(16, 32\), expected 4 growing ones"),
        ({"object_sizes": (16, 64, 32, 128)}, "expected 4 growing ones"),
        ({"mask_levels": 4}, r"mask_levels: got 4, expected 3 \(levels\) at most"),
        ({"mask_upsampling": 3}, "mask_upsampling: got 3, expected a divisor of 8"),
        ({"groups": 8}, r"groups: got 8, expected a divisor of 8 \(head_channels\) below it"),
        ({"padding": 16}, "padding 16; expected strides that double, and a multiple of the last one"),
        (
            {"levels": 9, "object_sizes": tuple(range(1, 11))},
            r"levels: got 9, expected . \(the encoder's maps\) at most",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(fields, told):
    with pytest.raises(UsageError, match=told):
        network(**fields)
