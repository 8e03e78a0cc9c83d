"""Fields behind unpooling against images with one pixel changed: value and winner both follow from a window."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas import create_model
from segatlas.explain.theoretical_field import receptive_field, traced_output, unit_box
from segatlas.explain.unpooling import inverted

SIZE = (13, 14)


class Unpooled(nn.Module):
    """Convolutions before, between and after pooling and unpooling. scattered: as SegNet writes it."""

    def __init__(self, *pool: int, scattered: bool, own_size: bool = True):
        super().__init__()
        self.pool, self.scattered, self.own_size = pool, scattered, own_size
        self.first, self.middle = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 2, (1, 3), padding=(0, 1))
        self.last = nn.Conv2d(2, 2, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        pooled, places = F.max_pool2d(x, *self.pool, ceil_mode=self.scattered, return_indices=True)
        values = self.middle(pooled)
        if self.scattered:
            empty = x.new_zeros(x.shape).flatten(2)
            up = empty.scatter(2, places.flatten(2), values.flatten(2)).unflatten(2, x.shape[-2:])
        else:
            up = F.max_unpool2d(values, places, *self.pool, output_size=x.shape[-2:] if self.own_size else None)
        return self.last(up)


def changed_box(network: nn.Module, row: int, column: int, draws: int = 20) -> tuple[int, int, int, int]:
    """Return the box of all pixels whose change by much, in any of some images of noise, changes a value."""
    height, width = SIZE
    pixels = torch.eye(height * width).reshape(-1, 1, height, width)
    moves = F.pad(torch.cat([pixels * 9, pixels * -9]), (0, 0, 0, 0, 0, 2))  # of the first channel
    draw = torch.Generator().manual_seed(0)
    moved = torch.zeros(height, width, dtype=torch.bool)
    with torch.no_grad():
        for _ in range(draws):
            image = torch.randn(1, 3, *SIZE, generator=draw)
            before = network(image)[..., row, column]
            apart = (network(image + moves)[..., row, column] - before).abs().amax(1) > 1e-4
            moved |= apart.reshape(2, height, width).any(0)
    rows, columns = moved.any(1).nonzero().flatten(), moved.any(0).nonzero().flatten()
    if not len(rows):
        return 0, 0, 0, 0  # no window covers it
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


@pytest.mark.parametrize(
    ("pool", "scattered", "own_size"),
    [((2, 2), True, True), ((3, 2, 1), False, True), ((2, 3), False, True), ((2, 2), False, False)],
)
def test_fields_behind_unpooling_are_the_pixels_whose_change_changes_a_value(pool, scattered, own_size):
    torch.manual_seed(3)
    network = Unpooled(*pool, scattered=scattered, own_size=own_size).eval()
    known = traced_output(network, SIZE)
    for row, column in ((6, 5), (0, 9), (11, 10)):
        assert unit_box(known, row, column) == changed_box(network, row, column), (row, column)


class Winners(nn.Module):
    """1 where pooling finds its largest value, else 0: no gradient reaches the image."""

    def forward(self, x: Tensor) -> Tensor:
        pooled, places = F.max_pool2d(x, 4, return_indices=True)
        return F.max_unpool2d(torch.ones_like(pooled), places, 4, output_size=x.shape[-2:])


def test_which_pixel_wins_follows_from_the_whole_window():
    known = traced_output(Winners(), SIZE)
    assert unit_box(known, 6, 5) == changed_box(Winners(), 6, 5) == (4, 4, 8, 8)
    assert unit_box(known, 12, 5) == changed_box(Winners(), 12, 5) == (0, 0, 0, 0)


def test_windows_that_cover_a_place_are_found_from_the_places_of_windows():
    assert inverted(torch.tensor([[-1, 0, 1], [1, 2, 3]]), 5).tolist() == [[0, -1], [0, 1], [1, -1], [1, -1], [-1, -1]]


class Moves(nn.Module):
    """Values put at places that are no longer those of the pooling."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        values, places = F.max_pool2d(x, 2, return_indices=True)
        if self.how == "added to":
            places += 1
        if self.how == "turned":
            places = places.transpose(-1, -2)
        if self.how == "written into after a view":
            flat = places.flatten(2)
            places += 1
            return x.flatten(2).scatter(2, flat, values.flatten(2))
        return F.max_unpool2d(values, places, 2)


@pytest.mark.parametrize("how", ["added to", "turned"])
def test_places_that_were_changed_are_not_known(how):
    assert receptive_field(Moves(how), size=(8, 8)).of("").unknown == "the network (max_unpool2d)"
    assert receptive_field(Moves("not"), size=(8, 8)).of("").rows.size == 2
    stopped = receptive_field(nn.Sequential(Moves("written into after a view")), size=(8, 8)).stopped
    assert "writes into a part of another tensor" in stopped


@pytest.mark.parametrize(("name", "options"), [("segnet", {"width": 2}), ("enet", {})])
def test_networks_that_unpool_have_fields_to_their_end(name, options):
    report = receptive_field(create_model(name, num_classes=3, **options), size=(256, 256))
    assert not report.stopped
    assert not [one.name for one in report.layers if one.unknown]
