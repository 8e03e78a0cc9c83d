"""Tiny folders as annotation tools write them: the true layout, a few images, the files that say which tool it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fakes.broken import COLORS, SIZE, image_of, label_of, save
from fakes.image_classes import write_image_classes

CVAT_COLORS = {"background": (0, 0, 0), "car": (200, 30, 60), "tree": (30, 180, 90)}


def _images(folder: Path, count: int = 3, ending: str = ".jpg", first: int = 0) -> list[Path]:
    paths = [folder / f"{number:03d}{ending}" for number in range(first, first + count)]
    for number, path in enumerate(paths, start=first):
        save(path, image_of(number))
    return paths


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _coco(path: Path, names: Sequence[str]) -> None:
    """A triangle of a car in each image, in COCO's form."""
    height, width = SIZE
    images = [{"id": i + 1, "file_name": name, "width": width, "height": height} for i, name in enumerate(names)]
    outline = {"segmentation": [[2, 2, 22, 2, 22, 22]], "bbox": [2, 2, 20, 20], "area": 200, "iscrowd": 0}
    entries = [{"id": i + 1, "image_id": i + 1, "category_id": 1, **outline} for i in range(len(names))]
    categories = [{"id": 1, "name": "car"}]
    _text(path, json.dumps({"info": {}, "categories": categories, "images": images, "annotations": entries}))


def coco_roboflow(root: Path) -> None:
    """Roboflow's COCO: {train,valid}/_annotations.coco.json beside the images."""
    for number, split in enumerate(("train", "valid")):
        paths = _images(root / split, first=50 * number)
        _coco(root / split / "_annotations.coco.json", [path.name for path in paths])


def coco_cvat(root: Path) -> None:
    """CVAT's COCO 1.0 with images: annotations/instances_default.json and images/default/."""
    paths = _images(root / "images" / "default")
    _coco(root / "annotations" / "instances_default.json", [path.name for path in paths])


def coco_cvat_flat(root: Path) -> None:
    """The same as older versions write it, with images/ alone."""
    paths = _images(root / "images")
    _coco(root / "annotations" / "instances_default.json", [path.name for path in paths])


def coco_label_studio(root: Path) -> None:
    """Label Studio's COCO: result.json, whose images are named from its own folder."""
    paths = _images(root / "images")
    _coco(root / "result.json", [f"images/{path.name}" for path in paths])


def coco_label_studio_windows(root: Path) -> None:
    """The same from a server on Windows."""
    paths = _images(root / "images")
    _coco(root / "result.json", [f"images\\{path.name}" for path in paths])


def coco_in_one_folder(root: Path) -> None:
    """Images of two endings and one JSON, side by side, and a note."""
    paths = [*_images(root, 2), *_images(root, 2, ".png", first=50)]
    _coco(root / "labels.json", [path.name for path in paths])
    _text(root / "README.txt", "exported\n")


def coco_next_to_images(root: Path) -> None:
    """The form in which FiftyOne and CVAT write it: images/ and one JSON."""
    _coco(root / "labels.json", [path.name for path in _images(root / "images")])


def coco_untouched(root: Path) -> None:
    """COCO's files before anybody drew anything."""
    _images(root / "train")
    _text(root / "train" / "_annotations.coco.json", json.dumps({"images": [], "annotations": [], "categories": []}))


def labelme(root: Path) -> None:
    """One JSON beside each image."""
    for path in _images(root):
        shapes = [{"label": "car", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}]
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": path.name, "imageData": None}
        _text(path.with_suffix(".json"), json.dumps(content))


def labelme_apart(root: Path) -> None:
    """images/ and labels/ with one JSON an image."""
    for path in _images(root / "images"):
        content = {"version": "5.4.1", "shapes": [], "imagePath": f"../images/{path.name}"}
        _text(root / "labels" / f"{path.stem}.json", json.dumps(content))


def cvat_xml(root: Path) -> None:
    """CVAT for images 1.1: annotations.xml and images/."""
    _images(root / "images")
    image = '<image id="0" name="000.jpg" width="48" height="40"><polygon label="car" points="1,1;9,1;9,9"/></image>'
    _text(root / "annotations.xml", f'<?xml version="1.0"?><annotations><version>1.1</version>{image}</annotations>')


