"""Which other image a shuffled source comes from, and what it looks like there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from segatlas.data.sample import Sample, Source
from segatlas.errors import UsageError
from segatlas.evaluation.source_controls import ControlledSources, SourceControl
from segatlas.structures import SemanticTarget


@dataclass
class Drives:
    """Images of given sequences, each with a prior of its own number and size; the last one has none."""

    names: tuple[str, ...]
    split: str = "val"
    read: list[int] = field(default_factory=list)

    def __len__(self):
        return len(self.names)

    def sequence(self, index):
        return self.names[index]

    def source(self, index, name):
        self.read.append(index)
        codes = np.full((4 + index, 6), index, np.uint8)
        return None if index == len(self) - 1 else Source(array=codes, kind="label")

    def load(self, index):
        source = self.source(index, "prior")
        sources = {"far": Source(array=np.zeros((4, 6)), kind="map")} | ({"prior": source} if source else {})
        return Sample(
            image=np.zeros((4, 6, 3), np.uint8),
            target=SemanticTarget(np.zeros((4, 6), np.uint8)),
            key="a",
            sources=sources,
        )


def shuffled(seed=0):
    return {"prior": SourceControl(kind="shuffled", seed=seed)}


@pytest.mark.parametrize("names", [("",) * 7, ("a", "a", "b", "a", "b", "c", "c")])
def test_the_other_image_is_never_the_same_and_of_another_sequence_where_there_is_one(names):
    controls = ControlledSources(Drives(names), shuffled())
    for index in range(len(names)):
        others = {controls.other(index, seed) for seed in range(60)}
        wanted = {place for place in range(7) if names[place] != names[index]} if names[0] else set(range(7)) - {index}
        assert others == wanted
        assert controls.other(index, 3) == ControlledSources(Drives(names), shuffled()).other(index, 3)


def test_a_shuffled_source_has_the_size_of_the_image_and_the_rest_stays():
    data = Drives(("a", "b", "b", "b"))
    controls = ControlledSources(data, shuffled())
    other = controls.other(0, 0)
    out = controls.applied(data.load(0), 0)
    if other == 3:
        assert "prior" not in out.sources
    else:
        assert out.sources["prior"].array.shape == (4, 6)
        assert (out.sources["prior"].array == other).all()
    assert "far" in out.sources
    seen = {index for seed in range(9) for index in [ControlledSources(data, shuffled(seed)).other(0, seed)]}
    assert len(seen) > 1


def test_an_absent_source_is_gone_and_one_image_cannot_be_shuffled():
    data = Drives(("a", "b"))
    out = ControlledSources(data, {"prior": SourceControl(kind="absent")}).applied(data.load(0), 0)
    assert list(out.sources) == ["far"]
    with pytest.raises(UsageError, match="split 'val' has one image"):
        ControlledSources(Drives(("a",)), shuffled())


def test_a_split_of_one_drive_is_told():
    (warning,) = ControlledSources(Drives(("a", "a", "a")), shuffled()).warnings()
    assert warning.startswith("split 'val' is one sequence, a: shuffled prior are of other images of it")
    assert not list(ControlledSources(Drives(("a", "b")), shuffled()).warnings())
    assert not list(ControlledSources(Drives(("", "")), shuffled()).warnings())
