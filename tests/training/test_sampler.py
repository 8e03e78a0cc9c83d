from segatlas.training.sampler import ResumableSampler


def order(sampler: ResumableSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_visits_every_sample_once():
    assert sorted(order(ResumableSampler(10, seed=3), 0)) == [(0, i) for i in range(10)]


def test_the_order_depends_on_seed_and_epoch_only():
    first = order(ResumableSampler(50, seed=3), 4)
    assert order(ResumableSampler(50, seed=3), 4) == first
    assert order(ResumableSampler(50, seed=4), 4) != first
    assert [i for _, i in order(ResumableSampler(50, seed=3), 5)] != [i for _, i in first]


def test_processes_share_an_epoch_without_overlap():
    shares = [order(ResumableSampler(11, seed=0, rank=r, world=2), 1) for r in range(2)]
    assert len(shares[0]) == len(shares[1]) == 5
    assert not set(shares[0]) & set(shares[1])


def test_an_incomplete_last_batch_is_dropped_unless_it_is_the_only_one():
    assert len(ResumableSampler(10, seed=0, batch=4)) == 8
    assert len(ResumableSampler(3, seed=0, batch=4)) == 3


def test_resuming_goes_on_behind_the_samples_already_seen_and_only_in_that_epoch():
    whole = order(ResumableSampler(12, seed=1), 2)
    sampler = ResumableSampler(12, seed=1)
    sampler.resume(2, 8)
    assert len(sampler) == 12
    assert order(sampler, 2) == whole[8:]
    assert len(order(sampler, 3)) == 12


def test_a_skip_for_another_epoch_is_not_applied():
    sampler = ResumableSampler(12, seed=1)
    sampler.resume(2, 8)
    assert len(order(sampler, 3)) == 12
