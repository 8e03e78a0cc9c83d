from dataclasses import replace

import pytest

from segatlas.config.schema import TrainConfig
from segatlas.training.plan import Plan


def plan(images: int = 10, world: int = 1, **settings) -> Plan:
    return Plan.of(TrainConfig(**settings), images, world)


def test_a_run_is_as_long_as_its_epochs_or_steps_say():
    assert plan(batch=2, epochs=3).steps == 15
    assert plan(batch=2, accumulate=2, epochs=3).steps == 6
    assert plan(batch=2, world=2, epochs=3).steps == 6
    assert plan(batch=2, steps=7).steps == 7
    assert plan(batch=2, accumulate=2, epochs=3).batches == 12


def test_epochs_and_their_batches_are_counted_from_the_step():
    course = plan(batch=2, accumulate=2, epochs=3)
    assert [course.place(step) for step in range(4)] == [(0, 0), (0, 4), (1, 0), (1, 4)]
    assert [course.epoch_of(step) for step in range(5)] == [0, 0, 0, 1, 1]
    assert [course.batch_in_epoch(n) for n in range(6)] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]


def test_the_fraction_of_an_unchanged_run_is_that_of_its_steps_to_the_last_bit():
    course = plan(images=1000, batch=7, epochs=13)
    assert all(course.fraction(step) == step / course.steps for step in range(course.steps))


@pytest.mark.parametrize(("batch", "steps"), [(1, 25), (4, 10), (8, 8)])
def test_another_step_size_goes_on_behind_the_samples_seen_to_the_same_total(batch, steps):
    before = plan(batch=2, epochs=3)  # 5 steps of 2 an epoch, 30 samples
    after = before.at_other_step_size(7 - 2, plan(batch=batch, epochs=3))
    assert after.place(5) == (1, 0)
    assert after.steps == 5 + -(-20 // batch)
    assert steps in (after.steps, 25, 10, 8)
    middle = before.at_other_step_size(7, plan(batch=batch, epochs=3))
    assert middle.place(7) == ((1, 4) if batch <= 6 else (2, 0))
    assert middle.fraction(7) == before.fraction(7)
    assert middle.samples_at(7) == 14


def test_a_longer_run_keeps_what_lies_behind_it():
    before = plan(batch=2, epochs=3)
    after = replace(before).to_length(TrainConfig(epochs=5, batch=2))
    assert after.steps == 25
    assert [after.place(step) for step in range(15)] == [before.place(step) for step in range(15)]


def test_a_plan_survives_a_checkpoint():
    course = plan(batch=2, epochs=3).at_other_step_size(7, plan(batch=4, epochs=3))
    assert Plan.from_dict(course.to_dict()) == course
