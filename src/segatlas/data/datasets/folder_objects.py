"""Objects and segments of an own folder: where they lie beside its images, and how they are read.

For the images of a split, in `ROOT/{split}/images/` or `ROOT/images/{split}/`:

- `instances.json` in COCO's form beside the folder of images, or `instances_{split}.json` in ROOT or ROOT/annotations;
- `instances/STEM.*`, a number for each object, or `instances/STEM/*`, a file for each object: one of the two an image;
- `panoptic/STEM.png` with `panoptic.json` beside the folder, or `panoptic_{split}.json` as above.

A file of COCO's form is read before `instances/`, for it says the classes; `data.instances.source` says otherwise.
Segments come from panoptic maps, else from masks and objects together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from segatlas.config.section import Section
from segatlas.data.datasets.annotations import SEMANTIC, Annotations
from segatlas.data.datasets.listing import (
    Companions,
    FileListing,
    Item,
    LabelEncoding,
    Part,
    TruthClasses,
    TruthRule,
)
from segatlas.data.datasets.truths import (
    INSTANCES,
    SEGMENTS,
    EitherRule,
    FilesOfObjects,
    MapOfObjects,
    MaskLabels,
    Painted,
    object_class_text,
    object_files,
)
from segatlas.data.formats.instances import OBJECTS_PER_CLASS, InstanceRule
from segatlas.data.formats.listing import has_images, list_images
from segatlas.data.formats.masks import LabelRule
from segatlas.data.formats.palettes import voc_palette
from segatlas.errors import DataError

OBJECTS, MAPS = "instances", "panoptic"


class InstancesOptions(Section):
    """What the files of objects of a folder mean."""

    classes: Literal["divisor", "table", "single"] | None = Field(
        None,
        description="how a number in a map tells its class: divisor: class * divisor + n; table: in STEM.json or "
        "STEM.csv beside the map; single: all have one class. Default: a table if there is one, else what the numbers "
        "leave open",
    )
    divisor: int = Field(OBJECTS_PER_CLASS, ge=2, description="of classes: divisor")
    single: str | None = Field(None, description="of classes: single, the name of the class; default: the only one")
    things: tuple[str, ...] | None = Field(
        None, description="classes that are things; default: as a panoptic file says, or those of the objects' file"
    )
    source: Literal["json", "maps", "panoptic"] | None = Field(
        None, description="which objects are read where there are several kinds of files; default: json before maps"
    )


@dataclass(kw_only=True)
class FolderObjects:
    """What was found of all splits. names: of the classes where they are declared."""

    options: InstancesOptions
    names: tuple[str, ...] | None
    found: Annotations
    folders: set[Path] = field(default_factory=set)
    """Images whose objects are files in a folder of their own."""

    mapped: bool = False
    """Whether there are maps of objects."""

    file_names: set[str] = field(default_factory=set)
    """Classes that the names of objects' files say."""


def objects_there(root: Path, split: str, images: Path) -> bool:
    """Whether there are objects or segments beside the images of a split, of whatever kind."""
    if list_file(root, split, images, OBJECTS) or list_file(root, split, images, MAPS):
        return True
    return _object_folder(images, root).is_dir()


def list_file(root: Path, split: str, images: Path, kind: str) -> Path | None:
    """Return the annotation file of a split, `kind` being instances or panoptic; None where there is none."""
    places = [
        images.parent / f"{kind}.json",
        root / f"{kind}_{split}.json",
        root / "annotations" / f"{kind}_{split}.json",
        images.parent / f"{kind}_{split}.json",
    ]
    if images.parent != root and images.parent.parent == root and images.parent.name == "images":
        places[0] = root / kind / f"{split}.json"
    return next((place for place in places if place.is_file()), None)


