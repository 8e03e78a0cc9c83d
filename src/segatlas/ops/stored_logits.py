"""Two ways in which the logits of a block lie in memory, and how the best class is found fastest in each.

A plane a class (contiguous logits): one class after the other is compared with the best one so far. All classes of a
pixel in a row (channels-last logits): NumPy finds the best of the row, and between four samples only *candidates* are
interpolated. A class is one when its largest value at the four corners reaches the largest of all smallest ones: a
mixture of corners lies between smallest and largest, so no other class can be the best one anywhere between.

Letters: K classes, P positions, n cells, Sy Sx slots of a run (`ops.sampling`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from segatlas.ops.running_best import ELEMENTS, RunningBest, best_class
from segatlas.ops.steps import step_elements

ROW_BYTES = 1 << 18
"""Logits of cells' corners that are gathered at once."""

FEW = 8
"""Classes below which one class after the other is quicker, though its positions lie apart."""

MANY = 1 / 3
"""Fraction of all classes from which comparing all of them is quicker than only the candidates."""

ROWS = 1 << 14
"""Positions whose best class is looked for at once: NumPy gives 8 bytes for each."""


_Space = tuple[Tensor, Tensor, Tensor]
"""Room for steps (2, 1, n) between the corners of a cell, for its upper and lower edge (2, Sx, n) and for their
difference (Sx, n)."""


