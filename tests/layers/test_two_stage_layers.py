"""What the mask head is trained to show, beside a slow obvious version."""

import torch

from segatlas.layers.two_stage import cut_masks


def test_a_cell_is_inside_where_at_least_half_of_its_pixels_are():
    masks = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0)) > 0.5
    index, boxes = torch.tensor([2, 0, 2]), torch.tensor([[4, 8, 32, 36], [0, 0, 28, 28], [20, 12, 48, 40]]).float()
    found = cut_masks(masks, index, boxes, 14)  # cells of two pixels a side
    assert found.shape == (3, 14, 14)
    for row, (which, (left, top, _, _)) in enumerate(zip(index.tolist(), boxes.int().tolist(), strict=True)):
        for y in range(14):
            for x in range(14):
                cell = masks[which, top + 2 * y : top + 2 * y + 2, left + 2 * x : left + 2 * x + 2]
                assert bool(found[row, y, x]) == (int(cell.sum()) >= 2)


def test_of_no_boxes_there_are_no_masks():
    assert cut_masks(
        torch.zeros(0, 8, 8, dtype=torch.bool), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), 28
    ).shape == (0, 28, 28)
