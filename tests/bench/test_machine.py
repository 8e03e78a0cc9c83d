import math

import pytest

from segatlas.bench import machine
from segatlas.bench.machine import LoadWatch, describe_machine, judge_load, own_load


@pytest.mark.parametrize(
    ("before", "after", "own", "clean"),
    [
        (0.1, 0.2, 0.0, True),
        (0.1, 0.9, 0.5, True),
        (0.6, 0.6, 0.6, False),
        (0.0, 1.2, 0.5, False),
        (0.5, 0.5, 0.0, True),
    ],
)
def test_a_machine_is_clean_when_others_load_it_by_half_a_core_at_most(before, after, own, clean):
    load = judge_load(before, after, own)
    assert load.clean is clean
    assert load.message.startswith("machine clean: " if clean else "this machine is busy: ")
    assert f"{before:.2f} before, {after:.2f} after" in load.message
    assert ("read ratios only" in load.message) is not clean


def test_a_machine_whose_load_is_unknown_is_not_called_clean():
    load = judge_load(None, None, 0.0)
    assert not load.clean
    assert "read ratios only" in load.message


def test_own_load_is_what_a_one_minute_average_would_have_gained():
    average = 0.0
    for _ in range(3000):  # 30 s of two busy threads, in steps of 10 ms
        average += (2 - average) * (1 - math.exp(-0.01 / 60))
    assert own_load(worked=60, elapsed=30) == pytest.approx(average)
    assert own_load(worked=0, elapsed=0) == 0


def test_the_watch_judges_by_the_load_before_and_after(monkeypatch):
    loads = iter([0.25, 2.0])
    monkeypatch.setattr(machine, "load_per_core", lambda: next(loads))
    load = LoadWatch().finish()
    assert (load.before, load.after, load.clean) == (0.25, 2.0, False)


def test_machine_facts_say_which_processor_and_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/segatlas", "bench", "unet:decoder_channels=[8, 8]"])
    facts = describe_machine(seed=3)
    assert facts.command == "segatlas bench 'unet:decoder_channels=[8, 8]'"
    assert facts.processor
    assert facts.cores >= 1
    assert facts.seed == 3
