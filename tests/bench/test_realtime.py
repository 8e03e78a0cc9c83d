from __future__ import annotations

import numpy as np
import pytest
import torch

from segatlas.bench import realtime
from segatlas.bench.realtime import (
    NETWORK,
    PLAIN,
    UPSAMPLED,
    WHOLE,
    Piece,
    RealtimeSettings,
    full_size,
    make_rows,
    measure_realtime,
    published_miou,
    time_bounded,
)
from segatlas.errors import UsageError
from segatlas.hub.catalogue import SOURCE
from segatlas.models import lookup
from segatlas.structures import Resample, SemanticLogits

QUICK = RealtimeSettings(size=(32, 48), threads=1, seconds=0.02, turns=2, num_classes=3, precisions=("fp32", "bf16"))


class FakeTime:
    """Two clocks that only the calls move."""

    def __init__(self):
        self.wall = self.cpu = 0.0
        self.calls, self.waits = [], 0

    def call(self, name, wall, cpu):
        def run():
            self.calls.append(name)
            self.wall += wall
            self.cpu += cpu

        return run

    def wait(self):
        self.waits += 1

    def measure(self, calls, settings):
        return time_bounded(calls, settings, wait=self.wait, wall=lambda: self.wall, cpu=lambda: self.cpu)


def test_a_loop_grows_to_a_second_and_then_fills_the_time_asked_for_in_turns():
    fake = FakeTime()
    settings = RealtimeSettings(seconds=6.0, turns=3, warmups=10)
    (found,) = fake.measure([fake.call("a", 0.25, 0.5)], settings)
    assert found == (24, 6.0, 12.0)
    assert len(fake.calls) == 10 + (1 + 2 + 4) + 24
    assert fake.waits == 2 * (10 + 3 + 3)


def test_warming_up_ends_with_the_time_and_slow_calls_are_timed_twice_in_different_turns():
    fake = FakeTime()
    settings = RealtimeSettings(seconds=1.0, turns=3, warmups=10)
    found = fake.measure([fake.call("a", 3.0, 1.0), fake.call("b", 2.0, 1.0)], settings)
    assert found == [(2, 6.0, 2.0), (2, 4.0, 2.0)]
    assert "".join(fake.calls) == "aa" + "bb" + "ab" + "ba"


def test_calls_are_dealt_out_to_turns_as_evenly_as_they_go():
    assert [realtime.dealt(calls, 3) for calls in (2, 3, 7)] == [[1, 1, 0], [1, 1, 1], [3, 2, 2]]


def test_ratios_are_to_the_first_model_and_gains_to_the_plain_way_of_the_same():
    def piece(model, way, precision="fp32", labels=None):
        return Piece(model=model, way=way, precision=precision, call=int, labels=labels)

    maps = np.zeros((2, 4), np.uint8), np.array([[0, 0, 0, 1], [0] * 4], np.uint8)
    pieces = [piece("a", PLAIN, labels=maps[0]), piece("a", WHOLE, labels=maps[1]), piece("a", WHOLE, "bf16", maps[0])]
    pieces += [piece("b", PLAIN, labels=maps[0]), piece("b", WHOLE, labels=maps[0])]
    rows = make_rows(pieces, [(2, 2.0, 4.0), (4, 2.0, 2.0), (4, 1.0, 1.0), (1, 4.0, 4.0), (1, 0.25, 2.0)])
    facts = [(row.fps, row.ratio, row.gain, row.gain_cpu, row.same_labels) for row in rows]
    assert facts == [(1, 1, 1, 1, 1), (2, 1, 2, 4, 0.875), (4, 1, 4, 8, 1), (0.25, 0.25, 1, 1, 1), (4, 2, 16, 2, 1)]
    assert rows[1].wall_ms == 500


def test_every_way_of_every_model_is_timed_and_its_labels_are_those_of_the_plain_way():
    report = measure_realtime(["sanet:width=4,channels=8,depths=[1,1,1,1]", "unet:width=4"], QUICK)
    assert [(row.way, row.precision) for row in report.rows[:7]] == [
        (PLAIN, "fp32"),
        *((way, precision) for precision in ("fp32", "bf16") for way in (WHOLE, NETWORK, UPSAMPLED)),
    ]
    assert len(report.rows) == 14
    assert all(row.calls >= 2 and row.fps > 0 for row in report.rows)
    assert all(row.same_labels == 1 for row in report.rows if row.way == WHOLE and row.precision == "fp32")
    assert all((row.same_labels is None) == (row.way in (NETWORK, UPSAMPLED)) for row in report.rows)
    assert all(facts.macs > 0 and facts.parameters > 0 for facts in report.models)


def test_the_smallest_networks_have_their_rows():
    small = ["enet:widths=[8,12,16],rounds=1", "espnet:widths=[8,12,16],blocks=[1,1]"]
    small.append("espnetv2:widths=[16,32,48,64],blocks=[1,1]")
    report = measure_realtime(small, QUICK)
    assert len(report.rows) == 21
    assert all(row.same_labels == 1 for row in report.rows if row.way == WHOLE and row.precision == "fp32")
    assert all(facts.macs > 0 and facts.miou is None for facts in report.models)


def test_full_size_logits_cover_the_canvas_as_the_network_says():
    logits = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = full_size(SemanticLogits(logits, (9, 16), Resample(align_corners=True)))
    assert found.shape == (1, 2, 9, 16)
    assert torch.equal(found[..., -1, -1], logits[..., -1, -1])
    assert full_size(SemanticLogits(logits, (9, 16), Resample("nearest"))).shape == (1, 2, 9, 16)


def test_what_gives_no_class_maps_is_refused():
    with pytest.raises(UsageError, match=r"center.*gives no class maps"):
        measure_realtime(["center:width=4"], QUICK)


def test_published_numbers_are_those_of_the_catalogue_or_of_papers_and_say_whose_they_are():
    assert published_miou("stdc1") == (74.94, SOURCE)
    assert published_miou("sanet_s:dropout=0.1") == (78.6, "authors, arXiv 2309.10519")
    assert published_miou("unet") is None
    assert published_miou("segformer_b0") == (76.54, SOURCE)
    assert set(realtime.PAPERS) == {"sanet_s", "sanet_m", "sanet_l"}


def test_the_real_time_networks_are_known_and_have_published_numbers_but_where_none_is_of_this_size():
    assert len(set(realtime.NETWORKS)) == len(realtime.NETWORKS)
    assert all(lookup(name) for name in realtime.NETWORKS)
    bare = [name for name in realtime.NETWORKS if not published_miou(name)]
    assert bare == ["enet", "espnet_q8", "espnetv2_s05", "espnetv2_s20"], "of 512 x 1024, or of the test set"


def test_without_a_name_the_real_time_networks_are_timed(monkeypatch):
    monkeypatch.setattr(realtime, "NETWORKS", ("fast_scnn", "unet:width=4"))
    report = measure_realtime([], QUICK)
    assert [(facts.model, facts.miou, facts.source) for facts in report.models] == [
        ("fast_scnn", 70.96, SOURCE),
        ("unet:width=4", None, None),
    ]
