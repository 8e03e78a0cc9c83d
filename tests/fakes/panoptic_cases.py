"""Panoptic truths and predictions for the metric, each a function of its number: ignored pixels, crowds, odd halves."""

from __future__ import annotations

import numpy as np

from segatlas.structures import Panoptic, Segment, SegmentsTarget

THINGS = (True, True, True, False, False, False)
"""Of the classes 0..5; a class 6 is never there."""

CLASSES = ("cat", "dog", "bird", "sky", "road", "wall", "nothing")
SIZE = (48, 64)
CASES = 40


def case(number: int) -> tuple[Panoptic, SegmentsTarget]:
    """Return prediction and truth; the first numbers are the rules' edges, the others drawn."""
    edges = (_half_matched, _half_ignored, _just_over_half_ignored, _on_a_crowd, _on_the_first_of_two_crowds, _empty)
    return edges[number]() if number < len(edges) else _drawn(number)


def truth_of(ids: np.ndarray, rows: list[tuple[int, bool]]) -> SegmentsTarget:
    """Return a truth of an id map and (class, crowd) rows."""
    classes = np.array([kind for kind, _ in rows], np.int64)
    crowd = np.array([is_crowd for _, is_crowd in rows], bool)
    return SegmentsTarget(ids.astype(np.int32), classes, np.array(THINGS)[classes] if rows else crowd, crowd)


def found_of(ids: np.ndarray, kinds: dict[int, int]) -> Panoptic:
    """Return a prediction of an id map and id -> class; what has no pixel is left out."""
    segments = []
    for number, kind in sorted(kinds.items()):
        inside = ids == number
        if inside.any():
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
            segments.append(
                Segment(id=number, class_index=kind, is_thing=THINGS[kind], score=0.5, area=int(inside.sum()), box=box)
            )
    return Panoptic(ids=ids.astype(np.int32), segments=tuple(segments))


def _blank(value: int) -> np.ndarray:
    return np.full(SIZE, value, np.int32)


def _half_matched() -> tuple[Panoptic, SegmentsTarget]:
    """An IoU of exactly one half is no match."""
    truth, found = _blank(-1), _blank(0)
    truth[:8, :8], found[:8, :4] = 0, 9
    return found_of(found, {9: 0}), truth_of(truth, [(0, False)])


def _half_ignored() -> tuple[Panoptic, SegmentsTarget]:
    """Exactly one half on ignored pixels is no excuse."""
    truth, found = _blank(0), _blank(0)
    truth[:, :8], found[:4, 4:12] = -1, 70000
    return found_of(found, {70000: 1}), truth_of(truth, [(3, False)])


def _just_over_half_ignored() -> tuple[Panoptic, SegmentsTarget]:
    truth, found = _blank(0), _blank(0)
    truth[:, :8], found[:4, 3:12] = -1, 70000
    return found_of(found, {70000: 1}), truth_of(truth, [(3, False)])


def _on_a_crowd() -> tuple[Panoptic, SegmentsTarget]:
    truth, found = _blank(0), _blank(2)
    truth[:20, :20], found[4:12, 4:12], found[4:12, 30:34] = 1, 3, 4
    return found_of(found, {2: 3, 3: 1, 4: 1}), truth_of(truth, [(3, False), (1, True)])


def _on_the_first_of_two_crowds() -> tuple[Panoptic, SegmentsTarget]:
    """The last crowd of a class is the one that excuses."""
    truth, found = _blank(0), _blank(2)
    truth[:20, :20], truth[30:, :20], found[4:12, 4:12], found[32:40, 4:12] = 1, 2, 3, 4
    return found_of(found, {2: 3, 3: 1, 4: 1}), truth_of(truth, [(3, False), (1, True), (1, True)])


def _empty() -> tuple[Panoptic, SegmentsTarget]:
    return found_of(_blank(0), {}), truth_of(_blank(-1), [])


def _drawn(number: int) -> tuple[Panoptic, SegmentsTarget]:
    rng = np.random.default_rng(number)
    truth, rows = _blank(-1), []
    for index in range(int(rng.integers(1, 9))):
        top, left = (int(rng.integers(0, side - 8)) for side in SIZE)
        height, width = (int(n) for n in rng.integers(4, 32, 2))
        truth[top : top + height, left : left + width] = index
        rows.append((int(rng.integers(0, 6)), bool(rng.random() < 0.2)))
    found = np.roll(truth, tuple(rng.integers(-3, 4, 2)), (0, 1)) + 1
    found[rng.random(SIZE) < 0.02] = 0
    found = np.where(found > 0, found * 300, 0)  # ids that need two bytes of a colour
    found[40:, 40:] = 5
    kinds = {(index + 1) * 300: kind for index, (kind, _) in enumerate(rows)} | {5: int(rng.integers(0, 6))}
    for key in kinds:
        if rng.random() < 0.1:
            kinds[key] = int(rng.integers(0, 6))
    return found_of(found, kinds), truth_of(truth, rows)
