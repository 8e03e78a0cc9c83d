"""A foreign weights file as importers see it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from segatlas.errors import WeightsError


class TensorShape(tuple[int, ...]):
    """The shape of a tensor of a file; asked for a dimension that it lacks, it says which tensor it is."""

    name: str

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> TensorShape:
        """Return the shape of the tensor `name`."""
        shape = cls(tensor.shape)
        shape.name = name
        return shape

    def __getitem__(self, index: Any) -> Any:
        try:
            return super().__getitem__(index)
        except IndexError:
            raise WeightsError(f"the tensor {self.name} has {len(self)} dimensions, too few") from None


@dataclass(kw_only=True)
class ForeignWeights:
    """The tensors of a file, and what was found beside them.

    tensors: name -> tensor; their values are not touched while a file is recognised.
    settings: the library's own configuration as plain data, {} where there is none. Nothing of it was executed.
    file: its name, "" where there is none.
    notes: what was taken by default because neither weights nor settings tell it; filled by `setting`.
    asked: dotted paths of settings that were looked up; filled by `stated`.
    """

    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    notes: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def has(self, *names: str) -> bool:
        """Tell whether every one of `names` is a tensor, or the beginning of a tensor's name up to a dot."""
        return all(any(key == name or key.startswith(f"{name}.") for key in self.tensors) for name in names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; WeightsError where it is missing."""
        if name not in self.tensors:
            raise WeightsError(f"the tensor {name} is missing")
        return TensorShape.of(name, self.tensors[name])

    def count(self, pattern: str) -> int:
        """Return how many different numbers stand at `{i}` in names that begin with `pattern`, e.g. "layer1.{i}"."""
        before, _, after = pattern.partition("{i}")
        place = re.compile(re.escape(before) + r"(\d+)" + re.escape(after) + r"(?:\.|$)")
        return len({match[1] for key in self.tensors if (match := place.match(key))})

    def setting(self, path: str, default: Any) -> Any:
        """Return the value at a dotted path of the settings (numbers index lists), else `default`, with a note.

        For facts that weights cannot tell: align_corners, dilations, window sizes.
        """
        value = self.stated(path)
        if value is None:
            self.note(f"{path} = {default!r} (published default; the weights do not tell)")
            return default
        return value

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def stated(self, path: str) -> Any:
        """Return the value at a dotted path of the settings, None where it is not there."""
        self.asked.add(path)
        value: Any = self.settings
        for part in path.split("."):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
        return value
