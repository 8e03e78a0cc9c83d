"""The sums of a class's logits against plain loops over pixels, objects and queries."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from segatlas.config.objects import ObjectRule
from segatlas.errors import TaskError
from segatlas.explain.class_logits import OutputFrame, summed_logits
from segatlas.structures import CentersAndOffsets, DetectedMasks, QueryMasks, Resample, SemanticLogits

SIZE = (12, 16)
THINGS = (True, False, True, False)
INSIDE = torch.zeros(SIZE, dtype=torch.bool)
INSIDE[2:9, 3:14] = True


def frame(**rule) -> OutputFrame:
    return OutputFrame(size=SIZE, crop=SIZE, things=THINGS, rule=ObjectRule(**rule))


def maps(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, channels, 3, 4, generator=torch.Generator().manual_seed(seed))


def plain_sum(logits: torch.Tensor) -> float:
    whole = F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False)[0, 0]
    return sum(float(whole[row, column]) for row in range(2, 9) for column in range(3, 14))


def test_of_class_maps_the_logits_are_upsampled_and_summed():
    logits = maps(4)
    expected = plain_sum(logits[:, 2:3])
    semantic = SemanticLogits(logits, canvas=SIZE)
    centers = CentersAndOffsets(maps(1), maps(2), None, canvas=SIZE, semantic=logits)
    foreground = CentersAndOffsets(maps(1), maps(2), logits, canvas=SIZE)
    for output in (semantic, centers, foreground):
        assert float(summed_logits(output, 2, INSIDE, frame())) == pytest.approx(expected, rel=1e-5)


def test_of_queries_scores_are_summed():
    classes, masks = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(1)), maps(5)
    score = sum(classes[0, query].softmax(0)[2] * masks[0, query].sigmoid() for query in range(5))
    output = QueryMasks(classes, masks, canvas=SIZE)
    found = summed_logits(output, 2, INSIDE, frame())
    assert float(found) == pytest.approx(plain_sum(score[None, None]), rel=1e-5)


def detected(**fields) -> DetectedMasks:
    given = {
        "boxes": (torch.tensor([[2.0, 1.0, 10.0, 9.0], [4.0, 4.0, 12.0, 12.0], [4.0, 5.0, 8.0, 9.0]]),),
        "scores": (torch.tensor([0.9, 0.6, 0.3]),),
        "labels": (torch.tensor([1, 0, 1]),),
        "mask_logits": (torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(2)),),
        "canvas": SIZE,
        "semantic": maps(3),
    }
    return DetectedMasks(**{**given, **fields})


def test_of_a_class_of_things_its_objects_count_where_their_masks_are():
    output = detected()
    masks = output.mask_logits[0][[0, 2]]
    masks = [masks[0], F.interpolate(masks[1][None, None], size=(4, 4), mode="bilinear", align_corners=False)[0, 0]]
    expected = 0.0
    for mask, score, (left, top) in zip(masks, (0.9, 0.3), ((2, 1), (4, 5)), strict=True):
        for row, column in torch.nonzero(mask > 0).tolist():
            if INSIDE[top + row, left + column]:
                expected += float(mask[row, column]) + math.log(score / (1 - score))
    assert float(summed_logits(output, 2, INSIDE, frame())) == pytest.approx(expected, rel=1e-4)
    alone = summed_logits(output, 2, INSIDE, frame(score=0.5))
    assert float(alone) != pytest.approx(expected, rel=1e-3)


def test_a_class_of_stuff_has_the_channel_that_the_rule_says():
    for other, channel in (("first", 2), ("last", 1)):
        found = summed_logits(detected(), 3, INSIDE, frame(other=other))
        assert float(found) == pytest.approx(plain_sum(maps(3)[:, channel : channel + 1]), rel=1e-5)
    with pytest.raises(TaskError, match="4 semantic logits for 2 classes of stuff"):
        summed_logits(detected(semantic=maps(4)), 3, INSIDE, frame())


def test_masks_over_the_canvas_are_upsampled_as_the_network_says():
    mask = maps(1)[0]
    output = detected(
        boxes=(torch.zeros(1, 4),),
        scores=(torch.tensor([0.5]),),
        labels=(torch.tensor([2]),),
        mask_logits=(mask,),
        semantic=None,
        frame="canvas",
        resample=Resample("bilinear"),
    )
    whole = F.interpolate(mask[None], size=SIZE, mode="bilinear", align_corners=False)[0, 0]
    expected = float(whole[INSIDE & (whole > 0)].sum())
    assert float(summed_logits(output, 2, INSIDE, frame())) == pytest.approx(expected, rel=1e-5)


def test_objects_far_out_of_the_image_count_nothing():
    output = detected(
        boxes=(torch.tensor([[90.0, 90.0, 99.0, 99.0], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 1.0, 1.0]]),),
        labels=(torch.tensor([1, 1, 0]),),
    )
    assert float(summed_logits(output, 2, INSIDE, frame())) == 0.0
