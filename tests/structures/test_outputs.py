"""What is asked of an output of any type."""

from __future__ import annotations

import torch

from segatlas.structures import CentersAndOffsets, DetectedMasks, SemanticLogits, maps_of, with_maps

MAP = torch.ones(1, 2, 3, 4, dtype=torch.bfloat16)


def test_the_maps_of_an_output_are_its_own_tensors_by_name():
    assert list(maps_of(SemanticLogits(MAP, canvas=(6, 8), aux={"fcn": MAP}))) == ["logits"]
    assert list(maps_of(CentersAndOffsets(MAP, MAP, MAP, canvas=(6, 8)))) == ["centers", "offsets", "foreground"]


def test_changing_the_maps_of_an_output_leaves_the_rest():
    output = with_maps(SemanticLogits(MAP, canvas=(6, 8), aux={"fcn": MAP}), torch.Tensor.float)
    assert output.logits.dtype == torch.float32
    assert output.aux["fcn"] is MAP
    assert output.canvas == (6, 8)


def test_maps_that_each_image_has_of_its_own_are_told_by_number_and_labels_stay_whole():
    boxes, labels = torch.zeros(2, 4, dtype=torch.bfloat16), torch.tensor([3, 1])
    output = DetectedMasks(
        (boxes, boxes[:0]), (boxes[:, 0], boxes[:0, 0]), (labels, labels[:0]), (MAP[0], MAP[0, :0]), (6, 8)
    )
    assert list(maps_of(output)) == [
        f"{name}.{index}" for name in ("boxes", "scores", "mask_logits") for index in (0, 1)
    ]
    plain = with_maps(output, torch.Tensor.float)
    assert {one.dtype for one in maps_of(plain).values()} == {torch.float32}
    assert plain.labels[0] is labels
    assert plain.semantic is None
