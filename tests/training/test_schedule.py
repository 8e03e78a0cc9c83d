import math

import pytest

from segatlas.config.schema import ScheduleConfig
from segatlas.training.schedule import Plateau, encoder_lr_factor, lr_factor, warmup_steps


def factors(schedule: ScheduleConfig, total: int) -> list[float]:
    return [lr_factor(schedule, step, total) for step in range(total)]


def test_poly_follows_its_formula():
    assert factors(ScheduleConfig(name="poly", power=0.9), 10)[3] == pytest.approx(0.7**0.9)


def test_cosine_starts_at_one_passes_a_half_and_ends_near_min_ratio():
    values = factors(ScheduleConfig(name="cosine", min_ratio=0.1), 100)
    assert values[0] == 1
    assert values[50] == pytest.approx(0.55)
    assert values[99] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 0.99)))


def test_warmup_rises_linearly_to_the_schedule():
    values = factors(ScheduleConfig(name="constant", warmup=4, warmup_ratio=0.2), 12)
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1] * 8])


def test_an_encoder_with_a_warm_up_of_its_own_begins_where_that_of_the_others_ends():
    schedule = ScheduleConfig(name="poly", span="rest", warmup=5, warmup_ratio=0.0, encoder_warmup=10)
    values = [encoder_lr_factor(schedule, step, 65) for step in range(65)]
    assert values[:5] == [0] * 5
    assert values[5:15] == pytest.approx([step / 9 for step in range(10)])
    assert values[15:] == pytest.approx([(1 - step / 49) ** 0.9 for step in range(50)])
    alone = ScheduleConfig(name="poly", warmup=5)
    assert [encoder_lr_factor(alone, step, 65) for step in range(65)] == factors(alone, 65)


@pytest.mark.parametrize(("total", "warmup"), [(300, 100), (299, 99), (10, 3), (2, 0)])
def test_the_warmup_is_at_most_a_third_of_the_run(total, warmup):
    schedule = ScheduleConfig(name="constant", warmup=100, warmup_ratio=0.0)
    assert warmup_steps(schedule, total) == warmup
    assert sum(factor < 1 for factor in factors(schedule, total)) == warmup


def test_step_drops_at_its_milestones():
    values = factors(ScheduleConfig(name="step", milestones=(0.5, 0.75), factor=0.1), 8)
    assert values == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2)


def test_plateau_drops_after_patience_validations_without_improvement():
    plateau = Plateau(patience=2)
    for value in (0.3, 0.4, 0.4, 0.39):
        plateau.update(value)
    assert plateau.drops == 0
    plateau.update(0.4)
    assert plateau.drops == 1
    assert lr_factor(ScheduleConfig(name="plateau", factor=0.5), 9, 10, plateau.drops) == 0.5


def test_a_plateau_goes_on_from_its_saved_state():
    one = Plateau(patience=1)
    for value in (0.3, 0.2):
        one.update(value)
    other = Plateau(patience=1)
    other.load_state_dict(one.state_dict())
    for plateau in (one, other):
        plateau.update(0.25)
    assert one.drops == other.drops == 1


def test_over_the_rest_the_warm_up_comes_alone_and_the_last_step_has_the_final_rate():
    """As MMSegmentation's LinearLR and PolyLR one after the other."""
    total, warmup, base, last = 100, 20, 0.02, 1e-4
    schedule = ScheduleConfig(span="rest", warmup=warmup, warmup_ratio=0.1, power=0.9, min_lr=last)
    rates = [base * lr_factor(schedule, step, total, base=base) for step in range(total)]
    for step in range(warmup):
        assert rates[step] == pytest.approx(base * (0.1 + 0.9 * step / (warmup - 1)), rel=1e-12)
    for step in range(warmup, total):
        left = 1 - (step - warmup) / (total - warmup - 1)
        assert rates[step] == pytest.approx(last + (base - last) * left**0.9, rel=1e-12)
    assert (rates[0], rates[warmup - 1]) == pytest.approx((0.1 * base, base))
    assert rates[warmup] == base
    assert rates[-1] == pytest.approx(last, rel=1e-12)


def test_a_final_rate_of_its_own_is_the_same_for_every_group():
    schedule = ScheduleConfig(span="rest", min_lr=1e-4)
    assert [base * lr_factor(schedule, 9, 10, base=base) for base in (0.1, 0.01)] == pytest.approx([1e-4] * 2)


@pytest.mark.parametrize("name", ["poly", "cosine", "step", "constant"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (2, 0), (3, 1), (6, 2)])
def test_over_the_rest_short_runs_have_rates_between_the_first_and_the_final_one(name, total, warmup):
    schedule = ScheduleConfig(name=name, span="rest", warmup=warmup, warmup_ratio=0.5)
    values = factors(schedule, total)
    assert all(0 <= value <= 1 for value in values)
    assert values[warmup if warmup < total else 0] == 1


def test_exponential_falls_by_one_ratio_an_epoch():
    epochs, steps = 750, 122
    schedule = ScheduleConfig(name="exponential", min_ratio=0.995**epochs)
    found = [lr_factor(schedule, epoch * steps, epochs * steps) for epoch in range(0, epochs, 50)]
    assert found == pytest.approx([0.995**epoch for epoch in range(0, epochs, 50)])
    final = ScheduleConfig(name="exponential", min_lr=1e-5)
    assert lr_factor(final, 10, 10, base=1e-3) == pytest.approx(1e-2)
