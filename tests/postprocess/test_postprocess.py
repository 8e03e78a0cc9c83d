from __future__ import annotations

import pytest
import torch

from segatlas.errors import TaskError
from segatlas.ops import raise_logits
from segatlas.postprocess import postprocess
from segatlas.structures import Resample, SemanticLogits

BILINEAR = Resample()


def output(resample: Resample = BILINEAR) -> SemanticLogits:
    logits = torch.randn((2, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    return SemanticLogits(logits, (20, 24), resample)


@pytest.mark.parametrize("resample", [BILINEAR, Resample("bilinear", True), Resample("nearest", False)])
def test_padding_is_cut_off(resample):
    result = postprocess(output(resample), "semantic", (17, 23))
    full = raise_logits(output().logits, (20, 24), mode=resample.mode, align_corners=resample.align_corners)
    assert result.confidence is None
    assert torch.equal(result.class_map.long(), full[..., :17, :23].argmax(1))


def test_a_resized_picture_comes_back_in_its_own_size_with_confidence():
    result = postprocess(output(), "semantic", (51, 46), (17, 23), confidence=True)
    full = raise_logits(output().logits, (51, 46), canvas=(20, 24), crop=(17, 23)).softmax(1)
    assert torch.equal(result.class_map.long(), full.argmax(1))
    torch.testing.assert_close(result.confidence, full.amax(1), atol=1e-6, rtol=1e-5)


def test_a_task_that_the_output_cannot_serve_is_refused():
    with pytest.raises(TaskError, match="SemanticLogits gives no panoptic result; it can give: semantic"):
        postprocess(output(), "panoptic", (17, 23))
