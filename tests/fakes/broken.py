"""A small sound folder dataset of two classes, and one function for each way to break it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from fakes.images import raw_png
from PIL import Image

from segatlas.data.shapes import make_shapes

SIZE = (40, 48)
COLORS = np.array([(0, 0, 0), (200, 30, 60), (30, 180, 90)], np.uint8)


def label_of(number: int, classes: int = 2, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return (H, W) uint8 labels: discs of the classes on class 0."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    label = np.zeros(size, np.uint8)
    for index in range(1, classes):
        row, column = 8 + 2 * (number % 3) + 10 * (index - 1), 12 + number % 5 + 16 * (index - 1)
        label[(rows - row) ** 2 + (columns - column) ** 2 < 49] = index
    return label


def image_of(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return an (H, W, 3) uint8 image, another one for every number."""
    return np.random.default_rng(number).integers(0, 256, (*size, 3)).astype(np.uint8)


def write_sound(root: Path, counts: dict[str, int] | None = None, classes: int = 2) -> Path:
    """Write ROOT/SPLIT/{images,masks}/NNN.png without any fault."""
    for part, (split, count) in enumerate((counts or {"train": 6, "val": 2}).items()):
        for index in range(count):
            number = 100 * part + index
            save(root / split / "images" / f"{number:03d}.png", image_of(number))
            save(root / split / "masks" / f"{number:03d}.png", label_of(number, classes))
    return root


