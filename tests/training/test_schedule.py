import math

import pytest
import torch

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


# ---- beside torch
def rates_of_torch(make, steps: int) -> list[float]:
    """Return the learning rates that a scheduler of torch sets at each of its steps, from 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_linear_is_torchs_lambda_that_holds_and_then_falls_to_0():
    """As base models of image translation have it: 1 for `niter` epochs, then in a line to 0 over `niter_decay`."""
    niter, decay = 30, 20
    wanted = rates_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda e: 1 - max(0, e - niter) / decay), 50
    )
    assert factors(ScheduleConfig(name="linear", hold=niter / (niter + decay)), 50) == pytest.approx(wanted)
    wanted = rates_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=50), 50
    )
    assert factors(ScheduleConfig(name="linear", hold=0, min_ratio=0.1), 50) == pytest.approx(wanted)


@pytest.mark.parametrize(("every", "factor"), [(7, 0.1), (1, 0.95), (50, 0.5)])
def test_step_with_every_is_torchs_step_lr(every, factor):
    wanted = rates_of_torch(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, every, factor), 40)
    assert factors(ScheduleConfig(name="step", every=every, factor=factor), 40) == pytest.approx(wanted)


def test_step_with_milestones_is_torchs_multi_step_lr():
    wanted = rates_of_torch(lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [24, 34], 0.1), 40)
    assert factors(ScheduleConfig(name="step", milestones=(0.6, 0.85)), 40) == pytest.approx(wanted)


def test_exponential_is_torchs_by_steps_and_every_that_by_epochs():
    steps, epochs = 5, 8
    total = steps * epochs
    wanted = rates_of_torch(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95), total)
    assert factors(ScheduleConfig(name="exponential", min_ratio=0.95**total), total) == pytest.approx(wanted)
    by_epoch = factors(ScheduleConfig(name="step", every=steps, factor=0.95), total)
    assert by_epoch == pytest.approx([rate for rate in wanted[:epochs] for _ in range(steps)])
