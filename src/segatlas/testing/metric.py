"""What every metric promises, whatever it counts; tried on a few images made here."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from segatlas.errors import DataError, UsageError
from segatlas.metrics.metric import Accumulator, Metric, Prediction, Rows
from segatlas.structures import (
    IGNORE,
    Instance,
    InstancesTarget,
    Panoptic,
    Result,
    Segment,
    SegmentsTarget,
    SemanticTarget,
)
from segatlas.testing.rules import Rule, check_kind, require

CLASSES = ("sky", "road", "tree")
SIZE = (48, 64)
Pair = tuple[Prediction, Any]


class MetricCase:
    """A metric that can be begun again and again, and images to count."""

    def __init__(self, metric: Metric, pairs: Sequence[Pair], classes: Sequence[str], options: Mapping[str, Any]):
        self.metric = metric
        self.pairs = tuple(pairs)
        self.classes = tuple(classes)
        self.options = dict(options)

    def new(self) -> Accumulator:
        """Return an object that has counted nothing."""
        return self.metric.accumulator(self.classes, **self.options)

    def counted(self, pairs: Sequence[Pair] | None = None) -> Accumulator:
        """Return an object that has counted these pairs, copies of them; default: all."""
        counter = self.new()
        for result, target in copy.deepcopy(self.pairs if pairs is None else tuple(pairs)):
            counter.update(result, target)
        return counter


def check_metric(
    metric: Metric,
    *,
    target: str = "SemanticTarget",
    pairs: Sequence[Pair] | None = None,
    classes: Sequence[str] = CLASSES,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    **options: Any,
) -> None:
    """Check a metric: the record that its file ends with, registered or not.

    Args:
        metric: the record.
        target: the type of truth that it counts, by name: images are made for each of `MAKERS`.
        pairs: results and truths to count instead of those, at least two that differ.
        classes: names of the classes.
        only: names of the rules to try, () = all.
        skip: names of rules to leave out.
        options: keywords of its class.

    Raises:
        BrokenRules: naming every rule that does not hold.
        UsageError: no such rule, no record, or a target for which `pairs` must be given.
    """
    check_kind("metric", metric, Metric, "that a metric's file ends with, METRIC")
    if pairs is None and target not in MAKERS:
        raise UsageError(f"target: got {target!r}; for others than {', '.join(MAKERS)} give pairs")
    made = MAKERS[target](len(classes)) if pairs is None else pairs
    require(metric.name, RULES, MetricCase(metric, made, classes, options), only=only, skip=skip)


def semantic_pairs(count: int) -> list[Pair]:
    """Make class maps and labels of blocks, a part of them ignored."""
    generator = np.random.default_rng(0)
    pairs: list[Pair] = []
    for _ in range(4):
        blocks = generator.integers(0, count, (2, SIZE[0] // 8, SIZE[1] // 8)).astype(np.uint8)
        found, label = np.kron(blocks, np.ones((8, 8), np.uint8))
        label[:, :8] = IGNORE
        pairs.append(
            (Result(class_map=np.where(generator.random(SIZE) < 0.2, found, label % count)), SemanticTarget(label))
        )
    return pairs


def instance_pairs(count: int) -> list[Pair]:
    """Make objects, found ones that are shifted true ones of falling score, and a crowd."""
    generator = np.random.default_rng(0)
    pairs: list[Pair] = []
    for number in range(4):
        kinds = generator.integers(0, count, 5)
        masks = np.zeros((5, *SIZE), bool)
        for index in range(5):
            top, left = generator.integers(0, SIZE[0] - 12), generator.integers(0, SIZE[1] - 12)
            masks[index, top : top + 12, left : left + 12] = True
        found = tuple(
            Instance(
                mask=np.roll(masks[index], int(number + index), axis=1),
                class_index=int(kinds[index]),
                score=0.9 - index / 8 - number / 50,  # among equal ones the order of images may decide
            )
            for index in range(4)
        )
        crowd = np.arange(5) == 4
        pairs.append((Result(objects=found), InstancesTarget(masks, kinds, crowd)))
    return pairs


def segment_pairs(count: int) -> list[Pair]:
    """Make segments of blocks, found ones that are shifted true ones; class 0 is stuff, the last row a crowd."""
    generator = np.random.default_rng(0)
    pairs: list[Pair] = []
    for number in range(4):
        kinds = np.arange(6) % count
        ids = np.full(SIZE, -1, np.int32)
        for row in range(6):
            top, left = row // 3 * 20, row % 3 * 20
            ids[top : top + 18, left : left + int(generator.integers(10, 19))] = row
        things, crowd = kinds > 0, np.arange(6) == 5
        found = np.roll(ids, number + 1, axis=1) + 1
        segments = tuple(
            Segment(
                id=row + 1,
                class_index=int(kinds[row]),
                is_thing=bool(things[row]),
                score=0.5,
                area=int((found == row + 1).sum()),
                box=(0, 0, *SIZE),
            )
            for row in range(6)
        )
        objects = tuple(
            Instance(mask=found == row + 1, class_index=int(kinds[row]), score=0.9 - row / 8 - number / 50)
            for row in np.flatnonzero(things).tolist()
        )
        class_map = np.append(kinds, 0)[found - 1].astype(np.uint8)
        result = Result(class_map=class_map, objects=objects, segments=Panoptic(ids=found, segments=segments))
        pairs.append((result, SegmentsTarget(ids, kinds, things, crowd)))
    return pairs


MAKERS: dict[str, Callable[[int], list[Pair]]] = {
    "SemanticTarget": semantic_pairs,
    "InstancesTarget": instance_pairs,
    "SegmentsTarget": segment_pairs,
}
"""Name of a type of truth -> what makes results and truths of so many classes."""


def counts(case: MetricCase) -> Iterator[str]:
    """It counts images and gives its numbers."""
    case.counted().compute()
    yield from ()


def definitions(case: MetricCase) -> Iterator[str]:
    """Each number says in one sentence what it means."""
    for number in [*case.metric.numbers, *([case.metric.image] if case.metric.image else [])]:
        text = number.definition.strip()
        if not text.endswith(".") or ". " in text:
            yield f"{number.name}: {text!r} is not one sentence with a full stop"


def numbers(case: MetricCase) -> Iterator[str]:
    """It gives the numbers of its record and no others, one value a class or one of the whole set."""
    rows, listed = case.counted().compute(), [number.name for number in case.metric.numbers]
    given = {*rows.per_class, *rows.whole}
    if given != set(listed) or len(set(listed)) != len(listed):
        yield f"lists {', '.join(sorted(listed))}, gives {', '.join(sorted(given))}"
    for name, values in rows.per_class.items():
        if len(values) != len(case.classes):
            yield f"{name} has {len(values)} values for {len(case.classes)} classes"


def shown(case: MetricCase) -> Iterator[str]:
    """What its record shows, monitors or refers to is there: columns are of classes, lines of the whole set."""
    rows, known = case.counted().compute(), {number.name: number for number in case.metric.numbers}
    for number in case.metric.numbers:
        if number.heading and number.name not in rows.per_class:
            yield f"{number.name} heads a column, but has no values of classes"
        if (number.title or number.monitored) and number.name not in rows.whole:
            yield f"{number.name} has a title or is monitored, but has no value of the whole set"
        if number.last_line and number.last_line not in rows.whole:
            yield f"{number.name} has the last line {number.last_line!r}, which is no number of the whole set"
        if number.counted and (number.counted not in known or not known[number.counted].unit):
            yield f"{number.name} was got from {number.counted!r}, which is no number with a unit"


def fractions(case: MetricCase) -> Iterator[str]:
    """Numbers that are printed as percentages lie in 0..1, counts are whole."""
    values = _values(case.counted().compute())
    for number in case.metric.numbers:
        found = values[number.name][~np.isnan(values[number.name])]
        if number.format == "percent" and found.size and not 0 <= found.min() <= found.max() <= 1:
            yield f"{number.name} is {found[(found < 0) | (found > 1)][0]}"
        if number.format == "count" and (found != np.round(found)).any():
            yield f"{number.name} is {found[found != np.round(found)][0]}"


def empty(case: MetricCase) -> Iterator[str]:
    """With nothing counted it computes; what is undefined is NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = _values(case.new().compute())
    for name, values in found.items():
        if np.isinf(values).any():
            yield f"{name} is infinite"


