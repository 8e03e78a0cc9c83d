from __future__ import annotations

import numpy as np
import pytest
import torch

from segatlas.errors import UsageError
from segatlas.losses import Detail
from segatlas.losses.detail import detail_map


def slow_map(labels: np.ndarray) -> np.ndarray:
    """The map of one image (H, W), pixel by pixel; beyond the edge lies class 0."""
    height, width = labels.shape
    padded = np.pad(labels.astype(int), 1)
    mix = np.zeros(labels.shape)
    for scale, fraction in ((1, 0.6), (2, 0.3), (4, 0.1)):
        rows, columns = -(-height // scale), -(-width // scale)
        for y in range(height):
            for x in range(width):
                top, left = y * rows // height * scale, x * columns // width * scale
                window = padded[top : top + 3, left : left + 3]
                centre, labelled = window[1, 1], window[window != 255]
                mix[y, x] += fraction * (centre != 255 and (centre - labelled).sum() > 0.1)
    return (mix > 0.15) & (labels != 255)


def random_labels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 4, (2, 1, 4, 5), generator=generator)
    labels = torch.nn.functional.interpolate(coarse.float(), size=(16, 20), mode="nearest")[:, 0].to(torch.uint8)
    labels[0, :3] = 255
    labels[1, 5:11, 7:15] = 255
    return labels


def test_the_map_is_the_mix_of_three_laplacians():
    labels = random_labels()
    assert (detail_map(labels).numpy() == np.stack([slow_map(label) for label in labels.numpy()])).all()


def test_it_marks_the_side_of_the_larger_label():
    labels = torch.zeros(1, 8, 16, dtype=torch.uint8)
    labels[..., 8:] = 3
    marked = detail_map(labels)[0, 4].nonzero().flatten().tolist()
    assert min(marked) == 8


def test_a_border_to_ignored_pixels_is_no_border():
    labels = torch.ones(1, 16, 20, dtype=torch.uint8)
    inner = labels.clone()
    inner[..., 4:12, 5:13] = 255
    assert torch.equal(detail_map(inner), detail_map(labels) & (inner != 255))


def test_an_image_without_labels_does_not_thin_the_dice_of_the_others():
    labels = random_labels()
    logits = torch.randn(2, 1, 16, 20, generator=torch.Generator().manual_seed(1))
    alone = Detail()(logits[1:], labels[1:])
    labels[0] = 255
    assert Detail()(logits, labels).item() == pytest.approx(alone.item(), rel=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_loss_is_cross_entropy_plus_dice_over_labelled_pixels(channels):
    labels = random_labels()
    logits = torch.randn(2, channels, 16, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    border, labelled = detail_map(labels).double(), (labels != 255).double()
    p = logits.sigmoid()
    targets = [border] if channels == 1 else [1 - border, border]
    terms = [-(t * p[:, c].log() + (1 - t) * (1 - p[:, c]).log()) for c, t in enumerate(targets)]
    cross_entropy = sum((term * labelled).sum() for term in terms) / (labelled.sum() * channels)
    dice = [
        1 - (2 * (q * b * m).sum() + 1) / ((q * m).sum() + (b * m).sum() + 1)
        for q, b, m in zip(p[:, -1], border, labelled, strict=True)
    ]
    expected = (cross_entropy + sum(dice) / 2).item()
    assert Detail()(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_coarse_logits_are_upsampled_and_get_a_gradient():
    logits = torch.randn(2, 1, 4, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    Detail()(logits, random_labels(), canvas=(16, 20), align_corners=True).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_without_labels_it_is_zero():
    logits = torch.randn(1, 1, 4, 5, requires_grad=True)
    loss = Detail()(logits, torch.full((1, 16, 20), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_a_head_of_classes_and_class_weights_are_refused():
    with pytest.raises(UsageError, match=r"gives a tensor \(1, 5, 4, 4\); it takes a map of 1 or 2 channels"):
        Detail()(torch.zeros(1, 5, 4, 4), torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(UsageError, match="class_weights"):
        Detail()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 8, dtype=torch.uint8), class_weights=torch.ones(2))
