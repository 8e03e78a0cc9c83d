"""Images with further inputs on the same pixels, and masks: an earlier date, a prior mask, heat maps, another sensor.

`ROOT/{train,val[,test]}/{images,SOURCE,masks}/STEM.*` or `ROOT/{images,SOURCE,masks}/{train,val[,test]}/STEM.*`, SOURCE
being the name of each further input, or the folder that is stated for it. The files of a sample have one stem and one
size. All else is as in `folder`: classes, codes, splits, and what is held out where there is no val part.

Which sources there are says `data.sources`, else `ROOT/sources.json` in the same words, else it is one image of an
earlier date, in `before/`:

    sources: {prior: label, pose: {kind: map, folder: poses}, thermal: {kind: image, optional: true}}

With `data.lists={train: FILE, val: FILE}` the files stand in CSV files whose first line names the columns: `image`,
`mask`, and one for each source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.folder import FolderData, FolderOptions, listed_parts, sibling_folder, split_folders
from segatlas.data.datasets.listing import SPLITS, FileListing, SourceCoding, fault_of_list, with_companions
from segatlas.data.datasets.lists import Columns
from segatlas.errors import DataError
from segatlas.files import read_text
from segatlas.structures import SourceKind

BEFORE = "before"
"""The folder of the images of the earlier date, and the name of that source, where nothing else is stated."""

SOURCES_FILE = "sources.json"
RESERVED = ("image", "mask")
"""What no source can be called: these are columns of a list, and "image" is the network's first input."""


class SourceOptions(Section):
    """One further input; its kind alone stands for it with the other defaults."""

    kind: SourceKind = Field(
        "image",
        description="image: normalised as the images are; map: numbers as stored, such as heat maps; label: codes",
    )
    folder: str | None = Field(None, min_length=1, description="its folder beside images/; default: its name")
    optional: bool = Field(False, description="images may be without it; networks are then told so")
    codes: SourceCoding = Field(
        "classes",
        description="of label: classes: 0..K-1 and 255, as `predict` writes them; masks: as the masks of this dataset; "
        "any: other numbers",
    )

    @model_validator(mode="before")
    @classmethod
    def _named_by_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class PairsOptions(FolderOptions):
    """What the masks of a folder hold, which files make a split, and which further inputs there are."""

    sources: dict[str, SourceOptions] | None = Field(
        None,
        min_length=1,
        description="further inputs by name, as {prior: label}; default: ROOT/sources.json, else {before: image}",
    )

    @field_validator("sources")
    @classmethod
    def _names(cls, value: dict[str, SourceOptions] | None) -> dict[str, SourceOptions] | None:
        for name in value or ():
            if fault := _fault_of_name(name):
                raise ValueError(fault)
        return value


class Pairs(FolderData):
    """One split of a folder of images, further inputs and masks (see the head of this file)."""

    name = "pairs"
    targets = ("SemanticTarget",)
    options = PairsOptions
    layout = (
        "train/images/, train/SOURCE/ and train/masks/, or images/train/, SOURCE/train/ and masks/train/, SOURCE being "
        "before, or as data.sources or sources.json says"
    )
    sources: Mapping[str, SourceKind] = {BEFORE: "image"}

    @classmethod
    def sources_of(cls, cfg: DataConfig) -> Mapping[str, SourceKind]:
        """Return what the recipe states, else the root's file; of a damaged file the default, for it is told later."""
        try:
            stated = _stated(cfg.options(PairsOptions), None if cfg.root is None else Path(cfg.root).expanduser())
        except (DataError, ValidationError):
            return cls.sources
        return {name: one.kind for name, one in stated.items()}

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder is laid out as `folder` is, and has a file of sources or images of an earlier date."""
        if not super().fits(root):
            return False
        found = [folders[0] for split in SPLITS if (folders := split_folders(root, split)) is not None]
        return (root / SOURCES_FILE).is_file() or any(sibling_folder(images, root, BEFORE).is_dir() for images in found)

    @classmethod
    def reads(cls, cfg: DataConfig, root: Path) -> bool:
        """Whether files are listed, or the root is laid out so; where sources are stated, their folders may be lost."""
        return bool(cfg.own("lists")) or (super().fits(root) if cfg.own("sources") else cls.fits(root))

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List all splits as `folder` does, each item with its further inputs."""
        options = cfg.options(PairsOptions)
        cfg = cfg.checked(options)
        try:
            stated = _stated(options, root)
        except DataError as error:
            listed = super().listing(cfg, root, splits)
            parts = {split: replace(part, error=error) for split, part in listed.parts.items()}
            repair = 'correct it: {"NAME": "image", "map" or "label"}'
            return replace(listed, name=cls.name, parts=parts, faults=(*listed.faults, fault_of_list(error, repair)))
        if options.lists:
            columns = Columns(sources=tuple(stated), optional=tuple(n for n, one in stated.items() if one.optional))
            listed = super().listing(cfg.checked(options.model_copy(update={"lists": None})), root, splits)
            parts, faults = listed_parts(options.lists, root, columns)
            listed = replace(listed, faults=tuple(faults), folders={})
        else:
            listed = super().listing(cfg, root, splits)
            parts = dict(listed.parts)
            for split, part in parts.items():
                images = listed.folders[split][0]
                for name, one in stated.items():
                    words = "image of the earlier date" if name == BEFORE else f"source {name}"
                    folder = sibling_folder(images, root, one.folder or name)
                    part = with_companions(
                        part, name, name, words, images, folder, is_input=True, needed=not one.optional
                    )
                parts[split] = part
        return replace(
            listed,
            name=cls.name,
            parts=parts,
            sources={name: one.kind for name, one in stated.items()},
            source_codes={name: one.codes for name, one in stated.items() if one.kind == "label"},
        )


def write_sources(root: Path, sources: Mapping[str, SourceKind]) -> None:
    """Write the file of sources of a root."""
    (root / SOURCES_FILE).write_text(json.dumps(dict(sources), indent=1) + "\n", encoding="utf-8")


def _stated(options: PairsOptions, root: Path | None) -> Mapping[str, SourceOptions]:
    """Return the sources that a recipe states, else the root's file, else the earlier date. DataError of that file."""
    if options.sources:
        return options.sources
    file = None if root is None else root / SOURCES_FILE
    if file is None or not file.is_file():
        return {BEFORE: SourceOptions(kind="image")}
    try:
        found = PairsOptions.model_validate({"sources": json.loads(read_text(file))}).sources
    except (ValueError, RecursionError) as error:
        raise DataError(f'is no file of sources, as {{"prior": "label"}}: {_first_line(error)}', file) from error
    if not found:
        raise DataError("names no source", file)
    return found


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
    return str(error)


def _fault_of_name(name: str) -> str:
    if name in RESERVED:
        return f"a source cannot be called {name!r}: that is a column of its own"
    return "" if name.isidentifier() else f"{name!r} is no name of a source; letters, digits and _ make one"
