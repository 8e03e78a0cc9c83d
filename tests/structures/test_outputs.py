"""What is asked of an output of any type."""

from __future__ import annotations

import torch

from segatlas.structures import (
    CentersAndOffsets,
    DetectedMasks,
    PointLogits,
    QueryLayer,
    QueryMasks,
    SemanticLogits,
    further_maps,
    maps_of,
    with_maps,
)

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


def test_queries_have_a_class_and_a_mask_and_the_layers_stand_in_their_order():
    first, last = QueryLayer(MAP[:, :, 0], MAP), QueryLayer(MAP[:, :, 1], MAP + 1)
    output = QueryMasks(*last, canvas=(12, 16), aux={"layer_0": first})
    assert list(maps_of(output)) == ["class_logits", "mask_logits"]
    assert [id(one.mask_logits) for one in output.layers] == [id(first.mask_logits), id(last.mask_logits)]
    plain = with_maps(output, torch.Tensor.float)
    assert plain.class_logits.dtype == torch.float32
    assert plain.aux["layer_0"] is first
    assert list(further_maps(output)) == ["layer_0.class_logits", "layer_0.mask_logits"]


def test_what_is_there_for_losses_alone_is_told_by_name():
    points = PointLogits(MAP[:, :, 0], torch.zeros(1, 4, 2))
    further = further_maps(SemanticLogits(MAP, (6, 8), aux={"fcn": MAP, "points": points}))
    assert {name: value.shape for name, value in further.items()} == {"fcn": MAP.shape, "points": points.logits.shape}
    boxes = DetectedMasks((), (), (), (), (6, 8), raw={"rpn_scores": (MAP, MAP), "box_logits": MAP[0]})
    assert list(further_maps(boxes)) == ["rpn_scores.0", "rpn_scores.1", "box_logits"]


class Exported(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> QueryMasks:
        return QueryMasks(x.mean(-1), x, canvas=(x.shape[-2] * 4, x.shape[-1] * 4))


def test_an_exported_program_gives_queries():
    x = torch.ones(1, 2, 3, 4)
    theirs = torch.export.export(Exported(), (x,)).module()(x)
    assert torch.equal(theirs.class_logits, x.mean(-1))
    assert tuple(theirs.canvas) == (12, 16)
