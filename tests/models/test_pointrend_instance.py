"""What is particular to PointRend for objects: coarse masks, points while training, masks refined step by step."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segatlas import criteria
from segatlas.build.network import build_network, make_config, shapes_only
from segatlas.errors import UsageError
from segatlas.losses import LOSSES
from segatlas.models.pointrend_instance import ARCHITECTURE, masks_at
from segatlas.structures import InstancesTarget

K, SIZE = 3, (64, 96)


def network(**fields):
    torch.manual_seed(0)
    net = build_network(*make_config("pointrend_instance", {"num_classes": K, **ARCHITECTURE.tiny, **fields}))
    for part in (net.stages.mask_head.classifier, net.stages.point_head):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return net


def rectangle(top, left, bottom, right, kind=1):
    mask = np.zeros((1, *SIZE), bool)
    mask[0, top:bottom, left:right] = True
    return InstancesTarget(mask, np.array([kind]), np.zeros(1, bool))


def nothing():
    return InstancesTarget(np.zeros((0, *SIZE), bool), np.zeros(0, np.int64), np.zeros(0, bool))


def trained_on(net, targets):
    torch.manual_seed(1)
    output = net.train()(torch.randn(len(targets), 3, *SIZE), targets)
    losses = [LOSSES["two_stage"](), LOSSES["mask_points"]()]
    return output, *criteria.build("DetectedMasks", losses)(output, targets)


@pytest.fixture(scope="module")
def seen():
    """Return a network, the pyramid of two images, boxes in each, one half outside, and their classes."""
    net = network().eval()
    with torch.no_grad():
        maps, _ = net.pyramid(torch.randn(2, 3, *SIZE))
    boxes = [torch.tensor([[4.0, 6.0, 44.5, 50.0], [70.0, -8.0, 110.0, 30.0]]), torch.tensor([[0.0, 0.0, 96.0, 64.0]])]
    return net, maps, boxes, torch.tensor([2, 0, 1])


def test_the_published_form_has_the_peers_parameters():
    with shapes_only():
        net = build_network(*make_config("pointrend_instance_r50", {"num_classes": 80}))
    assert sum(p.numel() for p in net.parameters()) == 60_214_912


@torch.no_grad()
def test_masks_are_refined_where_their_own_class_is_uncertain_cell_by_cell(seen):
    net, maps, boxes, labels = seen
    coarse = net.stages.look_at_masks(maps, boxes)
    assert coarse.shape == (3, K, 7, 7)
    got = net.stages.own_masks(maps, boxes, labels, coarse)
    assert got.shape == (3, 28, 28)
    places = [(0, boxes[0][0]), (0, boxes[0][1]), (1, boxes[1][0])]
    for index, (image, box) in enumerate(places):
        mask = coarse[index, labels[index]]
        for side in (14, 28):
            mask = F.interpolate(mask[None, None], (side, side), mode="bilinear")[0, 0]
            for place in mask.abs().flatten().argsort()[:64].tolist():
                y, x = divmod(place, side)
                inside = torch.tensor([(x + 0.5) / side, (y + 0.5) / side])
                on_map = (box[:2] + inside * (box[2:] - box[:2])) / torch.tensor([96.0, 64.0])
                fine = F.grid_sample(maps[0][image, None], 2 * on_map[None, None, None] - 1, align_corners=False)
                rough = F.grid_sample(coarse[index, None], 2 * inside[None, None, None] - 1, align_corners=False)
                mask[y, x] = net.stages.point_head(fine[..., 0], rough[..., 0])[0, labels[index], 0]
        torch.testing.assert_close(got[index], mask, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_step_of_which_the_next_computes_every_cell_changes_nothing(seen):
    net, maps, boxes, labels = seen
    coarse = net.stages.look_at_masks(maps, boxes)
    calls = []
    with_all = network(subdivision_points=28 * 28).eval()
    with_all.stages.point_head.register_forward_hook(lambda *_: calls.append(1))
    got = with_all.stages.own_masks(maps, boxes, labels, coarse)
    cells = torch.cartesian_prod(*[torch.arange(28)] * 2).flip(1).expand(3, -1, -1)
    whole = net.stages.logits_at((cells + 0.5) / 28, maps, boxes, coarse)
    expected = torch.stack([one[label] for one, label in zip(whole, labels, strict=True)]).unflatten(1, (28, 28))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == 1


def test_points_of_training_are_mostly_uncertain_and_their_truth_is_the_mask_there():
    net = network(train_points=16)
    output, total, parts = trained_on(net, [rectangle(8, 8, 40, 56), nothing()])
    count = int((output.raw["box_classes"] < K).sum())
    assert output.raw["point_logits"].shape == (count, K, 16)
    assert output.raw["mask_logits"].shape == (count, K, 7, 7)
    assert output.raw["mask_targets"].shape == (count, 7, 7)
    targets = output.raw["point_targets"]
    assert ((targets >= 0) & (targets <= 1)).all()
    assert (targets[int(output.raw["box_targets"].abs().sum(1).argmin())] > 0).all()  # its own box is all object
    own = output.raw["point_logits"][:, 1]
    expected = F.binary_cross_entropy_with_logits(own, targets)
    torch.testing.assert_close(parts["mask_points"], expected)
    total.backward()
    assert all(p.grad.abs().sum() > 0 for p in net.stages.point_head.parameters())


def test_three_quarters_of_the_points_are_the_least_certain_of_those_drawn():
    net = network(train_points=32)
    coarse = torch.linspace(8, 0, 7).expand(2, 7, 7).contiguous()  # certain on the left, in doubt on the right
    torch.manual_seed(5)
    points = net.stages.training_points(coarse)
    torch.manual_seed(5)
    drawn = torch.rand(2, 96, 2)
    assert points.shape == (2, 32, 2)
    at = F.grid_sample(coarse[:, None], 2 * drawn[:, :, None] - 1, align_corners=False)[:, 0, :, 0].abs()
    order = at.argsort(dim=1)[:, :24, None].expand(-1, -1, 2)
    assert torch.equal(points[:, :24].sort(dim=1).values, drawn.gather(1, order).sort(dim=1).values)
    assert torch.equal(points[:, 24:], torch.rand(2, 8, 2))


def test_a_point_on_the_edge_of_a_mask_is_half_inside():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[1, :, 4:] = True
    points = torch.tensor([[[4.0, 4.0], [6.0, 4.0], [1.0, 4.0]]]).repeat(3, 1, 1)
    expected = torch.tensor([[0.5, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 1.0, 0.0]])
    torch.testing.assert_close(masks_at(points, torch.tensor([1, 0, 1]), masks), expected)


def test_images_without_objects_and_without_proposals_train_and_find_nothing():
    net = network()
    _, total, parts = trained_on(net, [nothing(), nothing()])
    total.backward()
    assert float(parts["mask_points"]) == 0
    assert total.isfinite()
    with torch.no_grad():
        found = net.eval().on_proposals(torch.randn(2, 3, *SIZE), [torch.zeros(0, 4)] * 2)
    assert found.mask_logits[0].shape == (0, 28, 28)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(UsageError, match=r"importance: got 1\.5, expected a fraction of at most 1"):
        network(importance=1.5)
    with pytest.raises(UsageError, match="subdivision_points"):
        network(subdivision_points=0)
