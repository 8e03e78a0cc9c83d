"""Annotation files of COCO's form beside images: which of their entries belong to which item, for any dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from segatlas.data.datasets.listing import Companions, Fault, Item, Part, TruthClasses, TruthRule, fault_of_list
from segatlas.data.datasets.truths import (
    INSTANCES,
    SEGMENTS,
    EitherRule,
    ImageMap,
    ImageObjects,
    ListedObjects,
    PanopticLabels,
    PanopticLabelsByFile,
    PanopticMaps,
    ThingsOf,
)
from segatlas.data.formats.coco import Category, CocoFile, CocoImage, read_coco
from segatlas.data.formats.palettes import voc_palette
from segatlas.errors import DataError

SEMANTIC = "SemanticTarget"
MOST_TOLD = 5
"""Faults of one kind that are told of one file."""

_WHOLE_FILE = "get it again from its source, or write it anew"
_REPAIRS = {
    "bad_annotation": "correct the entries, or delete them",
    "duplicate_id": "number the entries anew: each number once",
    "unknown_image": "add the images to the file's list, or delete the entries",
    "unknown_class": "add the categories to the file's list, or delete the entries",
}


@dataclass(kw_only=True)
class Annotations:
    """What annotation files say of the items of a dataset; files of several splits are added one by one.

    names: of the classes, where the dataset declares them: categories are then found by their names. categories: of the
    file of objects and of the file of maps that were read first; those of further files are found by name.
    """

    names: Sequence[str] | None = None
    ids: Mapping[int, int] | None = None
    """Category -> class where a dataset's numbers are fixed; names then do not count."""

    endings: tuple[str, ...] = ()
    """What the names of images end with in the files, and the items' keys do not."""

    object_classes: Mapping[int, int] | None = None
    """Class of a map -> class of its objects, where a dataset says it."""

    object_categories: tuple[Category, ...] = ()
    map_categories: tuple[Category, ...] = ()
    objects: dict[Path, ImageObjects] = field(default_factory=dict)
    maps: dict[Path, ImageMap] = field(default_factory=dict)
    map_files: dict[Path, Path] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def add_objects(self, part: Part, path: Path) -> Part:
        """Return a split whose items have the objects that a file lists. A file that cannot be read is a fault."""
        file = self._read(path)
        if isinstance(file, DataError):
            return _with_error(part, INSTANCES, "files of objects", path, file)
        self.object_categories = self.object_categories or file.categories
        classes = self._classes(file, self.object_categories)
        items, lost = [], []
        found = matched(part.items, file.images, self.endings)
        for item in part.items:
            image = found.get(item.key)
            if image is None:
                lost.append(item.image)
                items.append(item)
                continue
            self.objects[item.image] = ImageObjects(
                objects=tuple(file.objects.get(image.id, ())), size=image.size, classes=classes
            )
            items.append(replace(item, truths={**item.truths, INSTANCES: path}))
        self._images_without_file(file, found, path)
        missing = Companions(
            label="lists of objects",
            words=f"entry in {path.name}",
            folder=path,
            missing=tuple(lost),
            error=DataError(f"has no entry in the list of images of {path}", lost[0]) if lost else None,
        )
        return replace(part, items=tuple(items), companions={**part.companions, INSTANCES: missing})

    def add_maps(self, part: Part, path: Path, folder: Path, *, as_masks: bool) -> Part:
        """Return a split whose items have the panoptic maps that a file lists and a folder holds.

        as_masks: the maps are the items' masks, too; images without map are then images without mask.
        """
        file = self._read(path)
        if isinstance(file, DataError):
            return _with_error(part, SEGMENTS, "panoptic maps", path, file)
        self.map_categories = self.map_categories or file.categories
        classes = self._classes(file, self.map_categories)
        items, lost = [], []
        found = matched(part.items, file.images, self.endings)
        for item in part.items:
            image = found.get(item.key)
            table = None if image is None else file.maps.get(image.id)
            png = None if table is None else folder / table.file_name
            if table is None or png is None or not png.is_file():
                lost.append(item.image)
                items += [] if as_masks else [item]
                continue
            self.maps[item.image] = ImageMap(map=table, classes=classes)
            self.map_files[item.image] = png
            truths = {**item.truths, SEGMENTS: png}
            items.append(replace(item, truths=truths, target=png if as_masks else item.target))
        self._images_without_file(file, found, path)
        error = DataError(f"has no mask: no panoptic map in {folder} that {path} lists", lost[0]) if lost else None
        missing = () if as_masks else tuple(lost)
        maps = Companions(label="panoptic maps", words="panoptic map", folder=folder, missing=missing, error=error)
        return replace(
            part,
            items=tuple(items),
            images_without_mask=(*part.images_without_mask, *(lost if as_masks else ())),
            companions={**part.companions, SEGMENTS: maps},
            error=part.error or (error if as_masks else None),
        )

    def truths(self) -> dict[str, TruthRule]:
        """Return how the truths are read, by the name of their type."""
        rules: dict[str, TruthRule] = {}
        if self.objects:
            rules[INSTANCES] = ListedObjects(entries=self.objects)
        if self.maps:
            maps = PanopticMaps(entries=self.maps, things=self.things)
            rules[SEGMENTS] = maps
            things = ThingsOf(maps=replace(maps, name=INSTANCES), classes=self.class_of_thing)
            listed = rules.get(INSTANCES)
            rules[INSTANCES] = (
                things if listed is None else EitherRule(first=listed, second=things, images=frozenset(self.objects))
            )
        return rules

    def with_things(self, part: Part) -> Part:
        """Return a split whose items without a list of objects have the things of their maps as objects."""
        items = []
        for item in part.items:
            truths = dict(item.truths)
            if SEGMENTS in truths and INSTANCES not in truths:
                truths[INSTANCES] = truths[SEGMENTS]
            items.append(replace(item, truths=truths))
        return replace(part, items=tuple(items))

    def label_rules(self) -> PanopticLabelsByFile | None:
        """Return how maps become classes; None where there is no map."""
        if not self.maps:
            return None
        maps = PanopticMaps(entries=self.maps, things=self.things)
        rules: dict[Path, PanopticLabels] = {}
        for image, png in self.map_files.items():
            rules[png] = maps.label_rule(Item(key="", image=image))
        return PanopticLabelsByFile(num_classes=len(self.things), rules=rules)

    def class_tables(self) -> dict[str, TruthClasses]:
        """Return the classes of each type of truth, where the files alone say them."""
        tables: dict[str, TruthClasses] = {}
        if self.map_categories:
            tables[SEGMENTS] = tables[SEMANTIC] = _table(self.map_categories)
        things = [one for one in self.map_categories if one.is_thing]
        if self.object_categories or things:
            tables[INSTANCES] = _table(self.object_categories or things)
        return tables

    @property
    def things(self) -> tuple[bool, ...]:
        """By class of the maps, whether it is a thing."""
        if self.names is None:
            return tuple(one.is_thing for one in self.map_categories)
        ids = self.ids or {}
        flags = {self.names[ids[one.id]] if one.id in ids else one.name: one.is_thing for one in self.map_categories}
        return tuple(flags.get(name, False) for name in self.names)

    @property
    def class_of_thing(self) -> dict[int, int]:
        """Class of a map -> class of its objects."""
        if self.object_classes is not None:
            return dict(self.object_classes)
        kinds = [index for index, is_thing in enumerate(self.things) if is_thing]
        if self.names is not None:
            return {kind: kind for kind in kinds}
        if self.object_categories:
            places = {one.name: place for place, one in enumerate(self.object_categories)}
            return {kind: places[name] for kind in kinds if (name := self.map_categories[kind].name) in places}
        return {kind: place for place, kind in enumerate(kinds)}

    def _classes(self, file: CocoFile, first: Sequence[Category]) -> dict[int, int]:
        """Return category -> class of a file; one whose name no class has is left out, and told."""
        if self.ids is not None:
            return {one.id: self.ids[one.id] for one in file.categories if one.id in self.ids}
        names = list(self.names) if self.names is not None else [one.name for one in first]
        lost = [one.name for one in file.categories if one.name not in names]
        if lost:
            shown = ", ".join(map(repr, lost[:MOST_TOLD])) + (f" and {len(lost) - MOST_TOLD} more" if lost[5:] else "")
            self._fault(
                "unknown_class", file.path, f"categories {shown} are none of the dataset's {len(names)} classes"
            )
        return {one.id: names.index(one.name) for one in file.categories if one.name in names}

    def _read(self, path: Path) -> CocoFile | DataError:
        try:
            file = read_coco(path)
        except DataError as error:
            self.faults.append(fault_of_list(error, _WHOLE_FILE, kind="annotation_file"))
            return error
        told: dict[str, list[str]] = {}
        for kind, text in file.faults:
            told.setdefault(kind, []).append(text)
        for kind, texts in told.items():
            more = f"; and {len(texts) - MOST_TOLD} more" if len(texts) > MOST_TOLD else ""
            self._fault(kind, path, "; ".join(texts[:MOST_TOLD]) + more)
        return file

    def _images_without_file(self, file: CocoFile, found: Mapping[str, CocoImage], path: Path) -> None:
        used = {image.id for image in found.values()}
        lost = [image.file_name for image in file.images if image.id not in used]
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            text = f"lists {lost[0]}{more}, which are not there as images of this split"
            fault = Fault(
                kind="list",
                files=(path,),
                fault=text,
                repair="restore the images, or take their entries out of the file",
            )
            self.faults.append(fault)

    def _fault(self, kind: str, path: Path, text: str) -> None:
        self.faults.append(Fault(kind=kind, files=(path,), fault=text, repair=_REPAIRS[kind]))


