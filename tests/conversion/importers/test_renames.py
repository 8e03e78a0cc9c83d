from __future__ import annotations

from segatlas.conversion.importers.renames import rename, to_ours, to_theirs

TABLE = [("head.conv_seg", "classifier"), ("head.convs.{i}.{j}", "convs.{j}.part{i}"), ("head", "rest")]


def test_the_first_beginning_that_fits_is_replaced_and_the_rest_of_the_name_stays():
    assert to_ours("head.conv_seg.weight", TABLE) == "classifier.weight"
    assert to_ours("head.conv_seg2.weight", TABLE) == "rest.conv_seg2.weight"
    assert to_ours("body.conv_seg.weight", TABLE) is None


def test_numbers_are_carried_over_in_both_directions():
    assert to_ours("head.convs.3.12.bn.bias", TABLE) == "convs.12.part3.bn.bias"
    assert to_theirs("convs.12.part3.bn.bias", TABLE) == "head.convs.3.12.bn.bias"


def test_beginnings_end_at_a_dot():
    assert rename("classifier", [("classifier", "head")]) == "head"
    assert rename("classifiers.weight", [("classifier", "head")]) is None