def image_score(case: MetricCase) -> Iterator[str]:
    """The score of an image is a number, NaN where its record has no `image`."""
    for result, target in copy.deepcopy(case.pairs):
        score = case.new().update(result, target)
        if not isinstance(score, float) or (case.metric.image is None and not np.isnan(score)):
            yield f"{score!r}, and the record has {'an' if case.metric.image else 'no'} `image`"


def untouched(case: MetricCase) -> Iterator[str]:
    """Results and truths stay as they are."""
    counter = case.new()
    for index, (result, target) in enumerate(copy.deepcopy(case.pairs)):
        counter.update(result, target)
        kept_result, kept_target = case.pairs[index]
        same = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(target, kept_target, strict=True))
        if not same or result != kept_result:
            yield f"the {'truth' if not same else 'result'} of image {index} was changed"


def order(case: MetricCase) -> Iterator[str]:
    """The order of images does not matter."""
    yield from _differing(case.counted().compute(), case.counted(case.pairs[::-1]).compute())


def merged(case: MetricCase) -> Iterator[str]:
    """Counts of several processes, merged, give what one process counts."""
    half = len(case.pairs) // 2
    whole, part = case.counted(case.pairs[:half]), case.counted(case.pairs[half:])
    whole.merge(part.state())
    yield from _differing(case.counted().compute(), whole.compute())