def with_objects(listing: FileListing, options: InstancesOptions, rule: LabelRule | None) -> FileListing:
    """Return the listing of a folder with the objects and segments that lie beside its images.

    rule: how masks become classes, where classes are declared; without, masks and objects make no segments.
    """
    names = listing.encoding.classes
    state = FolderObjects(options=options, names=names, found=Annotations(names=names))
    parts = {}
    for split, part in listing.parts.items():
        images = listing.folders[split][0]
        parts[split] = _with_objects(state, part, listing.root, split, images)
    tables, things = _class_tables(state)
    truths = _truths(state, tables.get(INSTANCES), things, rule)
    parts = {split: _with_segments(state, part, things, rule) for split, part in parts.items()}
    encoding = listing.encoding
    if state.found.maps and not any(has_images(listing.folders[split][1]) for split in parts):
        table = tables.get(SEMANTIC)
        known = replace(encoding, classes=table.names, palette=table.palette) if table is not None else encoding
        encoding = LabelEncoding(classes=known.classes, palette=known.palette, rule=state.found.label_rules())
    faults = (*listing.faults, *state.found.faults)
    return replace(
        listing, parts=parts, truths=truths, class_tables=tables, encoding=encoding, faults=faults, things=things
    )


def _with_objects(state: FolderObjects, part: Part, root: Path, split: str, images: Path) -> Part:
    """Return a split with its objects and panoptic maps."""
    listed, maps = (list_file(root, split, images, kind) for kind in (OBJECTS, MAPS))
    folder = _object_folder(images, root)
    wanted = state.options.source
    if part.images_without_mask and not part.items and (listed or maps or folder.is_dir()):
        found = list_images(images).items()
        part = Part(items=tuple(Item(key=key, image=paths[0]) for key, paths in found))
        as_masks = maps is not None
    else:
        as_masks = False
    if listed is not None and wanted in (None, "json"):
        part = state.found.add_objects(part, listed)
    elif folder.is_dir() and wanted in (None, "maps"):
        part = _with_files(state, part, images, folder)
    if maps is not None:
        maps_folder = folder.parent / MAPS if folder.name == OBJECTS else folder.parent.parent / MAPS / split
        part = state.found.add_maps(part, maps, maps_folder, as_masks=as_masks)
    return state.found.with_things(part)


def _with_files(state: FolderObjects, part: Part, images: Path, folder: Path) -> Part:
    """Return a split with its maps of objects and its folders of files of objects."""
    own = {item.key: folder / item.key for item in part.items if (folder / item.key).is_dir()}
    maps = {
        key: paths
        for key, paths in list_images(folder).items()
        if not any(path.is_relative_to(one) for path in paths for one in own.values())
    }
    items, lost, doubled = [], [], []
    for item in part.items:
        place = own.get(item.key) or (maps[item.key][0] if item.key in maps else None)
        if item.key in own and item.key in maps:
            doubled.append(maps[item.key][0])
        if place is None:
            lost.append(item.image)
        else:
            item = replace(item, truths={**item.truths, INSTANCES: place})
        items.append(item)
    state.folders |= {item.image for item in items if item.key in own}
    state.file_names |= {object_class_text(path)[0] for one in own.values() for path in object_files(one)}
    state.mapped = state.mapped or any(item.key in maps for item in items)
    doubled += [path for paths in maps.values() for path in paths[1:]]
    error = None
    if doubled:
        error = DataError("has the stem of another file or folder beside it; keep one of them", doubled[0])
    elif lost:
        error = DataError(f"has no map of objects: expected {folder / items[0].key}.* or a folder of files", lost[0])
    known = {item.key for item in items} | {
        path.relative_to(images).with_suffix("").as_posix() for path in part.images_without_mask
    }
    companions = Companions(
        label="maps of objects",
        words="map of objects",
        folder=folder,
        missing=tuple(lost),
        extra=tuple(path for key, paths in maps.items() if key not in known for path in paths),
        duplicates=tuple(doubled),
        error=error,
    )
    return replace(part, items=tuple(items), companions={**part.companions, INSTANCES: companions})


