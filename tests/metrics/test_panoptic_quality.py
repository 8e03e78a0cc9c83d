"""Panoptic quality is what panopticapi counts: `tools/panoptic_expected.py` ran it once on the same cases."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.panoptic_cases import CASES, CLASSES, THINGS, case, found_of, truth_of

from segatlas.errors import DataError
from segatlas.metrics import create
from segatlas.metrics.panoptic_quality import FN, FP, IOU, METRIC, SCALE, TP, PanopticQuality
from segatlas.structures import Panoptic, Result
from segatlas.testing import check_metric

EXPECTED = json.loads(Path(__file__).with_name("panoptic_expected.json").read_text())


def pairs():
    return [(Result(segments=found), truth) for found, truth in map(case, range(CASES))]


def counted(images):
    counter = PanopticQuality(CLASSES)
    for result, truth in images:
        counter.update(result, truth)
    return counter


def plain(counts):
    return {
        str(kind): [row[TP], row[FP], row[FN], pytest.approx(row[IOU] / SCALE, abs=1e-9)]
        for kind, row in enumerate(counts.tolist())
        if row[TP] + row[FP] + row[FN]
    }


@pytest.mark.parametrize("number", range(CASES))
def test_each_image_is_counted_as_panopticapi_counts_it(number):
    assert plain(counted(pairs()[number : number + 1]).counts["counts"]) == EXPECTED["images"][number]


def test_the_whole_set_has_panopticapis_numbers_to_nine_digits():
    counter = counted(pairs())
    assert plain(counter.counts["counts"]) == EXPECTED["whole"]
    rows = counter.compute()
    for name in ("pq", "sq", "rq"):
        for kind, ending in (("all", ""), ("things", "_things"), ("stuff", "_stuff")):
            assert rows.whole[name + ending] == pytest.approx(EXPECTED["means"][kind][name], abs=1e-9)
    assert math.isnan(rows.per_class["pq"][CLASSES.index("nothing")])


def test_the_metric_keeps_the_promises_of_all_metrics():
    check_metric(METRIC, target="SegmentsTarget", pairs=pairs(), classes=CLASSES)


def test_a_truth_taken_for_the_prediction_is_perfect_and_a_set_without_segments_undefined():
    _, truth = case(7)
    ids = np.where(truth.ids >= 0, truth.ids + 1, 0)
    found = found_of(ids, {row + 1: int(kind) for row, kind in enumerate(truth.classes)})
    assert counted([(Result(segments=found), truth)]).compute().whole["pq"] == 1
    nothing = create(("panoptic_quality",), CLASSES)
    assert math.isnan(nothing.update(Result(segments=case(5)[0]), case(5)[1]))
    assert math.isnan(nothing.compute().pq)


def test_table_and_map_of_a_prediction_must_agree():
    found, truth = case(0)
    unlisted, unseen = Panoptic(ids=found.ids, segments=()), replace(found, ids=np.zeros_like(found.ids))
    other = replace(found, ids=found.ids[:-1])
    for wrong, told in (
        (unlisted, "segment 9, which is not listed"),
        (unseen, "segment 9 is listed and has no pixel"),
        (other, r"are \(47, 64\), the true ones \(48, 64\)"),
        (found_of(found.ids, {9: 0}), ""),
    ):
        counter = PanopticQuality(CLASSES)
        if not told:
            counter.update(Result(segments=wrong), truth)
            continue
        with pytest.raises(DataError, match=told):
            counter.update(Result(segments=wrong), truth)
        assert not counter.counts["counts"].any()


def test_a_class_out_of_range_is_told():
    found, truth = case(0)
    segments = tuple(replace(one, class_index=7) for one in found.segments)
    with pytest.raises(DataError, match=r"of the prediction has class 7; expected 0\.\.6"):
        counted([(Result(segments=replace(found, segments=segments)), truth)])
    assert len(THINGS) == len(CLASSES) - 1


def test_the_largest_ids_of_a_panoptic_file_are_told_apart():
    ids = np.full((2, 2), 256**3 - 1, np.int32)
    ids[0] = 65535
    found = found_of(ids, {65535: 0, 256**3 - 1: 1})
    truth = truth_of(np.array([[0, 0], [1, 1]]), [(0, False), (1, False)])
    assert counted([(Result(segments=found), truth)]).compute().whole["pq"] == 1
