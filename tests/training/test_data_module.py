from __future__ import annotations

from segatlas.data import create_dataset
from segatlas.training.data_module import Pictures


def test_all_processes_validate_equally_often_and_each_image_once(recipe):
    config = recipe()
    data = create_dataset(config.data, "val", config.seed)
    assert len(data) == 3
    for world in (1, 2, 3, 5):
        parts = [Pictures(data, rank, world) for rank in range(world)]
        assert {len(part) for part in parts} == {-(-3 // world)}
        samples = [part[index] for part in parts for index in range(len(part))]
        keys = [sample.key for sample in samples if sample is not None]
        assert sorted(keys) == [data.key(index) for index in range(3)]