def _class_tables(state: FolderObjects) -> tuple[dict[str, TruthClasses], tuple[bool, ...] | None]:
    """Return the classes of each type of truth where masks do not say them, and which classes are things."""
    if state.names is None:
        tables = state.found.class_tables()
        if INSTANCES not in tables and (state.folders or state.mapped):
            names = tuple(sorted(state.file_names)) if state.folders else (state.options.single or "object",)
            tables[INSTANCES] = TruthClasses(
                names=names, palette=voc_palette(len(names) + 1)[1:], things=(True,) * len(names)
            )
        return tables, None
    stated = state.options.things
    if stated is None and state.found.map_categories:
        things = state.found.things
    elif stated is None and state.found.object_categories:
        listed = {one.name for one in state.found.object_categories}
        things = tuple(name in listed for name in state.names)
    elif stated is None:
        return {}, None
    else:
        things = tuple(name in stated for name in state.names)
    return {}, things


def _truths(
    state: FolderObjects, table: TruthClasses | None, things: Sequence[bool] | None, rule: LabelRule | None
) -> Mapping[str, TruthRule]:
    truths = state.found.truths()
    names = state.names or (table.names if table is not None else ())
    own: TruthRule = MapOfObjects(rule=_map_rule(state.options, names))
    if state.folders:
        own = EitherRule(first=FilesOfObjects(names=names), second=own, images=frozenset(state.folders))
    if state.folders or state.mapped:
        listed = truths.get(INSTANCES)
        images = frozenset(state.found.objects) | frozenset(state.found.maps)
        truths[INSTANCES] = own if listed is None else EitherRule(first=listed, second=own, images=images)
    if INSTANCES in truths and rule is not None and things is not None:
        painted = Painted(objects=truths[INSTANCES], labels=MaskLabels(rule=rule), things=things)
        maps = truths.get(SEGMENTS)
        images = frozenset(state.found.maps)
        truths[SEGMENTS] = painted if maps is None else EitherRule(first=maps, second=painted, images=images)
    return truths


def _with_segments(state: FolderObjects, part: Part, things: Sequence[bool] | None, rule: LabelRule | None) -> Part:
    """Return a split whose items with mask and objects have segments; where something lacks, it is said when asked."""
    lack = ""
    if rule is None:
        lack = "how the classes are called: data.classes=[...], or classes.json"
    elif things is None:
        lack = "which classes are things: data.instances={things: [...]}"
    items, waiting = [], []
    for item in part.items:
        if INSTANCES in item.truths and SEGMENTS not in item.truths and item.target is not None:
            waiting.append(item.image)
            if not lack:
                item = replace(item, truths={**item.truths, SEGMENTS: item.truths[INSTANCES]})
        items.append(item)
    part = replace(part, items=tuple(items))
    if not lack or not waiting or SEGMENTS in part.companions:
        return part
    error = DataError(f"masks and objects make segments once it is said {lack}", waiting[0])
    missing = Companions(label="segments", words="segments", folder=waiting[0].parent, error=error)
    return replace(part, companions={**part.companions, SEGMENTS: missing})


def _map_rule(options: InstancesOptions, names: Sequence[str]) -> InstanceRule:
    single = None
    if options.single is not None and options.single in names:
        single = list(names).index(options.single)
    elif options.single is None and len(names) <= 2:
        single = len(names) - 1  # the only class, or the one that is not the background
    meaning = options.classes
    return InstanceRule(
        num_classes=max(len(names), 1),
        meaning=meaning,
        divisor=options.divisor,
        first=0 if meaning == "divisor" else 1,
        single=None if single is None else max(single, 0),
        names=names,
    )


def _object_folder(images: Path, root: Path) -> Path:
    return root.joinpath(*(OBJECTS if part == "images" else part for part in images.relative_to(root).parts))
