"""The card: everything besides the numbers that a set of weights needs to be used again (`card.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from segatlas.checkpoint.card_checks import (
    MOST_CLASSES,
    class_faults,
    config_faults,
    name_faults,
    object_faults,
    slices_faults,
    surgery_faults,
    usage_faults,
)
from segatlas.checkpoint.hostile import told_as_weights_error
from segatlas.checkpoint.json_text import read_object
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.checkpoint.validation import FieldsError, validated
from segatlas.config.encoder_keys import nested_fields
from segatlas.config.objects import ObjectRule
from segatlas.errors import UsageError, WeightsError
from segatlas.files import whole_file
from segatlas.printable import printable, shortened
from segatlas.structures import InputSpec, VolumeSlices

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
CARD_VERSION = 1

_NEVER_READ = ("resample", "postprocess")
"""Keys that cards had until 2026-11: nothing ever acted on them. Nor did anything on `surgery` while it was a list."""


def _with_nested_encoder(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a card's data with the encoder of its network in the nested spelling; FieldsError where it is two."""
    config = data.get("config")
    if not isinstance(config, Mapping):
        return data
    nested, problems = nested_fields(config)
    if problems:
        raise FieldsError([replace(problem, key=f"config.{problem.key}") for problem in problems])
    return {**data, "config": nested}


def _is_long(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) and len(value) > MOST_CLASSES


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts that travel with weights. `config` holds the fields of the architecture's config dataclass.

    things: of each class, whether it is one of things, () = not said. objects: how objects and segments are made of
    what the network finds. slices: how images were cut out of volumes, None = they were images. surgery: of a pruned
    network, name of a layer -> its channels in, channels out and groups, of each layer that its config makes wider.
    """

    architecture: str
    config: dict[str, Any]
    task: str = "semantic"
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    inputs: tuple[InputSpec, ...] = (InputSpec(),)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    inference: InferenceMode = field(default_factory=InferenceMode)
    things: tuple[bool, ...] = ()
    objects: ObjectRule = field(default_factory=ObjectRule)
    slices: VolumeSlices | None = None
    surgery: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    source: str = ""
    sha256: str = ""
    licence: str = ""
    metric: dict[str, Any] = field(default_factory=dict)
    version: int = CARD_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for name, usual in (
            ("things", ()),
            ("objects", ObjectRule()),
            ("slices", None),
            ("surgery", {}),
        ):  # most cards have nothing to say of them
            if getattr(self, name) == usual:
                del plain[name]
        if "objects" in plain and self.objects.queries == ObjectRule.queries:
            del plain["objects"]["queries"]
        for spec in plain["inputs"]:
            if spec["codes"] is None:
                del spec["codes"]
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "card") -> Card:
        """Build a card from plain data; `where` names the origin in errors.

        Raises:
            WeightsError: written by a newer version, unknown or missing keys, wrong types, or facts that contradict
                each other; all faults at once.
        """
        version = data.get("version", CARD_VERSION)
        if version != CARD_VERSION or isinstance(version, bool):
            raise WeightsError(
                f"{where}: card version {shortened(version)}; this SegAtlas reads version {CARD_VERSION} - a newer one "
                "is needed"
            )
        if long := [f"{shortened(key)}: {len(value):,} items" for key, value in data.items() if _is_long(value)]:
            raise WeightsError(f"{where}: not a valid card\n  {', '.join(long)}, at most {MOST_CLASSES:,}")
        try:
            with told_as_weights_error(f"{where}: not a valid card"):
                kept = {key: value for key, value in data.items() if key not in _NEVER_READ}
                if isinstance(kept.get("surgery"), list):
                    del kept["surgery"]
                card = validated(cls, _with_nested_encoder(kept))
            card.check()
        except UsageError as error:
            raise WeightsError(f"{where}: not a valid card\n{error}") from None
        return card

    def check(self) -> None:
        """Raise UsageError, naming every fault, where facts contradict each other."""
        found = [
            *class_faults(self.classes, self.palette, self.config.get("num_classes")),
            *object_faults(self.things, self.objects, len(self.classes)),
            *usage_faults(self.inputs, self.preprocessing, self.inference),
            *slices_faults(self.slices),
            *name_faults(self.architecture, self.task),
            *surgery_faults(self.surgery),
            *(f"config.{fault}" for fault in config_faults(self.config)),
        ]
        if found:
            raise UsageError("\n".join(f"  {fault}" for fault in found))

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """Read `card.json`, named itself or by its folder.

        Raises:
            WeightsError: missing, unreadable or invalid.
        """
        path = Path(path)
        path = path / CARD_FILE if path.is_dir() else path
        return cls.from_dict(read_object(path), where=printable(path))

    def to_text(self) -> str:
        """Return what `card.json` holds."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def write(self, path: str | Path) -> Path:
        """Write to a file, or as `card.json` into a folder; an existing file is replaced in one step.

        Raises:
            WeightsError: it cannot be written.
        """
        path = Path(path)
        path = path / CARD_FILE if path.is_dir() else path
        with whole_file(path, error=WeightsError) as temporary:
            temporary.write_text(self.to_text(), encoding="utf-8")
        return path
