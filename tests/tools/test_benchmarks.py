"""The benchmark against the peers: its rows, its verdicts, and both sides of those rows that need no peer installed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import campaign, child, rows
from benchmarks.campaign import Loads, lines_of
from benchmarks.loss import LOSSES, Supervised, both_ways, same_loss
from benchmarks.page import TITLES
from benchmarks.rows import Peer, Row, Target
from benchmarks.table import GROUPS, ROWS, find_row, wanted_rows
from benchmarks.tail import Logits, same_but_ties
from benchmarks.window import make_windows

OURS = child.OURS


@pytest.fixture(autouse=True)
def without_shared_material(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """Seeded images everywhere: the tests say the same with and without the shared folder."""
    from benchmarks import material

    monkeypatch.setenv("SEGATLAS_SHARED", str(tmp_path / "none"))
    material.street_labels.cache_clear()
    material.street_image.cache_clear()
    yield
    material.street_labels.cache_clear()
    material.street_image.cache_clear()


def make_row(**changes) -> Row:
    made = Row(
        key="sum",
        group="tail",
        part="a sum",
        inputs="three numbers",
        material=lambda small: [1, 2, 3],
        ours=lambda given: lambda: sum(given),
        peers={"loop": Peer(make=lambda given: lambda: sum(given), target=Target(time=2.0, memory=0.5))},
        equal=lambda given, own, other: rows.Equality(holds=own == other, text=f"{own} and {other}"),
        threads=(1,),
    )
    return replace(made, **changes)


def make_found(own: float, other: float, *, holds: bool = True) -> dict:
    def timing(value: float) -> dict:
        return {"cpu_ms": {"median": value}, "wall_ms": {"median": value / 2}}

    equality = {"holds": holds, "text": "compared"}
    return {"sides": {OURS: {"1": timing(own)}, "loop": {"1": timing(other)}}, "equal": {"loop": equality}}


@pytest.mark.parametrize(
    ("other_ms", "our_memory", "holds", "met"),
    [(20.0, 4.0, True, True), (19.9, 4.0, True, False), (20.0, 6.0, True, False), (20.0, 4.0, False, False)],
)
def test_a_target_is_met_by_time_memory_and_equality_together(other_ms, our_memory, holds, met):
    (line,) = lines_of(make_row(), make_found(10, other_ms, holds=holds), {OURS: our_memory, "loop": 10.0})
    assert line["met"] is met
    assert line["ratio_cpu"] == pytest.approx(other_ms / 10)
    assert line["ratio_wall"] == pytest.approx(other_ms / 10)


def test_a_memory_target_without_a_figure_is_not_met():
    (line,) = lines_of(make_row(), make_found(10, 40), {OURS: None, "loop": 10.0})
    assert line["met"] is False


def test_a_peer_without_a_target_gets_no_verdict_unless_the_results_differ():
    row = make_row(peers={"loop": Peer(make=lambda given: lambda: 0)})
    assert lines_of(row, make_found(10, 5), {})[0]["met"] is None
    assert lines_of(row, make_found(10, 5, holds=False), {})[0]["met"] is False


def test_a_limit_in_seconds_is_judged_by_the_wall_clock():
    row = make_row(peers={}, most_seconds=0.3)
    slow, quick = ({"sides": make_found(value, 1)["sides"], "equal": {}} for value in (700.0, 500.0))
    assert [lines_of(row, found, {})[0]["met"] for found in (slow, quick)] == [False, True]


def test_a_side_that_cannot_run_is_named_with_its_reason(monkeypatch):
    def absent(given):
        raise rows.NotHereError("the peer is not installed")

    row = make_row(peers={"loop": Peer(make=absent), "other": Peer(make=lambda given: lambda: 7)})
    monkeypatch.setattr(child, "set_threads", lambda count: None)
    found = child.times_and_equalities(row, rounds=2)
    assert found["not_measured"] == {"loop": "the peer is not installed"}
    assert list(found["sides"]) == [OURS, "other"]
    assert found["equal"] == {"other": {"holds": False, "text": "6 and 7"}}


def test_what_we_load_ourselves_is_not_counted_as_others(monkeypatch):
    clock, worked, load = [0.0], [0.0], [0.0]
    monkeypatch.setattr(campaign.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(campaign, "children_seconds", lambda: worked[0])
    monkeypatch.setattr(campaign, "load_per_core", lambda: load[0])
    monkeypatch.setattr(campaign, "visible_cores", lambda: 2)
    loads = Loads()
    clock[0], worked[0], load[0] = 600.0, 1200.0, 1.0  # two busy cores for ten minutes
    assert loads.look() == pytest.approx(0.0, abs=1e-3)
    assert loads.judge()["clean"] is True
    load[0] = 1.8
    clock[0] += 1.0
    loads.look()
    load[0] = 1.0
    assert loads.judge()["clean"] is False


def test_rows_have_one_key_each_and_every_group_a_title():
    keys = [row.key for row in ROWS]
    assert len(set(keys)) == len(keys)
    assert set(GROUPS) == set(TITLES)
    assert all(find_row(key).key == key for key in keys)


NO_PEER_NEEDED = {
    "class_map_c19": "interpolate + argmax",
    "class_map_c150_noise": "interpolate + argmax",
    "cross_entropy_c19": "eager",
    "ohem_c150": "eager",
    "dice_c19": "eager",
    "confusion": "mmseg's steps",
}


@pytest.mark.parametrize(("key", "peer"), NO_PEER_NEEDED.items())
def test_both_sides_of_a_row_agree_on_its_tiny_material(key, peer):
    torch.set_num_threads(1)
    row = find_row(key)
    assert row.equal is not None
    given = row.material(True)
    own, other = row.ours(given)(), row.peers[peer].make(given)()
    verdict = row.equal(given, own, other)
    assert verdict.holds, verdict.text


def test_the_numpy_forms_count_what_mmsegs_steps_count():
    row = find_row("confusion")
    assert row.equal is not None
    given = row.material(True)
    expected = row.peers["mmseg's steps"].make(given)()
    for name in ("NumPy, unique pairs", "NumPy, 16-bit bincount"):
        assert row.equal(given, row.peers[name].make(given)(), expected).holds
    expected[0][0][0] += 1
    assert not row.equal(given, row.ours(given)(), expected).holds


def test_a_wrong_pixel_is_no_tie_and_a_tie_is_counted():
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 1] = 1.0
    given = Logits(logits=logits, size=(2048, 1024))
    right = torch.ones(1, 2048, 1024, dtype=torch.uint8)
    wrong = right.clone()
    wrong[0, 5, 5] = 0
    assert same_but_ties(given, right, right.clone()).holds
    assert not same_but_ties(given, wrong, right).holds
    even = Logits(logits=torch.ones(1, 2, 4, 4), size=(2048, 1024))
    assert same_but_ties(even, wrong, right).holds


def test_a_loss_or_gradient_that_is_off_is_seen():
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    given = Supervised(logits=logits, labels=torch.ones(1, 16, 16, dtype=torch.long))
    loss, gradient = both_ways(given, LOSSES["cross_entropy"][2])
    assert same_loss(given, (loss, gradient), (loss, gradient)).holds
    assert not same_loss(given, (loss * 1.001, gradient), (loss, gradient)).holds
    assert not same_loss(given, (loss, gradient * 1.001), (loss, gradient)).holds


def test_windows_are_known_by_where_they_lie():
    from benchmarks.window import logits_of

    given = make_windows(True)
    lefts = list(given.logits)
    windows = torch.cat([given.image[..., left : left + given.crop] for left in lefts])
    assert torch.equal(logits_of(given, windows), torch.cat([given.logits[left] for left in lefts]))


def test_the_size_of_a_result_counts_all_tensors_and_arrays_in_it():
    result = [{"a": torch.zeros(4), "b": (np.zeros(2, np.uint8), torch.zeros(1, dtype=torch.int64))}, 3.0]
    assert child.size_of(result) == 16 + 2 + 8


@pytest.mark.slow
def test_an_unknown_group_is_refused_with_the_known_ones(tmp_path):
    words = [sys.executable, "-m", "benchmarks", "--only", "coffee", "--out", str(tmp_path / "x.json")]
    done = subprocess.run(words, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 2
    assert "coffee: neither a group nor a row; groups: tail, loss" in done.stderr


def test_a_word_names_a_row_a_group_or_all_rows_of_networks():
    rows, unknown = wanted_rows("tail, networks,nothing")
    assert unknown == ["nothing"]
    assert {row.group for row in rows} == {"tail", "segformer", "bf16", "decoders", "one_thread"}
    assert wanted_rows("")[0] == list(ROWS)
    assert [row.key for row in wanted_rows(ROWS[0].key)[0]] == [ROWS[0].key]


def test_rows_of_a_part_take_their_places_among_those_of_a_whole_run_and_tell_of_theirs():
    first, second = ROWS[0].key, ROWS[1].key
    whole = {"rounds": 5, "rows": [{"key": first, "lines": [1]}, {"key": second, "lines": [2]}]}
    machine = {"date": "2026-11-29", "segatlas": "0.1.0", "torch": "2.15.0"}
    load = {"message": "machine clean", "clean": True}
    part = {"machine": machine, "rounds": 7, "load": load, "rows": [{"key": first, "lines": [3]}]}
    merged = campaign.added(part, whole)
    assert [(row["key"], row["lines"]) for row in merged["rows"]] == [(first, [3]), (second, [2])]
    assert merged["rows"][0]["run"]["rounds"] == 7
    assert "run" not in merged["rows"][1]
