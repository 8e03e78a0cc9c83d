"""A fault in a metric is named by the one rule that is meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segatlas.errors import DataError, UsageError
from segatlas.metrics import Metric, Number, Rows, Sums
from segatlas.testing import METRIC_RULES, BrokenRules, check_metric


class Right(Sums):
    """Fraction of labelled pixels that are right, by class and of all."""

    def __init__(self, classes):
        super().__init__(right=(len(classes),), all=(len(classes),))

    def update(self, result, target):
        if result.semantic.shape != target.labels.shape:
            raise DataError("sizes differ")
        return self.count(np.asarray(result.semantic), np.asarray(target.labels))

    def count(self, found, label):
        for index in range(len(self.counts["all"])):
            self.counts["right"][index] += np.count_nonzero((label == index) & (found == label))
            self.counts["all"][index] += np.count_nonzero(label == index)
        return float("nan")

    def compute(self):
        right, total = self.counts["right"], self.counts["all"]
        fractions = np.divide(right, total, out=np.full(len(total), np.nan), where=total > 0)
        whole = right.sum() / total.sum() if total.any() else float("nan")
        return Rows(per_class={"right": tuple(fractions.tolist())}, whole={"right": float(whole)})


METRIC = Metric(
    name="right",
    title="right pixels",
    accumulator=Right,
    numbers=(Number(name="right", heading="right", title="right", definition="Fraction of pixels that are right."),),
)


class OrderMatters(Right):
    seen = 0

    def count(self, found, label):
        self.seen += 1
        if self.seen == 1:
            return super().count(np.roll(found, 9), label)
        return super().count(found, label)

    def merge(self, state):
        super().merge(state)


class MergesHalf(Right):
    def merge(self, state):
        super().merge({name: array // 2 for name, array in state.items()})


class CountsIgnored(Right):
    def count(self, found, label):
        return super().count(found, np.where(label == 255, 0, label))


class DividesByNothing(Right):
    def compute(self):
        if not self.counts["all"].any():
            return Rows(per_class={"right": (0 / int(self.counts["all"].sum()),) * 3}, whole={})
        return super().compute()


class OneStateForAll(Right):
    def state(self):
        return self.counts


class ForgetsWhenAsked(Right):
    def compute(self):
        rows = super().compute()
        for array in self.counts.values():
            array[...] = 0
        return rows


class ChangesTheTruth(Right):
    def count(self, found, label):
        score = super().count(found, label)
        label[label == 255] = 0
        return score


class OtherNumbers(Right):
    def compute(self):
        rows = super().compute()
        return replace(rows, whole={**rows.whole, "wrong": 1 - rows.whole["right"]})


class OneValueTooFew(Right):
    def compute(self):
        rows = super().compute()
        return replace(rows, per_class={"right": rows.per_class["right"][:-1]})


class Percentages(Right):
    def compute(self):
        rows = super().compute()
        return replace(rows, whole={"right": 100 * rows.whole["right"]})


class NoScore(Right):
    def count(self, found, label):
        super().count(found, label)


class TakesAnySize(Right):
    def update(self, result, target):
        found = np.resize(result.semantic, target.labels.shape)
        return self.count(found, np.asarray(target.labels))


class Raises(Right):
    def count(self, found, label):
        raise KeyError("no class")


NUMBER = METRIC.numbers[0]
FAULTS = {
    "order matters": (replace(METRIC, accumulator=OrderMatters), "order"),
    "merges half": (replace(METRIC, accumulator=MergesHalf), "merged"),
    "counts what is ignored": (replace(METRIC, accumulator=CountsIgnored), "ignored"),
    "divides by nothing": (replace(METRIC, accumulator=DividesByNothing), "empty"),
    "gives its own state away": (replace(METRIC, accumulator=OneStateForAll), "state_copied"),
    "forgets when asked": (replace(METRIC, accumulator=ForgetsWhenAsked), "computes_again"),
    "changes the truth": (replace(METRIC, accumulator=ChangesTheTruth), "untouched"),
    "a number that is not listed": (replace(METRIC, accumulator=OtherNumbers), "numbers"),
    "a class without value": (replace(METRIC, accumulator=OneValueTooFew), "numbers"),
    "percentages": (replace(METRIC, accumulator=Percentages), "fractions"),
    "no score of an image": (replace(METRIC, accumulator=NoScore), "image_score"),
    "any size": (replace(METRIC, accumulator=TakesAnySize), "misfits"),
    "raises": (replace(METRIC, accumulator=Raises), "counts"),
    "no definition": (replace(METRIC, numbers=(replace(NUMBER, definition=""),)), "definitions"),
    "a last line of nothing": (replace(METRIC, numbers=(replace(NUMBER, last_line="mean"),)), "shown"),
}
"""Fault -> the metric, and the rule that names it."""


def test_a_metric_without_a_fault_keeps_all_rules():
    check_metric(METRIC)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_the_one_rule_that_is_meant(fault):
    metric, rule = FAULTS[fault]
    with pytest.raises(BrokenRules) as caught:
        check_metric(metric)
    assert [broken.rule for broken in caught.value.breaches] == [rule], caught.value


def test_a_truth_that_is_not_made_here_has_to_be_given():
    with pytest.raises(
        UsageError, match="got 'BoxesTarget'; for others than SemanticTarget, InstancesTarget, SegmentsTarget give"
    ):
        check_metric(METRIC, target="BoxesTarget")


def test_each_rule_has_a_sentence_and_needs_only_earlier_ones():
    names: list[str] = []
    for rule in METRIC_RULES:
        assert rule.text.endswith("."), rule.name
        assert set(rule.needs) <= set(names), rule.name
        names.append(rule.name)


def test_what_is_no_record_is_refused():
    with pytest.raises(UsageError, match=r"metric: got .*, expected the Metric that a metric's file ends with"):
        check_metric(METRIC.accumulator)