def cvat_masks(
    root: Path,
    *,
    with_images: bool = True,
    colors: Mapping[str, tuple[int, int, int]] = CVAT_COLORS,
    subset: str = "default",
) -> None:
    """CVAT's segmentation mask 1.1: colours in VOC's folders, and labelmap.txt."""
    if with_images:
        _images(root / "JPEGImages", 6)
    for number in range(6):
        save(root / "SegmentationClass" / f"{number:03d}.png", COLORS[label_of(number, 3)])
        save(root / "SegmentationObject" / f"{number:03d}.png", COLORS[label_of(number, 3)])
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in colors.items()]
    _text(root / "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n")
    _text(root / f"ImageSets/Segmentation/{subset}.txt", "".join(f"{number:03d}\n" for number in range(6)))


def cvat_masks_alone(root: Path) -> None:
    """The same export without its images."""
    cvat_masks(root, with_images=False)


VOC_COLORS = {"background": (0, 0, 0), "car": (128, 128, 128), "person": (192, 128, 128)}


def cvat_masks_of_voc(root: Path) -> None:
    """The same export, of classes that VOC has too, with VOC's colours."""
    cvat_masks(root, colors=VOC_COLORS)


def cvat_masks_of_voc_train(root: Path) -> None:
    """The same of a CVAT subset called train, so that its list is called as VOC's."""
    cvat_masks(root, colors=VOC_COLORS, subset="train")


def label_studio(root: Path) -> None:
    """Label Studio's JSON beside the images."""
    _images(root / "images")
    result = [{"from_name": "label", "to_name": "image", "type": "polygonlabels", "value": {"points": [[1, 1]]}}]
    tasks = [{"id": 1, "annotations": [{"id": 1, "result": result}], "data": {"image": "/data/upload/000.jpg"}}]
    _text(root / "project-1.json", json.dumps(tasks))


def label_studio_untouched(root: Path) -> None:
    """Label Studio's tasks before anybody worked on them."""
    _images(root / "images")
    _text(root / "result.json", json.dumps([{"id": 1, "annotations": [], "data": {"image": "a.jpg"}}]))


def label_studio_short(root: Path) -> None:
    """Label Studio's JSON_MIN."""
    _images(root / "images")
    _text(root / "project.json", json.dumps([{"image": "a.jpg", "id": 1, "annotator": 1, "annotation_id": 3}]))


def label_studio_brush(root: Path) -> None:
    """One PNG a label and task."""
    for number in range(3):
        save(root / f"task-{number}-annotation-1-by-1-tag-car-0.png", label_of(number) * 255)


def yolo(root: Path) -> None:
    """images/{train,val}, labels/{train,val} and data.yaml, polygons."""
    for split in ("train", "val"):
        for path in _images(root / "images" / split):
            _text(root / "labels" / split / f"{path.stem}.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    _text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [car]\n")


def yolo_split_first(root: Path) -> None:
    """{train,valid}/{images,labels} as Roboflow writes it, boxes."""
    for split in ("train", "valid"):
        for path in _images(root / split / "images"):
            _text(root / split / "labels" / f"{path.stem}.txt", "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.2 0.2\n")
    _text(root / "data.yaml", "train: ../train/images\nnc: 2\nnames: ['a', 'b']\n")


def yolo_flat(root: Path) -> None:
    """images/, labels/, classes.txt, as Label Studio writes it."""
    for path in _images(root / "images"):
        _text(root / "labels" / f"{path.stem}.txt", "0 0.5 0.5 0.25 0.25\n")
    _text(root / "classes.txt", "car\ntree\n")


def yolo_empty(root: Path) -> None:
    """A YOLO set whose label files are empty: no object anywhere."""
    for path in _images(root / "train" / "images"):
        _text(root / "train" / "labels" / f"{path.stem}.txt", "")
    _text(root / "data.yaml", "train: train/images\nnames: [car]\n")


def voc_boxes(root: Path) -> None:
    """Pascal VOC detection: JPEGImages/, Annotations/*.xml, ImageSets/Main/."""
    for path in _images(root / "JPEGImages"):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        text = f"<annotation><filename>{path.name}</filename><object><name>car</name>{box}</object></annotation>"
        _text(root / "Annotations" / f"{path.stem}.xml", text)
    _text(root / "ImageSets/Main/train.txt", "000\n")