def matched(items: Iterable[Item], images: Sequence[CocoImage], endings: Sequence[str] = ()) -> dict[str, CocoImage]:
    """Return the listed image of each item by its key: that of the same path without ending, else of the same name."""
    by_path: dict[str, CocoImage] = {}
    by_name: dict[str, list[CocoImage]] = {}
    for one in images:
        path = PurePosixPath(one.file_name.replace("\\", "/")).with_suffix("")  # tools on Windows write \\
        ending = next((ending for ending in endings if path.name.endswith(ending) and path.name != ending), "")
        path = path.with_name(path.name.removesuffix(ending))
        by_path[path.as_posix()] = one
        by_name.setdefault(path.name, []).append(one)
    found = {}
    for item in items:
        same = by_name.get(PurePosixPath(item.key).name, [])
        image = by_path.get(item.key) or (same[0] if len(same) == 1 else None)
        if image is not None:
            found[item.key] = image
    return found


def _table(categories: Sequence[Category]) -> TruthClasses:
    """Return categories as classes; with made colours, none of them black, where the file gives none to some."""
    own = tuple(one.color for one in categories if one.color is not None)
    return TruthClasses(
        names=tuple(one.name for one in categories),
        palette=own if len(own) == len(categories) else voc_palette(len(categories) + 1)[1:],
        things=tuple(one.is_thing for one in categories),
    )


def _with_error(part: Part, name: str, label: str, path: Path, error: DataError) -> Part:
    broken = Companions(label=label, words=f"entry in {path.name}", folder=path, error=error)
    return replace(part, companions={**part.companions, name: broken})
