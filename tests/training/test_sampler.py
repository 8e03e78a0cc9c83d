from itertools import chain

from segatlas.config.schema import TrainConfig
from segatlas.training.plan import Plan
from segatlas.training.sampler import BatchAddresses


def plan(images: int, *, world: int = 1, epochs: int = 4, **factors: int) -> Plan:
    return Plan.of(TrainConfig(epochs=epochs, **factors), images, world)


def batches(
    images: int, *, seed: int = 3, rank: int = 0, start: int = 0, **factors: int
) -> list[list[tuple[int, int]]]:
    return list(BatchAddresses(plan(images, **factors), seed=seed, rank=rank, start=start))


def joined(found: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return list(chain.from_iterable(found))


def test_each_epoch_visits_every_sample_once():
    found = batches(10, batch=1)
    assert len(found) == 40
    for epoch in range(4):
        assert sorted(joined(found[epoch * 10 : epoch * 10 + 10])) == [(epoch, index) for index in range(10)]


def test_the_order_depends_on_seed_and_epoch_only():
    first = batches(50, batch=5)
    assert batches(50, batch=5) == first
    assert batches(50, batch=5, seed=4) != first
    assert [i for _, i in joined(first[:10])] != [i for _, i in joined(first[10:20])]


def test_processes_share_an_epoch_without_overlap():
    ranks = [joined(batches(11, rank=rank, world=2, batch=1, epochs=1)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == 5
    assert not set(ranks[0]) & set(ranks[1])


def test_an_incomplete_last_batch_is_dropped_unless_it_is_the_only_one():
    assert sum(map(len, batches(10, batch=4, epochs=1))) == 8
    assert sum(map(len, batches(3, batch=4, epochs=1))) == 3


def test_an_epoch_is_whole_optimiser_steps_and_a_small_set_makes_smaller_ones():
    assert plan(11, batch=2, accumulate=2).steps_per_epoch == 2
    small = plan(5, batch=2, accumulate=4)
    assert (small.batch, small.accumulate, small.steps_per_epoch) == (2, 2, 1)


def test_from_any_batch_on_the_batches_are_those_of_the_whole_run():
    whole = batches(11, batch=2, accumulate=2)
    for start in range(len(whole) + 1):
        assert batches(11, batch=2, accumulate=2, start=start) == whole[start:]


def test_asking_for_an_iterator_again_begins_at_the_same_batch():
    addresses = BatchAddresses(plan(11, batch=2), seed=1, start=7)
    first = iter(addresses)
    next(first)
    assert list(iter(addresses)) == batches(11, batch=2, seed=1, start=7)


def test_a_step_sees_the_same_samples_however_its_size_is_made_up():
    def steps(world, batch, accumulate):
        ranks = [batches(27, rank=r, world=world, batch=batch, accumulate=accumulate) for r in range(world)]
        return [
            sorted(chain.from_iterable(joined(rank[s : s + accumulate]) for rank in ranks))
            for s in range(0, len(ranks[0]), accumulate)
        ]

    expected = steps(1, 8, 1)
    assert len(expected) == 12
    for factors in ((1, 4, 2), (1, 2, 4), (2, 4, 1), (2, 2, 2), (4, 1, 2), (8, 1, 1)):
        assert steps(*factors) == expected, factors
