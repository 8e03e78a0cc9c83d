"""Recognise by name what annotation tools and other libraries write, and say what can be done with it today.

No annotation format is read here. A folder is recognised by a few names and the first bytes of a few files, so that a
user is told "this is YOLO, its labels are text" and not "no mask". What holds masks already can be read after a rename
or with a list, and the advice says exactly how.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from segatlas.data.datasets.coco_moves import FORM, moves
from segatlas.data.formats.listing import has_images, is_hidden, is_image_name
from segatlas.printable import shell_words

MOST_FOLDERS = 60
MOST_ENTRIES = 400
HEAD_BYTES = 65536
LABELMAP_FILE = "labelmap.txt"

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "JPEGImages", "pictures", "imagesTr")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "ann_dir", "annotations", "annotation", "gt", "ground_truth", "groundtruth",
    "segmentation", "segmentations", "SegmentationClass", "SegmentationClassPNG", "labelsTr",
)  # fmt: skip

_YOLO_LINE = re.compile(r"\s*\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}\s*")
_BRUSH_FILE = re.compile(r"task-\d+-annotation-\d+.*\.(png|npy)")
_ROBOFLOW_MASK = "_mask.png"

WHERE_KEYS_GO = "add to `segatlas data check` and `segatlas train`:"
"""What stands before keys: a reader may not know that each command needs them."""
FIRST_CHANNEL = "_0000"
"""What nnU-Net ends the names of images with, for their first channel; names of masks have no such end."""

TO_MASKS = (
    "SegAtlas reads masks (one image file an image) and COCO's JSON, and not {what}. {how} Masks lie so: "
    "ROOT/images/a.jpg and ROOT/masks/a.png"
)
BRUSH_ADVICE = (
    "the masks there are Label Studio's brush labels: a file for each tag of a task, 0 and 255, and their names hold "
    "the number of the task, not the name of an image.\n"
    "Which image a task has, its JSON export says (id and data.image). Merge the files of a task into one mask, 0 = "
    "background, 1, 2, ... = its tags,\n"
    "and give it the name of the image: ROOT/images/a.jpg and ROOT/masks/a.png. Of one tag renaming is enough, with "
    '"data.label_map={0: 0, 255: 1}"'
)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A layout that is not read as it lies. evidence: the file or folder it was recognised by."""

    name: str
    evidence: Path
    advice: str

    def text(self, root: Path) -> str:
        """Return "is NAME (recognised by FILE)"."""
        shown = self.evidence.relative_to(root) if self.evidence.is_relative_to(root) else self.evidence
        return f"is {self.name} (recognised by {shown})"


def _no_masks(name: str, evidence: Path, what: str, how: str) -> Foreign:
    """Return a layout without masks. what: that which it has instead. how: a sentence on how to get masks."""
    return Foreign(name=name, evidence=evidence, advice=TO_MASKS.format(what=what, how=how))


@dataclass(frozen=True, kw_only=True)
class Tree:
    """What a look at a folder saw: files of its first three levels, a few hundred of each folder at most."""

    root: Path
    files: tuple[Path, ...]
    folders: tuple[Path, ...]

    def named(self, *names: str) -> Iterator[Path]:
        """Yield the files with one of these names."""
        return (path for path in self.files if path.name in names)

    def ending(self, ending: str) -> Iterator[Path]:
        """Yield the files with this ending."""
        return (path for path in self.files if path.suffix.lower() == ending)


@dataclass(frozen=True, kw_only=True)
class TextFiles:
    """Recognises a tool by the text of a file with a certain ending. name, what, how: as in `_no_masks`."""

    name: str
    ending: str
    fits: Callable[[str], bool]
    what: str
    how: str

    def __call__(self, tree: Tree) -> Foreign | None:
        """Return the layout if one of the first files fits."""
        path = next((path for path in _few(tree.ending(self.ending)) if self.fits(_ends(path))), None)
        return None if path is None else _no_masks(self.name, path, self.what, self.how)


def recognise(root: str | Path) -> Foreign | None:
    """Return what a folder is laid out as by another tool, or None. Looks at names and at the begin of a few files."""
    tree = _look(Path(root))
    return next((found for recogniser in RECOGNISERS if (found := recogniser(tree)) is not None), None)


