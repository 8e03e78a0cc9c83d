"""What is asked of an output of any type."""

from __future__ import annotations

import torch

from segatlas.structures import CentersAndOffsets, SemanticLogits, maps_of, with_maps

MAP = torch.ones(1, 2, 3, 4, dtype=torch.bfloat16)


def test_the_maps_of_an_output_are_its_own_tensors_by_name():
    assert list(maps_of(SemanticLogits(MAP, canvas=(6, 8), aux={"fcn": MAP}))) == ["logits"]
    assert list(maps_of(CentersAndOffsets(MAP, MAP, MAP, canvas=(6, 8)))) == ["centers", "offsets", "foreground"]


def test_changing_the_maps_of_an_output_leaves_the_rest():
    output = with_maps(SemanticLogits(MAP, canvas=(6, 8), aux={"fcn": MAP}), torch.Tensor.float)
    assert output.logits.dtype == torch.float32
    assert output.aux["fcn"] is MAP
    assert output.canvas == (6, 8)
