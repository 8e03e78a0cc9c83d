from __future__ import annotations

import torch

from segatlas.ops.spreading import color_edges, half_disc, path_affinity, path_of, random_walk, refine_by_color


def two_regions(height: int = 12, width: int = 16) -> torch.Tensor:
    """An image, dark on the left half and light on the right."""
    image = torch.full((3, height, width), 0.2)
    image[..., width // 2 :] = 0.8
    return image


def test_a_random_walk_does_not_cross_an_edge_and_fills_its_region():
    edges = torch.zeros(12, 16)
    edges[:, 7] = 1
    maps = torch.zeros(2, 12, 16)
    maps[0, 5, 2], maps[1, 6, 12] = 1, 1
    walked = random_walk(maps, edges)
    assert walked[0, :, 8:].abs().max() < 1e-9
    assert walked[1, :, :7].abs().max() < 1e-9
    assert walked[0, :, :7].min() > 0
    same = random_walk(torch.ones(1, 12, 16), edges)[0]
    torch.testing.assert_close(same, (edges == 0).float())


def test_the_walk_is_that_of_a_dense_matrix():
    edges = torch.rand(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    count = edges.numel()
    matrix = torch.eye(count, dtype=torch.float64)
    for step in half_disc(3):
        for row in range(5):
            for column in range(6):
                r, c = row + step[0], column + step[1]
                if r < 5 and 0 <= c < 6:
                    way = max(float(edges[row + y, column + x]) for y, x in path_of(step))
                    matrix[row * 6 + column, r * 6 + c] = matrix[r * 6 + c, row * 6 + column] = (1 - way) ** 10
    matrix = matrix / matrix.sum(dim=0, keepdim=True)
    maps = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = (maps * (1 - edges)).reshape(2, -1) @ torch.linalg.matrix_power(matrix, 16)
    torch.testing.assert_close(random_walk(maps, edges, radius=3, steps=16).reshape(2, -1), expected)


def test_a_path_goes_straight_and_an_affinity_is_less_than_its_strongest_edge():
    assert path_of((0, 3)) == ((0, 0), (0, 1), (0, 2), (0, 3))
    assert set(path_of((2, 2))) >= {(0, 0), (1, 1), (2, 2)}
    assert {(0, 1), (1, 0)} <= set(half_disc(2))
    edges = torch.zeros(3, 5)
    edges[1, 2] = 0.7
    found = path_affinity(edges, (0, 3))
    assert found.shape == (3, 2)
    torch.testing.assert_close(found[1], torch.tensor([0.3, 0.3]))
    assert (found[[0, 2]] == 1).all()


def test_colour_edges_are_where_the_colour_changes():
    edges = color_edges(two_regions())
    assert (edges[:, 7] == 1).all()
    assert edges[:, [0, 3, 8, 12]].max() == 0
    assert color_edges(torch.full((3, 4, 4), 0.5)).max() == 0


def test_maps_spread_within_a_colour_and_not_beyond_it():
    image, maps = two_regions(16, 24), torch.zeros(2, 16, 24)
    maps[0, 4:8, 2:6] = 1
    maps[1] = 0.3
    refined = refine_by_color(maps, image, dilations=(1, 2, 4))
    assert refined[0, :, 14:].max() < 1e-3
    assert refined[0, 12, 8] > 0.01
    torch.testing.assert_close(refined[1], maps[1])
