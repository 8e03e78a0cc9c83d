"""Controls: is a further input used at all? Score a model without it, or with that of another image.

A network that reads a source must lose where another image's is put in its place, and one that can do without it must
not fall below a network that never saw it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from segatlas.checkpoint.card import Card
from segatlas.data.dataset import SegmentationData
from segatlas.data.sample import Sample, Source
from segatlas.data.transforms.geometry import Placement
from segatlas.data.transforms.warp import resize_image, warp_label
from segatlas.errors import UsageError

FORMS = "NAME=absent, NAME=shuffled or NAME=shuffled:SEED"


@dataclass(frozen=True, kw_only=True)
class SourceControl:
    """What a source is replaced by: nothing, or that of another image. seed: decides which other image."""

    kind: Literal["absent", "shuffled"]
    seed: int = 0

    @property
    def text(self) -> str:
        """As it is written: "absent", "shuffled:0"."""
        return self.kind if self.kind == "absent" else f"{self.kind}:{self.seed}"


def read_controls(words: Mapping[str, str] | Sequence[str], card: Card) -> dict[str, SourceControl]:
    """Return the controls that words name: "prior=absent", or a mapping of a source's name to the rest.

    Raises:
        UsageError: of another form, no source of the model, a source twice, or one absent that the model cannot do
            without.
    """
    found: dict[str, SourceControl] = {}
    specs = {spec.name: spec for spec in card.inputs[1:]}
    pairs = words.items() if isinstance(words, Mapping) else [_split(word) for word in words]
    for name, text in pairs:
        if name not in specs:
            takes = ", ".join(specs) or "nothing"
            raise UsageError(f"--source {name}: no source of the model; besides the image it takes {takes}")
        if name in found:
            raise UsageError(f"--source: {name} is given twice")
        kind, colon, seed = text.partition(":")
        if kind == "absent" and not colon:
            if specs[name].required:
                raise UsageError(
                    f"--source {name}=absent: the model cannot do without it; {name}=shuffled is a control"
                )
            found[name] = SourceControl(kind="absent")
        elif kind == "shuffled" and (not colon or seed.isdecimal()):
            found[name] = SourceControl(kind="shuffled", seed=int(seed or 0))
        else:
            raise UsageError(f"--source: got {name}={text}, expected {FORMS}")
    return found


def _split(word: str) -> tuple[str, str]:
    name, sign, text = word.partition("=")
    if not (name and sign):
        raise UsageError(f"--source: got {word!r}, expected {FORMS}")
    return name, text


class ControlledSources:
    """The sources of a dataset's samples, changed as the controls say.

    Args:
        data: where the sources of other images come from.
        controls: by name.

    Raises:
        UsageError: one is shuffled, and there is no other image.
    """

    def __init__(self, data: SegmentationData, controls: Mapping[str, SourceControl]):
        if len(data) < 2 and any(control.kind == "shuffled" for control in controls.values()):
            raise UsageError(f"--source: split {data.split!r} has one image; shuffled takes the source of another one")
        self.data, self.controls = data, controls
        self._sequences = [data.sequence(index) for index in range(len(data))]

    def applied(self, sample: Sample, index: int) -> Sample:
        """Return sample number `index` with other sources; DataError as of `load` of the other image."""
        sources = dict(sample.sources)
        for name, control in self.controls.items():
            sources.pop(name, None)
            if control.kind == "shuffled":
                other = self.data.source(self.other(index, control.seed), name)
                if other is not None:
                    sources[name] = _of_size(other, (sample.image.shape[0], sample.image.shape[1]))
        return replace(sample, sources=sources)

    def other(self, index: int, seed: int) -> int:
        """Return the number of another image, of another sequence where the split has several."""
        here, total = self._sequences[index], len(self._sequences)
        others = [place for place in range(total) if self._sequences[place] != here]
        if not others:
            others = [place for place in range(total) if place != index]
        return others[int(np.random.default_rng([seed, index]).integers(len(others)))]

    def warnings(self) -> Iterator[str]:
        """Yield what readers of the scores should know."""
        names = [name for name, control in self.controls.items() if control.kind == "shuffled"]
        if names and len(set(self._sequences)) == 1 and self._sequences[0]:
            told = f"split {self.data.split!r} is one sequence, {self._sequences[0]}"
            yield f"{told}: shuffled {', '.join(names)} are of other images of it, which may look alike"


def _of_size(source: Source, size: tuple[int, int]) -> Source:
    """Return a source in the size (height, width) of another image."""
    found = (source.array.shape[0], source.array.shape[1])
    if found == size:
        return source
    if source.kind == "label":
        matrix = np.diag([found[1] / size[1], found[0] / size[0], 1.0])
        return replace(source, array=warp_label(source.array.reshape(found), Placement(matrix=matrix, size=size)))
    return replace(source, array=resize_image(np.atleast_3d(source.array), size))
