"""The record that every importer file ends with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.config.objects import ObjectRule
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.source import Facts
from segatlas.conversion.importers.stacks import Stack

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Importer:
    """How one library's weights of one architecture become ours, and back.

    source: the library, a key of `SOURCES`.
    architecture: our name of it. A library may have several layouts of one architecture, each with its own importer;
        the first in the table is the one that is written.
    recognise: returns the fields of the architecture's config where the file is of this architecture, else None. Looks
        at names, shapes and settings only.
    renames: the table for a network of that config (the dataclass).
    changes: our tensor name -> (to ours, to theirs), where values are laid out differently and not only called
        differently; given the config.
    stacks: tensors that one side keeps in one and the other in several; they need no line in `renames`.
    dropped: beginnings of their names that are left out on purpose.
    objects: how the library makes objects and segments of what such a network finds.
    resize: how large it predicts images, as in `Preprocessing`, where its settings do not tell.
    preprocessing: how it prepares images for a network of that config, where a file comes without settings.
    backbone: of a file that holds its backbone alone, as under "backbone.": the fields of a variant that tell it from
        others, or None where the file is of another network.
    constants: tensors that the library needs to find in a file and ours has no use for; given the config. They are left
        out too, whatever their values.
    facts: what is known of the use of a network of that config, given it and the settings; in place of the library's,
        whose files tell nothing.
    card_fields: what the card of a network of that config says besides, given the file: task, things, objects and the
        like; over what is said in general.
    """

    source: str
    architecture: str
    recognise: Callable[[ForeignWeights], Mapping[str, Any] | None]
    renames: Callable[[Any], Renames]
    changes: Callable[[Any], Mapping[str, tuple[Change, Change]]] = field(default=lambda config: {})
    stacks: Callable[[Any], Sequence[Stack]] = field(default=lambda config: ())
    dropped: tuple[str, ...] = ()
    objects: ObjectRule = field(default_factory=ObjectRule)
    resize: str | None = None
    preprocessing: Callable[[Any], Preprocessing] | None = None
    backbone: Callable[[ForeignWeights], Mapping[str, Any] | None] | None = None
    constants: Callable[[Any], Mapping[str, Tensor]] = field(default=lambda config: {})
    facts: Callable[[Any, Mapping[str, Any]], Facts] | None = None
    card_fields: Callable[[ForeignWeights, Any], Mapping[str, Any]] = field(default=lambda file, config: {})