class StoredLogits(Protocol):
    """The logits of a block, ready to be compared."""

    def best(self, dtype: torch.dtype) -> Tensor:
        """Return the best class of every position, (P,); the first one on ties."""

    def cells(self, slots: int) -> int:
        """Return how many cells of so many pixels to handle at once."""

    def best_between(self, corners: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Return the best class of every pixel of n cells, (Sy, Sx, n) float.

        Args:
            corners: (4, n) positions of the corners: top left, top right, bottom left, bottom right.
            down: (Sy, n) weight of the bottom corners for each row of pixels.
            right: (Sx, n) weight of the right corners for each column of pixels.
        """


def are_interleaved(block: Tensor) -> bool:
    """Tell whether (K, h, w) logits hold all classes of a position in a row, and the positions one after the other."""
    return block.permute(1, 2, 0).is_contiguous()


def samples_of(block: Tensor) -> StoredLogits:
    """Return float32 or float64 logits (K, h, w) as they lie; a copy where they lie in neither way."""
    if not block[0].is_contiguous() and are_interleaved(block):
        return Interleaved(block.detach().permute(1, 2, 0).reshape(-1, len(block)))
    return Planes((block if block[0].is_contiguous() else block.contiguous()).view(len(block), -1))


class Planes:
    """values: (K, P), the positions of each class in a row."""

    def __init__(self, values: Tensor):
        self.values = values

    def best(self, dtype: torch.dtype) -> Tensor:
        """See `StoredLogits`."""
        return best_class(self.values, dtype)

    def cells(self, slots: int) -> int:
        """See `StoredLogits`."""
        return max(1, step_elements(ELEMENTS) // (2 * slots))  # each pixel has its place noted, too

    def best_between(self, corners: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """See `StoredLogits`."""
        count, index = corners.shape[1], corners.view(-1)
        sample = self.values.new_empty(4 * count)
        mixer = _Mixer(sample.view(4, count), down, right, _new_space(sample, len(right), count))
        running = RunningBest(torch.Size((len(down), len(right), count)), sample.dtype)
        value = torch.empty_like(running.value)
        for k, plane in enumerate(self.values):
            torch.index_select(plane, 0, index, out=sample)
            running.offer(mixer.mix(out=value), k)
        return running.winner


class Interleaved:
    """values: (P, K), the classes of each position in a row."""

    def __init__(self, values: Tensor):
        self.values = values

    def best(self, dtype: torch.dtype) -> Tensor:
        """See `StoredLogits`."""
        if self.values.shape[1] == 2:
            return (self.values[:, 1] > self.values[:, 0]).to(dtype)
        if self.values.shape[1] < FEW:
            return best_class(self.values.T, dtype)
        result = torch.empty(len(self.values), dtype=dtype)
        for start in range(0, len(result), ROWS):
            result[start : start + ROWS] = torch.from_numpy(self.values[start : start + ROWS].numpy().argmax(1))
        return result

    def cells(self, slots: int) -> int:
        """See `StoredLogits`."""
        return max(1, step_elements(ELEMENTS) // slots)

    def best_between(self, corners: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """See `StoredLogits`.

        The cells with most candidates come first, and the candidates of a cell in rising order: so the i-th candidates
        are those of the first cells, and one vector.
        """
        (classes, count), found = (self.values.shape[1], corners.shape[1]), self._candidates(corners)
        if found is None:
            return self._best_of_all(corners, down, right)
        values, cell, label = found
        amount = np.bincount(cell, minlength=count)
        first = np.cumsum(amount) - amount
        order = np.argsort((classes - amount).astype(np.uint16), kind="stable")  # by radix
        active = count - np.cumsum(np.bincount(amount))  # cells with more than so many candidates
        by_amount = torch.from_numpy(order)
        down, right = down.index_select(1, by_amount), right.index_select(1, by_amount)
        space = _new_space(values, len(right), count)
        value, spare, better = values.new_empty(3, len(down), len(right), count)
        winner = torch.zeros_like(value)
        for i, cells in enumerate([count, *active[1:-1].tolist()]):
            pair = torch.from_numpy(first[order[:cells]] + i)
            chosen = label.index_select(0, pair)
            mixer = _Mixer(values.index_select(1, pair), down[:, :cells], right[:, :cells], space)
            if i == 0:
                mixer.mix(out=value)
                winner[:] = chosen
            else:
                offered = mixer.mix(out=spare[..., :cells])
                RunningBest.continued(value[..., :cells], winner[..., :cells], better[..., :cells]).offer(
                    offered, chosen
                )
        return torch.empty_like(winner).index_copy_(2, by_amount, winner)

    def _best_of_all(self, corners: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Do the same with a plane a class, copied for some cells at once."""
        step = Planes(self.values.T).cells(len(down) * len(right))
        found = []
        for start in range(0, corners.shape[1], step):
            part = slice(start, start + step)
            planes = self.values.index_select(0, corners[:, part].reshape(-1)).T.contiguous()
            there = torch.arange(planes.shape[1]).view(4, -1)
            found.append(Planes(planes).best_between(there, down[:, part], right[:, part]))
        return torch.cat(found, 2)

    def _candidates(self, corners: Tensor) -> tuple[Tensor, np.ndarray, Tensor] | None:
        """Return the candidates of cells: values (4, M) at the corners, numbers (M,) of cell and (M,) of class.

        None where they are too many, as in noise.
        """
        classes = self.values.shape[1]
        step = max(1, ROW_BYTES // (4 * classes * self.values.element_size()))
        found_values, found_cells, found_labels = [], [], []
        for start in range(0, corners.shape[1], step):
            part = corners[:, start : start + step]
            values = self.values.index_select(0, part.reshape(-1)).view(4, -1, classes)
            highest, lowest = torch.maximum(values[0], values[1]), torch.minimum(values[0], values[1])
            for corner in values[2:]:
                torch.maximum(highest, corner, out=highest)
                torch.minimum(lowest, corner, out=lowest)
            place = np.flatnonzero((highest >= lowest.amax(1, keepdim=True)).numpy())  # cell x K + class
            if len(place) > MANY * highest.numel():
                return None
            cell, label = np.divmod(place, classes)
            found_values.append(values.view(4, -1).index_select(1, torch.from_numpy(place)))
            found_cells.append(cell + start)
            found_labels.append(torch.from_numpy(label))
        return torch.cat(found_values, 1), np.concatenate(found_cells), torch.cat(found_labels).to(self.values.dtype)


class _Mixer:
    """Mixes the values at the corners of n cells to those of all pixels between. All views are made once, not a class.

    Args:
        corners: (4, n) values at the corners; read at every `mix`.
        down: (Sy, n) weight of the bottom corners for each row of pixels.
        right: (Sx, n) weight of the right corners for each column of pixels.
        space: what `_new_space` gave for at least so many cells.
    """

    def __init__(self, corners: Tensor, down: Tensor, right: Tensor, space: _Space):
        pairs = corners.view(2, 2, -1)
        self._near, self._far = pairs[:, 0:1], pairs[:, 1:2]
        self._down, self._right = down.unsqueeze(1), right
        self._step, self._edge, self._drop = (buffer[..., : corners.shape[1]] for buffer in space)
        self._upper, self._lower = self._edge

    def mix(self, *, out: Tensor) -> Tensor:
        """Write values into out (Sy, Sx, n)."""
        torch.sub(self._far, self._near, out=self._step)
        torch.addcmul(self._near, self._step, self._right, out=self._edge)
        torch.sub(self._lower, self._upper, out=self._drop)
        return torch.addcmul(self._upper, self._drop, self._down, out=out)


def _new_space(like: Tensor, slots_x: int, count: int) -> _Space:
    """Return room for what lies between corners and pixels of up to `count` cells."""
    return like.new_empty(2, 1, count), like.new_empty(2, slots_x, count), like.new_empty(slots_x, count)
