import pytest

from segatlas.bench.timing import Spread, time_alternating


class FakeTime:
    """Two clocks that only the pieces move."""

    def __init__(self):
        self.wall = self.cpu = 0.0
        self.calls = []

    def piece(self, name, walls, cpu):
        durations = iter(walls)

        def call():
            self.calls.append(name)
            self.wall += next(durations)
            self.cpu += cpu

        return call

    def measure(self, pieces, **options):
        return time_alternating(pieces, wall=lambda: self.wall, cpu=lambda: self.cpu, **options)


def test_median_minimum_and_p95_are_those_of_the_measured_calls_alone():
    fake = FakeTime()
    piece = fake.piece("a", [100.0, 0.004, 0.001, 0.003, 0.002], cpu=0.5)
    (timing,) = fake.measure([piece], repeats=4, warmups=1)
    assert timing.wall_ms.median == pytest.approx(2.5)
    assert timing.wall_ms.minimum == pytest.approx(1)
    assert timing.wall_ms.p95 == pytest.approx(4)
    assert timing.cpu_ms.median == timing.cpu_ms.minimum == pytest.approx(500)


def test_p95_is_the_smallest_time_that_95_percent_of_the_calls_did_not_exceed():
    values = [index / 1000 for index in range(1, 41)]
    assert Spread.of(values[::-1]).p95 == pytest.approx(38)
    assert Spread.of([0.007]) == Spread(median=7.0, p95=7.0, minimum=7.0)


def test_pieces_take_turns_and_every_other_round_is_reversed():
    fake = FakeTime()
    pieces = [fake.piece(name, [1] * 9, cpu=1) for name in "abc"]
    fake.measure(pieces, repeats=3, warmups=1)
    assert "".join(fake.calls) == "abc" + "abc" + "cba" + "abc"


def test_each_piece_gets_its_own_times_in_the_order_given():
    fake = FakeTime()
    pieces = [fake.piece("a", [1] * 2, cpu=3), fake.piece("b", [5] * 2, cpu=7)]
    a, b = fake.measure(pieces, repeats=2, warmups=0)
    assert (a.wall_ms.median, a.cpu_ms.median) == pytest.approx((1000, 3000))
    assert (b.wall_ms.median, b.cpu_ms.median) == pytest.approx((5000, 7000))
