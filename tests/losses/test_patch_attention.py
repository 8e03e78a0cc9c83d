"""The loss of attention between patches, against loops over patches and pixels."""

from __future__ import annotations

import pytest
import torch

from segatlas.errors import UsageError
from segatlas.losses import LOSSES
from segatlas.losses.patch_attention import label_attention
from segatlas.structures import PatchAttention

K, SIDE, STRIDE = 3, 2, 2
LOSS = LOSSES["patch_attention"]()


def example(border: str = "pad") -> tuple[PatchAttention, torch.Tensor, tuple[int, int]]:
    """Return attention on a canvas of 6 x 8, and labels of 5 x 7, its top left part."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, K, (2, 5, 7), generator=draw, dtype=torch.uint8)
    labels[0, 1:3, 2:5] = 255
    patches = 4 if border == "pad" else 2  # of the 3 x 4 cells
    image, features = (torch.rand(2, K, n, SIDE**2, generator=draw, dtype=torch.float64) for n in (12, patches))
    return PatchAttention(image, features, SIDE, STRIDE, (3, 4), border), labels, (6, 8)


def one_hot(labels: torch.Tensor, canvas: tuple[int, int]) -> torch.Tensor:
    whole = torch.zeros(len(labels), K, *canvas, dtype=torch.float64)
    for n, y, x in (labels != 255).nonzero().tolist():
        whole[n, int(labels[n, y, x]), y, x] = 1
    return whole


@pytest.mark.parametrize("border", ["pad", "drop"])
def test_it_is_the_mean_over_all_pairs_of_patches(border):
    attention, labels, canvas = example(border)
    pixels = one_hot(labels, canvas)
    cells = torch.zeros(2, K, 4, 4, dtype=torch.float64)
    cells[:, :, :3] = pixels.unflatten(3, (4, 2)).unflatten(2, (3, 2)).mean((3, 5))
    rows = 2 if border == "pad" else 1  # of patches of the map, two of its cells high
    differences = []
    for n in range(2):
        for k in range(K):
            for i in range(12):
                y, x = 2 * (i // 4), 2 * (i % 4)
                patch = pixels[n, k, y : y + 2, x : x + 2].flatten()
                for f in range(2 * rows):
                    v, u = 2 * (f // 2), 2 * (f % 2)
                    wanted = (patch * cells[n, k, v : v + 2, u : u + 2].flatten()).sum() / 4
                    found = (attention.image[n, k, i] * attention.features[n, k, f]).sum() / 4
                    differences.append((found - wanted).square())
    torch.testing.assert_close(LOSS(attention, labels, canvas), torch.stack(differences).mean())


def test_attention_that_the_label_asks_for_costs_nothing():
    attention, labels, canvas = example()
    image, features = label_attention(attention, labels, canvas)
    assert LOSS(attention._replace(image=image, features=features), labels, canvas).item() == pytest.approx(
        0, abs=1e-12
    )


def test_without_labels_it_is_0_with_zero_gradients_and_half_precision_is_computed_in_float32():
    attention, labels, canvas = example()
    low = attention._replace(image=attention.image.bfloat16().requires_grad_(), features=attention.features.bfloat16())
    nothing = LOSS(low, torch.full_like(labels, 255), canvas)
    assert (nothing.item(), nothing.dtype) == (0, torch.float32)
    assert (torch.autograd.grad(nothing, low.image)[0] == 0).all()
    same = attention._replace(image=low.image.detach().float(), features=low.features.float())
    torch.testing.assert_close(LOSS(low, labels, canvas), LOSS(same, labels, canvas))


def test_labels_out_of_range_or_beyond_the_canvas_are_told():
    attention, labels, canvas = example()
    with pytest.raises(UsageError, match="label 3 in a loss over 3 classes"):
        LOSS(attention, labels.where(labels == 255, 3), canvas)
    with pytest.raises(UsageError, match="do not fit on the canvas"):
        LOSS(attention, labels, (4, 8))