def _look(root: Path) -> Tree:
    files: list[Path] = []
    folders: list[Path] = []
    level = [root]
    for _ in range(4):
        below: list[Path] = []
        for folder in level[:MOST_FOLDERS]:
            for path in _entries(folder):
                (below if path.is_dir() else files).append(path)
        folders += below
        level = below
    return Tree(root=root, files=tuple(files), folders=tuple(folders))


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_ENTRIES) if not is_hidden(entry.name))
    except OSError:
        return []
    return [folder / name for name in names]


# ---- tools that write masks
def _cvat_masks(tree: Tree) -> Foreign | None:
    for path in tree.named(LABELMAP_FILE):
        colors = read_labelmap(path)
        home = path.parent
        if not colors or not any((home / name).is_dir() for name in ("SegmentationClass", "SegmentationObject")):
            continue
        names = [name for name, _ in colors]
        table = ", ".join(f"'{r},{g},{b}': {index}" for index, (_, (r, g, b)) in enumerate(colors))
        images = "JPEGImages" if (home / "JPEGImages").is_dir() else "the folder of the images (the export has none)"
        advice = (
            f"its masks are colours and can be read: rename {images} to images and SegmentationClass to masks"
            f"{_moves((home / images, home / 'images'), (home / 'SegmentationClass', home / 'masks'))}\n"
            f"and {WHERE_KEYS_GO}\n"
            f'data.name=folder "data.classes={listed(names)}" "data.label_colors={{{table}}}"'
        )
        return Foreign(name="a CVAT export of masks", evidence=path, advice=advice)
    return None


def _label_studio_brush(tree: Tree) -> Foreign | None:
    path = next((path for path in tree.files if _BRUSH_FILE.fullmatch(path.name)), None)
    if path is None:
        return None
    return Foreign(name="a Label Studio export of brush labels", evidence=path, advice=BRUSH_ADVICE)


def _roboflow_masks(tree: Tree) -> Foreign | None:
    for path in tree.named("_classes.csv"):
        if not any(file.name.endswith(_ROBOFLOW_MASK) for file in tree.files if file.parent == path.parent):
            continue
        names = _second_column(path)
        classes = f'\n"data.classes={listed(names)}"' if names else ""
        advice = (
            "its masks hold class indices and can be read by lists: write a line `image,mask` for each X.jpg and "
            f"X{_ROBOFLOW_MASK} into train.csv and val.csv, and {WHERE_KEYS_GO}"
            f'\ndata.name=folder "data.lists={{train: train.csv, val: val.csv}}"{classes}'
        )
        return Foreign(name="a Roboflow export of masks", evidence=path, advice=advice)
    return None


def _nnunet(tree: Tree) -> Foreign | None:
    path = next((path for path in tree.named("dataset.json") if (path.parent / "labelsTr").is_dir()), None)
    if path is None:
        return None
    images = path.parent / "imagesTr"
    advice = (
        "where its files are PNG or TIFF, they can be read: name images like their masks (without _0000), then rename "
        "imagesTr to images and labelsTr to masks; volumes are read in these folders where they are .nii or .nii.gz\n"
        f"{channel_renames(images)}"
    )
    if has_images(images):
        advice += _moves((images, path.parent / "images"), (path.parent / "labelsTr", path.parent / "masks"))
    return Foreign(name="an nnU-Net dataset", evidence=path, advice=advice)


# ---- tools that write polygons, boxes or text
def _coco(tree: Tree) -> Foreign | None:
    files = [(path, text) for path in islice(tree.ending(".json"), MOST_ENTRIES) if _is_coco(path, text := _ends(path))]
    if not files:
        return None
    commands = "" if any('"segments_info"' in text for _, text in files) else moves(tree.root, files, tree.folders)
    advice = f"{FORM}. Images are moved, not copied, by:\n{commands}" if commands else FORM
    return Foreign(name="COCO annotations", evidence=files[0][0], advice=advice)


def _is_coco(path: Path, text: str) -> bool:
    has_lists = '"images"' in text and _has_one(text, '"annotations"', '"categories"')
    is_named_so = path.name.startswith(("instances_", "panoptic_")) or ".coco." in path.name
    return has_lists and (is_named_so or '"file_name"' in text)


def _supervisely(tree: Tree) -> Foreign | None:
    for path in tree.named("meta.json"):
        has_parts = any(folder.name == "ann" and path.parent in folder.parents for folder in tree.folders)
        if has_parts and '"classes"' in _ends(path):
            how = "Export masks from Supervisely ('Export as masks')."
            return _no_masks("a Supervisely project", path, "its JSON", how)
    return None


