"""Finding a library's settings: in the weights file itself, or in a sidecar configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segatlas.checkpoint.model_folder import WEIGHTS_ENDINGS
from segatlas.checkpoint.reading import ReadWeights
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.source import Library
from segatlas.errors import WeightsError
from segatlas.printable import printable

_PREFERRED = ("model.safetensors", "pytorch_model.bin")
"""What the weights file in a folder of Hugging Face is called."""


@dataclass(frozen=True, kw_only=True)
class FoundSettings:
    """Settings as plain data, {} where none were found; where they come from, and notes for people."""

    values: Mapping[str, Any]
    where: str = ""
    notes: tuple[str, ...] = ()


def find_weights(path: Path) -> Path:
    """Return the weights file that `path` is, or the one in the folder that `path` is.

    Raises:
        WeightsError: a folder with none, or with several that are not called as usual.
    """
    if not path.is_dir():
        return path
    for name in _PREFERRED:
        if (path / name).is_file():
            return path / name
    files = sorted(file for file in path.iterdir() if file.suffix in WEIGHTS_ENDINGS and file.is_file())
    if len(files) == 1:
        return files[0]
    listed = ", ".join(file.name for file in files[:8]) or f"none that ends with {', '.join(WEIGHTS_ENDINGS)}"
    raise WeightsError(f"{printable(path)}: a folder; name one weights file (there: {listed})")


def find_settings(source: Library, path: Path, read: ReadWeights, given: Path | None) -> FoundSettings:
    """Return the settings of a weights file: those given, else those in the file, else those in a sidecar file.

    A sidecar file is taken only where it agrees with the shapes of the weights; a folder may hold several models.

    Raises:
        WeightsError: the file given cannot be read, or does not agree with the weights.
    """
    if given is not None:
        if given.suffix not in {Path(name).suffix for name in source.settings_names}:
            return FoundSettings(values={})
        values = source.read_settings(given)
        fault = source.disagreement(ForeignWeights(tensors=read.tensors, settings=values))
        if fault:
            raise WeightsError(f"{printable(given)}: settings of another model than {path}: {fault}")
        return FoundSettings(values=values, where=str(given))
    inside = source.settings_of(read.meta)
    if inside:
        return FoundSettings(values=inside, where="the file itself")
    notes: list[str] = []
    for name in source.settings_names:
        place = path.with_name(name.format(stem=path.stem))
        if not place.is_file():
            continue
        try:
            values = source.read_settings(place)
        except WeightsError as error:
            notes.append(f"{place.name} (sidecar file) was not used: {error}")
            continue
        fault = source.disagreement(ForeignWeights(tensors=read.tensors, settings=values))
        if not fault:
            return FoundSettings(values=values, where=str(place), notes=tuple(notes))
        notes.append(f"{place.name} (sidecar file) was not used: {fault}")
    return FoundSettings(values={}, notes=tuple(notes))