def state_copied(case: MetricCase) -> Iterator[str]:
    """Its state is arrays of numbers by name, a copy: changing them changes nothing in it."""
    counter = case.counted()
    before = _values(counter.compute())
    for name, array in counter.state().items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
            yield f"{name} is {type(array).__name__}, expected an array of numbers"
            return
        array[...] = 0
    yield from _differing(before, counter.compute())


def computes_again(case: MetricCase) -> Iterator[str]:
    """Computing changes nothing: asked between images it gives the same in the end."""
    counter = case.new()
    for result, target in copy.deepcopy(case.pairs):
        counter.update(result, target)
        counter.compute()
    yield from _differing(case.counted().compute(), counter.compute())


def ignored(case: MetricCase) -> Iterator[str]:
    """Pixels of label 255 count nowhere, whatever is predicted there."""
    semantic = [(result, target) for result, target in case.pairs if isinstance(target, SemanticTarget)]
    if not semantic:
        return
    count = len(case.classes)
    other = [
        (Result(class_map=np.where(target.labels == IGNORE, (result.semantic + 1) % count, result.semantic)), target)
        for result, target in semantic
    ]
    found = case.counted(semantic).compute()
    yield from _differing(found, case.counted(other).compute(), "with other predictions there ")
    result, target = semantic[0]
    blank = (result, SemanticTarget(np.full_like(np.asarray(target.labels), IGNORE)))
    yield from _differing(found, case.counted([*semantic, blank]).compute(), "with an image of nothing but 255 ")


def misfits(case: MetricCase) -> Iterator[str]:
    """A result that does not cover its truth is a DataError, and nothing was counted then."""
    result, target = copy.deepcopy(case.pairs[0])
    if not isinstance(target, SemanticTarget):
        return
    counter = case.counted()
    before = _values(counter.compute())
    try:
        counter.update(Result(class_map=result.semantic[:-1]), target)
    except DataError:
        yield from _differing(before, counter.compute())
    else:
        yield "a class map with a row less was counted"


def _values(rows: Rows) -> dict[str, np.ndarray]:
    """Return all values of each number: those of the classes, then that of the whole set."""
    names = [*rows.per_class, *(name for name in rows.whole if name not in rows.per_class)]
    return {
        name: np.array([*rows.per_class.get(name, ()), *([rows.whole[name]] if name in rows.whole else [])], float)
        for name in names
    }


def _differing(expected: Rows | dict[str, np.ndarray], found: Rows, when: str = "") -> Iterator[str]:
    """Yield what differs by more than rounding."""
    first = _values(expected) if isinstance(expected, Rows) else expected
    second = _values(found)
    for name, values in first.items():
        if name not in second or not np.allclose(values, second[name], rtol=1e-9, atol=0, equal_nan=True):
            yield f"{name} is {second.get(name, np.empty(0)).tolist()} {when}and not {values.tolist()}"


RULES = (
    Rule(check=definitions),
    Rule(check=counts),
    Rule(check=numbers, needs=("counts",)),
    Rule(check=shown, needs=("numbers",)),
    Rule(check=fractions, needs=("numbers",)),
    Rule(check=empty, needs=("counts",)),
    Rule(check=image_score, needs=("counts",)),
    Rule(check=untouched, needs=("counts",)),
    Rule(check=computes_again, needs=("counts",)),
    Rule(check=order, needs=("counts",)),
    Rule(check=merged, needs=("order",)),
    Rule(check=state_copied, needs=("computes_again",)),
    Rule(check=ignored, needs=("order",)),
    Rule(check=misfits, needs=("computes_again",)),
)
