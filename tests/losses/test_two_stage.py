"""The losses of two stages beside a slow form, box by box."""

import math
from types import SimpleNamespace

import pytest
import torch
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork

from segatlas.losses.two_stage import TwoStage

LABELS, CLASSES = torch.zeros(2, 8, 8, dtype=torch.uint8), 3


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def slow(raw):
    """Return the five parts from loops."""
    scores, deltas = raw["rpn_scores"][0], raw["rpn_deltas"][0]
    rpn = rpn_box = 0.0
    drawn = 0
    for image, labels in enumerate(raw["rpn_labels"].tolist()):
        for index, label in enumerate(labels):
            if label < 0:
                continue
            cell, anchor = divmod(index, scores.shape[1])
            y, x = divmod(cell, scores.shape[3])
            drawn += 1
            rpn += softplus(float(scores[image, anchor, y, x])) - label * float(scores[image, anchor, y, x])
            if label == 1:
                found = deltas[image, 4 * anchor : 4 * anchor + 4, y, x]
                rpn_box += float((found - raw["rpn_targets"][image, index]).abs().sum())
    kinds = raw["box_classes"].tolist()
    of_class = sum(
        float(logits.exp().sum().log() - logits[kind]) for logits, kind in zip(raw["box_logits"], kinds, strict=True)
    )
    box = mask = 0.0
    objects = [index for index, kind in enumerate(kinds) if kind < CLASSES]
    cells = 0
    for row, index in enumerate(objects):
        kind = kinds[index]
        found = raw["box_deltas"][index, 4 * kind : 4 * kind + 4]
        box += float((found - raw["box_targets"][row]).abs().sum())
        for logit, wanted in zip(
            raw["mask_logits"][row, kind].flatten(), raw["mask_targets"][row].flatten(), strict=True
        ):
            mask += softplus(float(logit)) - float(wanted) * float(logit)
            cells += 1
    return {
        "rpn": rpn / drawn,
        "rpn_box": rpn_box / drawn,
        "class": of_class / len(kinds),
        "box": box / len(kinds),
        "mask": mask / cells,
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_part_is_that_of_the_slow_way(seed):
    output = TwoStage().example(LABELS, CLASSES, torch.Generator().manual_seed(seed))
    found, expected = TwoStage().parts(output, []), slow(output.raw)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(float(found[name]) - value) < 1e-9, name


def test_the_total_weighs_the_parts():
    output = TwoStage().example(LABELS, CLASSES, torch.Generator().manual_seed(0))
    parts = TwoStage().parts(output, [])
    alone = TwoStage(rpn_weight=0, rpn_box_weight=0, class_weight=0, box_weight=0, mask_weight=3)
    assert torch.isclose(alone(output, []), 3 * parts["mask"])


def test_where_nothing_is_drawn_the_loss_is_zero_with_zero_gradient():
    output = TwoStage().example(LABELS, CLASSES, torch.Generator().manual_seed(0))
    raw = dict(output.raw)
    for name in ("box_logits", "box_deltas", "box_classes", "box_targets", "mask_logits", "mask_targets"):
        raw[name] = raw[name][:0]
    raw["rpn_labels"] = torch.full_like(raw["rpn_labels"], -1)
    scores = raw["rpn_scores"][0].requires_grad_()
    total = TwoStage()(output._replace(raw=raw), [])
    total.backward()
    assert total == 0
    assert not scores.grad.any()


@pytest.mark.parametrize("seed", [0, 1])
def test_torchvisions_losses_of_the_same_drawn_boxes_are_the_same_to_twelve_digits(seed):
    raw = TwoStage().example(LABELS, CLASSES, torch.Generator().manual_seed(seed)).raw
    ours = TwoStage(rpn_box_beta=1 / 9, box_beta=1 / 9).parts(TwoStage().example(LABELS, CLASSES,
                    torch.Generator().manual_seed(seed)), [])  # fmt: skip
    scores = raw["rpn_scores"][0].permute(0, 2, 3, 1).reshape(-1, 1)
    deltas = raw["rpn_deltas"][0].permute(0, 2, 3, 1).reshape(-1, 4)
    labels = list(raw["rpn_labels"])
    drawn = SimpleNamespace(fg_bg_sampler=lambda _: ([one == 1 for one in labels], [one == 0 for one in labels]))
    rpn, rpn_box = RegionProposalNetwork.compute_loss(
        drawn, scores, deltas, [one.double() for one in labels], list(raw["rpn_targets"])
    )
    kinds = raw["box_classes"]
    logits = raw["box_logits"].roll(1, 1)  # theirs have "no object" first, with deltas of its own
    box_deltas = torch.cat([torch.zeros(len(kinds), 4, dtype=torch.float64), raw["box_deltas"]], dim=1)
    targets = torch.zeros(len(kinds), 4, dtype=torch.float64)
    targets[kinds < CLASSES] = raw["box_targets"]
    of_class, box = fastrcnn_loss(logits, box_deltas, [(kinds + 1) % (CLASSES + 1)], [targets])
    for name, theirs in {"rpn": rpn, "rpn_box": rpn_box, "class": of_class, "box": box}.items():
        assert abs(float(ours[name]) - float(theirs)) < 1e-12, name