def _yolo(tree: Tree) -> Foreign | None:
    texts = _few(path for path in tree.ending(".txt") if path.parent != tree.root)
    path = next((path for path in texts if _YOLO_LINE.fullmatch(_first_line(path))), None)
    if path is None and any(folder.name == "labels" for folder in tree.folders):
        path = next((path for path in tree.named("data.yaml", "dataset.yaml") if "names" in _head(path)), None)
    how = "Where its lines are polygons, export masks or COCO from the tool that drew them; boxes are no masks."
    return None if path is None else _no_masks("YOLO", path, "labels in text files", how)


def _is_labelme(text: str) -> bool:
    return '"shapes"' in text and _has_one(text, '"imagePath"', '"imageData"')


def _is_label_studio(text: str) -> bool:
    is_full = '"result"' in text and _has_one(text, '"from_name"', '"to_name"')
    is_short = '"annotation_id"' in text and _has_one(text, '"annotator"', '"lead_time"')
    is_empty = '"annotations"' in text and '"data"' in text  # tasks that nobody has worked on
    return text.lstrip().startswith("[") and (is_full or is_short or is_empty)


def _is_via(text: str) -> bool:
    return '"_via_' in text or ('"regions"' in text and '"shape_attributes"' in text)


def _is_cvat_xml(text: str) -> bool:
    return "<annotations" in text and _has_one(text, "<version>", "<meta>", "<image ")


def _is_voc_boxes(text: str) -> bool:
    return "<annotation" in text and _has_one(text, "<object>", "<bndbox>", "<filename>")


# ---- masks under other names
def _other_names(tree: Tree) -> Foreign | None:
    """Folders of images and of masks whose names are not ours."""
    for home in (tree.root, *(folder for folder in tree.folders if folder.parent == tree.root)):
        images = _folder_with_images(home, IMAGE_FOLDERS)
        masks = _folder_with_images(home, MASK_FOLDERS)
        if images is None or masks is None:
            continue
        steps = [
            (path, path.with_name(name)) for path, name in ((images, "images"), (masks, "masks")) if path.name != name
        ]
        if steps:
            told = " and ".join(f"{old.relative_to(tree.root)} to {new.relative_to(tree.root)}" for old, new in steps)
            advice = f"rename {told}; an image and its mask need one name up to the ending{_moves(*steps)}"
            return Foreign(name="a folder of images and masks under other names", evidence=masks, advice=advice)
    return None


def _moves(*steps: tuple[Path, Path]) -> str:
    """Return a line for each rename that can be made, as a shell takes it; each begins with a line break."""
    return "".join(f"\n{shell_words(['mv', old, new])}" for old, new in steps if old.is_dir() and not new.exists())


# ---- no masks at all
def _image_classes(tree: Tree) -> Foreign | None:
    """Folders of classes below train and val, as `segatlas.data.image_classes` reads them."""
    train, val = (
        {path.name for path in tree.folders if path.parent == tree.root / split} for split in ("train", "val")
    )
    known = {name.lower() for name in (*IMAGE_FOLDERS, *MASK_FOLDERS)}
    holding = sorted(name for name in train if has_images(tree.root / "train" / name))
    if len(holding) < 2 or not val or val - train or {name.lower() for name in train} & known:
        return None
    advice = (
        "a whole image has a class here and there are no masks to look at: training begins with such images by "
        f"`segatlas train sanet_imagenet data.root={tree.root}` (`pretrain:` in a recipe), and looks at them first"
    )
    name = f"an image folder of {len(holding)} classes"
    return Foreign(name=name, evidence=tree.root / "train" / holding[0], advice=advice)


RECOGNISERS: tuple[Callable[[Tree], Foreign | None], ...] = (
    _cvat_masks,
    _label_studio_brush,
    _roboflow_masks,
    _nnunet,
    _supervisely,
    _coco,
    TextFiles(
        name="LabelMe",
        ending=".json",
        fits=_is_labelme,
        what="polygons in JSON",
        how="The labelme package installs no export of masks: draw the polygons (points are in pixels) into a PNG an "
        "image, value = class, or import them into a tool that exports masks or COCO.",
    ),
    TextFiles(
        name="a Label Studio export",
        ending=".json",
        fits=_is_label_studio,
        what="its JSON",
        how="Of polygons export 'COCO'; of brush labels 'Brush labels to NumPy and PNG', a file a label, to be merged.",
    ),
    TextFiles(
        name="a VGG Image Annotator project",
        ending=".json",
        fits=_is_via,
        what="its JSON",
        how="Of polygons it exports COCO ('Export Annotations (COCO format)'); else draw the regions as masks.",
    ),
    TextFiles(
        name="CVAT for images",
        ending=".xml",
        fits=_is_cvat_xml,
        what="annotations in XML",
        how="Export 'Segmentation mask 1.1' or, for objects, 'COCO 1.0' from CVAT.",
    ),
    TextFiles(
        name="Pascal VOC boxes",
        ending=".xml",
        fits=_is_voc_boxes,
        what="boxes in XML",
        how="These are boxes: masks have to be drawn.",
    ),
    _yolo,
    _other_names,
    _image_classes,
)
"""The first that says yes counts: the more particular a sign, the earlier."""


