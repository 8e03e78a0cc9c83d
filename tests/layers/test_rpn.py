"""How proposals are chosen where many are alike: a box of equal score that comes first stays."""

import torch

from segatlas.layers.rpn import ProposalRule, choose_proposals


def chosen(count, before):
    """Return the proposals of one level of `count` anchors, apart from one another, whose probabilities round to 1."""
    left = torch.arange(count).float() * 20
    anchors = torch.stack([left, left * 0, left + 10, left * 0 + 10], dim=1)
    scores = 40 + torch.rand(1, count, 1, generator=torch.Generator().manual_seed(0)) * 20
    rule = ProposalRule(before=before, after=count, rank="probability")
    ((boxes, found),) = choose_proposals([scores], [torch.zeros(1, count, 4)], [anchors], (10, 20 * count), rule)
    assert (found == 1).all()
    return boxes, anchors


def test_a_level_with_no_more_anchors_than_are_looked_at_keeps_their_order():
    boxes, anchors = chosen(300, before=300)
    assert torch.equal(boxes, anchors)


def test_of_a_larger_level_as_many_are_looked_at_as_the_rule_says():
    boxes, anchors = chosen(300, before=100)
    assert len(boxes) == 100
    assert {tuple(box) for box in boxes.tolist()} <= {tuple(box) for box in anchors.tolist()}