def save(path: Path, array: np.ndarray, **options: object) -> None:
    """Write an array as an image file of any ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def change_masks(root: Path, change: Callable[[np.ndarray], np.ndarray], pattern: str = "*/masks/*.png") -> list[Path]:
    """Rewrite the masks that a pattern names and return them."""
    paths = sorted(root.glob(pattern))
    for path in paths:
        save(path, change(np.asarray(Image.open(path))))
    return paths


def out_of_range(root: Path) -> Path:
    path = root / "train/masks/002.png"
    label = np.array(Image.open(path))
    label[:3, :4] = 89
    save(path, label)
    return path


def black_white(root: Path) -> None:
    change_masks(root, lambda label: label * 255)


def colored(root: Path) -> None:
    change_masks(root, lambda label: COLORS[label])


def enlarge(label: np.ndarray) -> np.ndarray:
    """Return a label after a trip through half its size with smooth interpolation."""
    small = cv2.resize(label, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(small, label.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def smoothed(root: Path) -> None:
    change_masks(root, lambda label: enlarge(label * 255))


def jpeg_masks(root: Path) -> None:
    for path in sorted(root.glob("*/masks/*.png")):
        label = np.asarray(Image.open(path)) * 255
        save(path.with_suffix(".jpg"), label, quality=60)
        path.unlink()


def missing_mask(root: Path) -> Path:
    (root / "train/masks/001.png").unlink()
    return root / "train/images/001.png"


def missing_image(root: Path) -> Path:
    (root / "train/images/001.png").unlink()
    return root / "train/masks/001.png"


def empty_file(root: Path) -> Path:
    path = root / "train/images/001.png"
    path.write_bytes(b"")
    return path


def truncated(root: Path) -> Path:
    path = root / "train/images/001.png"
    path.write_bytes(path.read_bytes()[:-900])
    return path


def text_as_png(root: Path) -> Path:
    path = root / "val/masks/100.png"
    path.write_text("this is no image")
    return path


def bomb(root: Path) -> Path:
    path = root / "train/images/001.png"
    path.write_bytes(raw_png([b"\0" * 10], 60000, 8, 0, height=60000))
    return path


def half_size(root: Path) -> Path:
    path = root / "train/masks/001.png"
    save(path, label_of(1)[::2, ::2])
    return path


def other_ratio(root: Path) -> Path:
    path = root / "train/masks/001.png"
    save(path, label_of(1)[:, :20])
    return path


def exif_turned(root: Path) -> Path:
    """An image that a camera stored on its side, with a mask drawn on the stored pixels."""
    path = root / "train/images/001.png"
    path.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    path = path.with_suffix(".jpg")
    save(path, image_of(1), exif=exif, quality=95)
    return path


def leaked(root: Path) -> tuple[Path, Path]:
    save(root / "val/images/100.png", image_of(3))
    return root / "train/images/003.png", root / "val/images/100.png"


def duplicate_stem(root: Path) -> Path:
    path = root / "train/images/001.bmp"
    save(path, image_of(77))
    return path


def empty_split(root: Path, split: str = "test") -> Path:
    for folder in ("images", "masks"):
        shutil.rmtree(root / split / folder, ignore_errors=True)
        (root / split / folder).mkdir(parents=True)
    return root / split / "images"


def deep_image(root: Path) -> Path:
    path = root / "train/images/001.png"
    cv2.imwrite(str(path), image_of(1).astype(np.uint16) * 257)
    return path


def other_channels(root: Path) -> Path:
    import tifffile

    (root / "train/images/001.png").unlink()
    path = root / "train/images/001.tif"
    tifffile.imwrite(path, np.zeros((5, *SIZE), np.uint8), photometric="minisblack")
    return path


def single_class(root: Path) -> None:
    change_masks(root, lambda label: label * 0)


def without_train(root: Path) -> None:
    (root / "train").rename(root / "test")


def without_val(root: Path) -> None:
    """One image in train, and no val: nothing can be held out."""
    for path in [*root.glob("val/*/*"), *root.glob("train/*/*")]:
        if path.name != "000.png" or "val" in path.parts:
            path.unlink()
    for folder in (root / "val/images", root / "val/masks", root / "val"):
        folder.rmdir()


def without_labels(root: Path, split: str = "train") -> None:
    change_masks(root, lambda label: np.full_like(label, 255), f"{split}/masks/*.png")


def without_images(root: Path) -> None:
    for path in root.glob("*/*/*.png"):
        path.unlink()


def other_layout(root: Path) -> None:
    (root / "train").rename(root / "learn")
    (root / "val").rename(root / "look")


def damaged_classes(root: Path) -> Path:
    path = root / "classes.json"
    path.write_text('["ground", ')
    return path


def repeated_in_val(root: Path) -> None:
    """val is train once more, file by file."""
    for kind in ("images", "masks"):
        for path in sorted((root / "val" / kind).iterdir()):
            path.unlink()
        for path in sorted((root / "train" / kind).iterdir()):
            (root / "val" / kind / path.name).write_bytes(path.read_bytes())


def mixed_black_white(root: Path) -> None:
    change_masks(root, lambda label: label * 255, "train/masks/00[01].png")


def half_size_before(root: Path) -> Path:
    """Give each image one of an earlier date; that of the first training image has half its size."""
    for images in root.glob("*/images"):
        for path in images.iterdir():
            target = images.parent / "before" / path.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    path = min((root / "train" / "before").iterdir())
    with Image.open(path) as image:
        half = image.resize((image.width // 2, image.height // 2))
    half.save(path)
    return path


def grey_before(root: Path) -> Path:
    """Give each image one of an earlier date; that of the first training image is grey."""
    path = half_size_before(root)
    with Image.open(root / "train" / "images" / path.name) as image:
        image.convert("L").save(path)
    return path


def prior_of_another_class(root: Path) -> Path:
    """Give each image a prior of ground alone; that of the first training image holds the code 7."""
    for images in root.glob("*/images"):
        for path in images.iterdir():
            target = images.parent / "prior" / f"{path.stem}.png"
            target.parent.mkdir(exist_ok=True)
            with Image.open(path) as image:
                Image.new("L", image.size).save(target)
    path = min((root / "train" / "prior").iterdir())
    with Image.open(path) as image:
        Image.new("L", image.size, 7).save(path)
    return path


def shapes_instead(root: Path) -> Path:
    """Put a generated set with maps of objects in the place of a set."""
    shutil.rmtree(root)
    return make_shapes(root, train=3, val=2, test=1, size=(48, 64))


def missing_objects(root: Path) -> Path:
    """A generated set in which an image of train has no map of objects."""
    (shapes_instead(root) / "train/instances/0001.png").unlink()
    return root / "train/images/0001.png"


def unknown_object(root: Path) -> Path:
    """A generated set in which a map of objects holds a number of no class."""
    save(shapes_instead(root) / "train/instances/0001.png", np.full((48, 64), 300, np.uint16))
    return root / "train/instances/0001.png"


def empty_box(root: Path) -> Path:
    """Give train boxes in place of masks, one of them without area."""
    shutil.rmtree(root / "train/masks")
    rows = [f"{path.stem},disc,2,3,20,30" for path in sorted((root / "train/images").iterdir())]
    rows[1] = rows[1].replace("20,30", "2,30")
    (root / "train/boxes.csv").write_text("\n".join(["image,class,x0,y0,x1,y1", *rows]) + "\n")
    (root / "classes.json").write_text('["ground", "disc"]')
    return root / "train/boxes.csv"


def without_objects(root: Path, split: str = "val") -> list[Path]:
    """A generated set in which no map of a split shows an object."""
    files = sorted((shapes_instead(root) / split / "instances").iterdir())
    for path in files:
        save(path, np.zeros((48, 64), np.uint16))
    return files
