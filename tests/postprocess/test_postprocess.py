"""The table of postprocessing, and what its functions give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segatlas import structures
from segatlas.criteria import CRITERIA
from segatlas.errors import TaskError
from segatlas.models import ARCHITECTURES
from segatlas.ops import upsample_logits
from segatlas.postprocess import POSTPROCESS, find
from segatlas.postprocess.semantic_logits import semantic
from segatlas.structures import SemanticLogits
from segatlas.tasks import TASKS


def test_every_line_names_an_output_type_a_task_and_a_function():
    for output, task in POSTPROCESS:
        assert hasattr(structures, output)
        assert task in TASKS
        assert callable(find(output, task))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_task_of_an_architecture_can_be_trained_and_has_results(name):
    entry = ARCHITECTURES[name]
    assert entry.tasks
    assert entry.output in CRITERIA
    assert {(entry.output, task) for task in entry.tasks} <= set(POSTPROCESS)


def test_a_task_that_an_output_has_no_results_for_is_refused_naming_those_it_has():
    with pytest.raises(TaskError, match=r"SemanticLogits has no results for task panoptic; it can give: semantic$"):
        find("SemanticLogits", "panoptic")
    with pytest.raises(TaskError, match="nothing can be made of it"):
        find("PointLogits", "semantic")


def test_class_maps_are_the_best_class_of_the_upsampled_logits():
    logits = torch.randn(2, 5, 8, 11, generator=torch.Generator().manual_seed(0))
    output = SemanticLogits(logits, canvas=(32, 44))
    plain = semantic(output, (61, 85), crop=(31, 43))
    sure = semantic(output, (61, 85), crop=(31, 43), confidence=True)
    slow = upsample_logits(logits, (61, 85), canvas=(32, 44), crop=(31, 43), align_corners=False, mode="bilinear")
    probabilities = slow.softmax(dim=1).amax(dim=1)
    for index in range(2):
        assert np.array_equal(plain[index].semantic, slow[index].argmax(dim=0).numpy())
        assert np.array_equal(sure[index].semantic, plain[index].semantic)
        assert np.allclose(sure[index].confidence, probabilities[index].numpy(), atol=1e-6)
        assert plain[index].confidence is None
        assert plain[index].given == ("semantic",)