def supervisely(root: Path) -> None:
    """A project: meta.json and DATASET/{img,ann}."""
    _text(root / "meta.json", json.dumps({"classes": [{"title": "car", "shape": "polygon"}], "tags": []}))
    for path in _images(root / "ds0" / "img"):
        _text(root / "ds0" / "ann" / f"{path.name}.json", json.dumps({"size": {"height": 40}, "objects": []}))


def via(root: Path) -> None:
    """The VGG Image Annotator's project file beside the images."""
    _images(root)
    _text(root / "via_project.json", json.dumps({"_via_settings": {}, "_via_img_metadata": {}}))


def roboflow_masks(root: Path) -> None:
    """Roboflow's semantic masks: X.jpg, X_mask.png and _classes.csv in each split."""
    for split in ("train", "valid"):
        for number, path in enumerate(_images(root / split, 3 if split == "train" else 2)):
            offset = 0 if split == "train" else 50
            save(path, image_of(number + offset))
            save(path.with_name(f"{path.stem}_mask.png"), label_of(number, 3))
        _text(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, car\n2, tree\n")


def nnunet(root: Path) -> None:
    """imagesTr/, labelsTr/ and dataset.json."""
    for number in range(3):
        save(root / "imagesTr" / f"case_{number:03d}_0000.png", image_of(number))
        save(root / "labelsTr" / f"case_{number:03d}.png", label_of(number))
    _text(root / "dataset.json", json.dumps({"labels": {"background": 0, "car": 1}, "file_ending": ".png"}))


def mmseg(root: Path) -> None:
    """MMSegmentation's folders of an own set: img_dir/{split}, ann_dir/{split}."""
    for part, split in enumerate(("train", "val")):
        for number in range(3):
            save(root / "img_dir" / split / f"{number}.png", image_of(number + 50 * part))
            save(root / "ann_dir" / split / f"{number}.png", label_of(number))


TOOLS: dict[str, tuple[Callable[[Path], object], str]] = {
    "coco_roboflow": (coco_roboflow, "COCO annotations"),
    "coco_cvat": (coco_cvat, "COCO annotations"),
    "coco_cvat_flat": (coco_cvat_flat, "COCO annotations"),
    "coco_label_studio": (coco_label_studio, "COCO annotations"),
    "coco_label_studio_windows": (coco_label_studio_windows, "COCO annotations"),
    "coco_in_one_folder": (coco_in_one_folder, "COCO annotations"),
    "coco_next_to_images": (coco_next_to_images, "COCO annotations"),
    "coco_untouched": (coco_untouched, "COCO annotations"),
    "labelme": (labelme, "LabelMe"),
    "labelme_apart": (labelme_apart, "LabelMe"),
    "cvat_xml": (cvat_xml, "CVAT for images"),
    "cvat_masks": (cvat_masks, "a CVAT export of masks"),
    "cvat_masks_alone": (cvat_masks_alone, "a CVAT export of masks"),
    "cvat_masks_of_voc": (cvat_masks_of_voc, "a CVAT export of masks"),
    "cvat_masks_of_voc_train": (cvat_masks_of_voc_train, "a CVAT export of masks"),
    "label_studio": (label_studio, "a Label Studio export"),
    "label_studio_untouched": (label_studio_untouched, "a Label Studio export"),
    "label_studio_short": (label_studio_short, "a Label Studio export"),
    "label_studio_brush": (label_studio_brush, "a Label Studio export of brush labels"),
    "yolo": (yolo, "YOLO"),
    "yolo_split_first": (yolo_split_first, "YOLO"),
    "yolo_flat": (yolo_flat, "YOLO"),
    "yolo_empty": (yolo_empty, "YOLO"),
    "voc_boxes": (voc_boxes, "Pascal VOC boxes"),
    "supervisely": (supervisely, "a Supervisely project"),
    "via": (via, "a VGG Image Annotator project"),
    "roboflow_masks": (roboflow_masks, "a Roboflow export of masks"),
    "nnunet": (nnunet, "an nnU-Net dataset"),
    "mmseg": (mmseg, "a folder of images and masks under other names"),
    "image_classes": (write_image_classes, "an image folder of 3 classes"),
}
"""Name of the layout -> its writer, and what it must be called."""
