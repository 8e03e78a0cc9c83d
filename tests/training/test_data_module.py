from __future__ import annotations

import pytest

from segatlas.data import create_dataset
from segatlas.training.data_module import BatchStream, Images


def test_all_processes_validate_equally_often_and_each_image_once(recipe):
    config = recipe()
    data = create_dataset(config.data, "val", config.seed)
    assert len(data) == 3
    for world in (1, 2, 3, 5):
        parts = [Images(data, rank, world) for rank in range(world)]
        assert {len(part) for part in parts} == {-(-3 // world)}
        samples = [part[index] for part in parts for index in range(len(part))]
        keys = [sample.key for sample in samples if sample is not None]
        assert sorted(keys) == [data.key(index) for index in range(3)]


@pytest.mark.parametrize("fault", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "no socket")])
def test_a_batch_that_a_killed_loader_process_took_along_is_told_as_its_end(fault):
    class Loader:
        def __iter__(self):
            raise fault
            yield

    with pytest.raises(RuntimeError, match="DataLoader worker exited unexpectedly"):
        next(iter(BatchStream(Loader())))


def test_a_file_of_the_data_that_is_gone_keeps_its_name():
    class Loader:
        def __iter__(self):
            raise FileNotFoundError(2, "gone", "a.png")
            yield

    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        next(iter(BatchStream(Loader())))