def read_labelmap(path: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """Return names and colours of a `labelmap.txt` (lines `name:r,g,b:parts:actions`); [] where it is another file."""
    found = []
    for line in _head(path).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        numbers = rest.partition(":")[0].split(",")
        if len(numbers) != 3 or not all(number.strip().isdigit() and int(number) <= 255 for number in numbers):
            return []
        found.append((name.strip(), (int(numbers[0]), int(numbers[1]), int(numbers[2]))))
    return found


def without_masks(root: Path) -> str:
    """Return what is to be said of a folder that has images and no folder of masks; "" of any other."""
    tree = _look(root)
    known = {name.lower() for name in MASK_FOLDERS}
    if not any(map(is_image_name, tree.files)) or any(folder.name.lower() in known for folder in tree.folders):
        return ""
    return "no masks were found: there are images, but no folder of masks, and a training needs a mask for each image"


def brush_advice(masks: Iterable[Path]) -> str:
    """Return what to do where masks without an image are Label Studio's brush labels; "" where none of them is."""
    return BRUSH_ADVICE if any(_BRUSH_FILE.fullmatch(path.name) for path in masks) else ""


def without_channel(stem: str) -> str:
    """Return the stem of the mask of an image that ends in nnU-Net's first channel; "" of another stem."""
    return stem.removesuffix(FIRST_CHANNEL) if stem.endswith(FIRST_CHANNEL) else ""


def channel_renames(folder: Path) -> str:
    """Return what to type to take nnU-Net's first channel off the names of the images of a folder."""
    files = f"{shlex.quote(str(folder))}/*{FIRST_CHANNEL}.*"
    name = f'"${{f%{FIRST_CHANNEL}.*}}.${{f##*{FIRST_CHANNEL}.}}"'
    return f'in a shell: for f in {files}; do mv "$f" {name}; done'


def masks_meant(folder: Path) -> Path | None:
    """Return the folder beside a missing folder of masks that bears another usual name, such as Masks or labels."""
    return None if folder.is_dir() else _folder_with_images(folder.parent, MASK_FOLDERS)


def _folder_with_images(home: Path, names: Iterable[str]) -> Path | None:
    """Return the first folder of that name, in capitals or not, that has images."""
    if not home.is_dir():
        return None
    there = {path.name.lower(): path for path in sorted(home.iterdir(), reverse=True)}
    found = (there.get(name.lower()) for name in names)
    return next((path for path in found if path is not None and has_images(path)), None)


def _second_column(path: Path) -> list[str]:
    rows = list(csv.reader(_head(path).splitlines()))[1:]
    return [row[1].strip() for row in rows if len(row) == 2]


def listed(names: Iterable[str]) -> str:
    """Return names as a list of a recipe, without a double quote, so that these can stand around it."""
    return "[" + ", ".join("'" + name.replace("'", "''") + "'" for name in names) + "]"


def _few(paths: Iterable[Path], count: int = 20) -> Iterator[Path]:
    return islice((path for path in paths if not is_image_name(path)), count)


def _has_one(text: str, *parts: str) -> bool:
    return any(part in text for part in parts)


def _first_line(path: Path) -> str:
    return next((line for line in _head(path).splitlines() if line.strip()), "")


def _head(path: Path) -> str:
    return _ends(path, head_only=True)


def _ends(path: Path, *, head_only: bool = False) -> str:
    """Return the begin (and the end) of a text file, as far as it can be read; "" where it cannot."""
    if not path.is_file():
        return ""
    try:
        with path.open("rb") as stream:
            begin = stream.read(HEAD_BYTES)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - HEAD_BYTES, len(begin)))
            end = b"" if head_only else stream.read(HEAD_BYTES)
    except OSError:
        return ""
    return (begin + end).decode("utf-8-sig", errors="replace")
