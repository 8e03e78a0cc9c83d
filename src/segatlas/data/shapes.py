"""The generated dataset `shapes`: textured objects on textured ground, labels for all three tasks from one seed.

A scene shows 4 to 8 objects, or as many as asked for, that may hide one another: discs, squares and triangles, rings
with a hole, thin bars and crosses, a third of them small. Texture and hue lean towards the class but overlap widely, so
that colour alone does not tell the classes apart. Light falls off across the scene, objects cast soft shadows, and the
sensor adds noise.

Letters: H, W image; u, v an object's own axes in pixels; r its radius. A scene depends on (seed, split, index) only.

What is written, the folder dataset's layout and more:

    ROOT/classes.json                          names and colours, index 0 is the ground
    ROOT/shapes.json                           seed, size and counts that it was made with
    ROOT/{split}/images/0000.png               RGB
    ROOT/{split}/masks/0000.png                class index, with palette
    ROOT/{split}/instances/0000.png            16 bits: class * 1000 + n for objects, 0 = ground
    ROOT/{split}/panoptic/0000.png             segment id = R + 256 G + 65536 B
    ROOT/annotations/instances_{split}.json    COCO, run-length masks
    ROOT/annotations/panoptic_{split}.json     COCO panoptic
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.masks import write_mask
from segatlas.data.formats.rle import encode_rle
from segatlas.errors import DataError, UsageError
from segatlas.files import whole_folder

GROUND = "ground"
GROUND_SEGMENT = 1
META_FILE = "shapes.json"
SHAPES = ("disc", "square", "triangle", "ring", "bar", "cross")
OBJECTS = (4, 8)
"""The least and the largest number of objects in a scene."""
MOST_OBJECTS = 50
COLORS = {
    GROUND: (96, 96, 96),
    "disc": (230, 75, 60),
    "square": (60, 120, 220),
    "triangle": (70, 180, 90),
    "ring": (240, 190, 50),
    "bar": (160, 90, 200),
    "cross": (60, 200, 210),
}
_SPLITS = ("train", "val", "test")

Distance = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One generated sample.

    image: (H, W, 3) uint8. classes: (H, W) uint8, 0 = ground. instances: (H, W) uint16, class * 1000 + n, 0 = ground.
    """

    image: np.ndarray
    classes: np.ndarray
    instances: np.ndarray


def make_shapes(
    root: str | Path,
    *,
    train: int = 64,
    val: int = 16,
    test: int = 16,
    size: tuple[int, int] = (128, 160),
    seed: int = 0,
    classes: Sequence[str] = SHAPES,
    objects: tuple[int, int] = OBJECTS,
    processes: int = 1,
) -> Path:
    """Write the dataset; `root` appears when all of it is there.

    Args:
        root: folder to make; must be missing or empty.
        train: images in train; likewise val and test.
        val: images in val.
        test: images in test.
        size: (H, W) of every image, at least 32 each way.
        seed: what all scenes follow from.
        classes: kinds of objects, some of SHAPES; class indices follow this order, from 1.
        objects: the least and the largest number of objects in a scene, where all of them find room.
        processes: that draw at once. More than one needs a program that can be started anew, as those of
            `multiprocessing` do; the files are the same.

    Returns:
        The root.

    Raises:
        DataError: the folder is not empty, or cannot be written.
        UsageError: unknown kind of object, a size below 32, or numbers of objects that are none.
    """
    unknown = [name for name in classes if name not in SHAPES]
    if unknown or not classes:
        raise UsageError(f"shapes: {unknown[0] if unknown else 'no class'}; expected some of {', '.join(SHAPES)}")
    if min(size) < 32:
        raise UsageError(f"shapes: size {size[0]} x {size[1]}; expected at least 32 x 32")
    if not 1 <= objects[0] <= objects[1] <= MOST_OBJECTS:
        raise UsageError(f"shapes: {objects[0]} to {objects[1]} objects; expected 1 to {MOST_OBJECTS}, rising")
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError("exists and is not empty; nothing was written", root)
    counts = dict(zip(_SPLITS, (train, val, test), strict=True))
    with whole_folder(root, durable=False) as temporary, _mapping(processes) as mapped:
        kinds = tuple(classes)
        for split, count in counts.items():
            scene = partial(_write_scene, temporary / split, size=size, seed=seed, classes=kinds, objects=objects)
            _write_annotations(temporary, split, size, kinds, mapped(scene, range(count)))
        names = (GROUND, *classes)
        write_classes(temporary / JSON_FILE, names, [COLORS[name] for name in names])
        made_with = {"seed": seed, "size": list(size), "classes": list(classes), "objects": list(objects), **counts}
        _write_json(temporary / META_FILE, made_with)
    return root


def draw_scene(
    seed: int,
    split: str,
    index: int,
    size: tuple[int, int] = (128, 160),
    classes: Sequence[str] = SHAPES,
    objects: tuple[int, int] = OBJECTS,
) -> Scene:
    """Draw one scene of (H, W) pixels; the same arguments give the same pixels."""
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    light = rng.uniform(0, 2 * np.pi)
    ground = rng.uniform(0.15, 0.85, 3) * 0.6 + 0.2
    canvas = _ground(rng, size, ground)
    labels, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    drawn = np.zeros(len(classes), int)
    wanted = rng.permutation(np.resize(rng.permutation(len(classes)), rng.integers(objects[0], objects[1] + 1)))
    for kind in wanted:
        placed = _place(rng, size, classes[kind], labels > 0)
        if placed is None:
            continue
        _paint(rng, canvas, placed, kind, len(classes), ground, light)
        inside = placed.alpha > 0.5
        labels[placed.box][inside] = kind + 1
        instances[placed.box][inside] = (kind + 1) * 1000 + drawn[kind]
        drawn[kind] += 1
    return Scene(image=_expose(rng, canvas, light), classes=labels, instances=instances)


def draw_large_scene(
    seed: int, tiles: tuple[int, int], size: tuple[int, int] = (128, 160), classes: Sequence[str] = SHAPES
) -> Scene:
    """Draw a scene as large as rows x columns of scenes of (H, W) pixels: as many objects, each as large as in those.

    No object leaves the scene or ends anywhere else, and the ground goes on from each tile into the next; so a network
    that learned such scenes sees in any part of it what it learned. The same arguments give the same pixels.
    """
    rng = np.random.default_rng([seed, len(_SPLITS), *tiles])
    light = rng.uniform(0, 2 * np.pi)
    canvas, grounds = _large_ground(rng, tiles, size)
    whole = (tiles[0] * size[0], tiles[1] * size[1])
    labels, instances = np.zeros(whole, np.uint8), np.zeros(whole, np.uint16)
    drawn = np.zeros(len(classes), int)
    wanted = rng.permutation(np.resize(rng.permutation(len(classes)), 6 * tiles[0] * tiles[1]))
    for kind in wanted:
        for _ in range(20):
            top = int(rng.integers(0, whole[0] - size[0] + 1))
            left = int(rng.integers(0, whole[1] - size[1] + 1))
            part = (slice(top, top + size[0]), slice(left, left + size[1]))
            placed = _place(rng, size, classes[kind], labels[part] > 0)
            if placed is not None and not any(side.any() for side in _sides(placed.coverage(size))):
                break
        else:
            continue
        ground = grounds[(top + size[0] // 2) // size[0], (left + size[1] // 2) // size[1]]
        _paint(rng, canvas[part], placed, kind, len(classes), ground, light)
        inside = placed.alpha > 0.5
        labels[part][placed.box][inside] = kind + 1
        instances[part][placed.box][inside] = (kind + 1) * 1000 + drawn[kind]
        drawn[kind] += 1
    return Scene(image=_expose(rng, canvas, light), classes=labels, instances=instances)


def _sides(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the first and last row and column."""
    return values[0], values[-1], values[:, 0], values[:, -1]


def _large_ground(
    rng: np.random.Generator, tiles: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ground of rows x columns of tiles of (H, W) pixels, one fading into the next, and its colours."""
    margin = tuple(side // 4 for side in size)
    grown = (tiles[0] * size[0] + 2 * margin[0], tiles[1] * size[1] + 2 * margin[1])
    total, weight = np.zeros((*grown, 3), np.float32), np.zeros((*grown, 1), np.float32)
    ramps = [
        np.minimum(np.minimum(np.arange(1, n + 2 * m + 1), np.arange(n + 2 * m, 0, -1)) / (2 * m), 1)
        for n, m in zip(size, margin, strict=True)
    ]
    fading = (ramps[0][:, None] * ramps[1])[..., None].astype(np.float32)
    grounds = rng.uniform(0.15, 0.85, (*tiles, 3)) * 0.6 + 0.2
    for row, column in np.ndindex(*tiles):
        top, left = row * size[0], column * size[1]
        part = (slice(top, top + fading.shape[0]), slice(left, left + fading.shape[1]))
        total[part] += fading * _ground(rng, (fading.shape[0], fading.shape[1]), grounds[row, column])
        weight[part] += fading
    whole = total / weight
    return np.ascontiguousarray(whole[margin[0] : -margin[0], margin[1] : -margin[1]]), grounds


@dataclass(frozen=True, kw_only=True)
class _PlacedShape:
    """An object that has found room.

    box: rows and columns outside of which nothing of it lies. alpha: how much of each pixel there it covers, (h, w)
    0..1. u, v: its own axes there, (h, w) in pixels. radius: in pixels.
    """

    box: tuple[slice, slice]
    alpha: np.ndarray
    u: np.ndarray
    v: np.ndarray
    radius: float

    def coverage(self, size: tuple[int, int]) -> np.ndarray:
        """Return how much of each pixel (H, W) it covers."""
        whole = np.zeros(size)
        whole[self.box] = self.alpha
        return whole


def _paint(
    rng: np.random.Generator,
    canvas: np.ndarray,
    placed: _PlacedShape,
    kind: int,
    kinds: int,
    ground: np.ndarray,
    light: float,
) -> None:
    """Lay an object and its shadow over a canvas (H, W, 3) of the ground's colour."""
    u, v, radius = placed.u, placed.v, placed.radius
    size = (canvas.shape[0], canvas.shape[1])
    texture = _texture(rng, placed, size, kind, kinds, ground)
    shade = 1 + 0.25 * (u * np.cos(light) + v * np.sin(light)) / (abs(u) + abs(v) + radius)
    canvas *= 1 - 0.45 * _shadow(placed.coverage(size), light, radius)[..., None]
    canvas[placed.box] += placed.alpha[..., None] * (texture * shade[..., None] - canvas[placed.box])


def _place(rng: np.random.Generator, size: tuple[int, int], name: str, taken: np.ndarray) -> _PlacedShape | None:
    """Find room for an object in a scene (H, W); None where there is none."""
    height, width = size
    small = rng.random() < 0.33
    for _ in range(20):
        radius = rng.uniform(0.04, 0.065) * min(size) if small else rng.uniform(0.1, 0.22) * min(size)
        radius = max(radius, 4.0)
        angle = rng.uniform(0, 2 * np.pi)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        reach = LONGEST * radius + 2
        rows, columns = (
            slice(max(0, int(at - reach)), max(0, min(side, int(at + reach) + 1)))
            for at, side in ((y, height), (x, width))
        )
        dy = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - np.float32(y))[:, None]
        dx = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - np.float32(x)
        u, v = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
        alpha = np.clip(0.5 - _DISTANCES[name](u, v, radius), 0, 1)
        inside = alpha > 0.5
        area = int(inside.sum())
        # Enough of it in the image, and little of what is there hidden.
        if area >= 0.5 * radius**2 * _AREAS[name] and (inside & taken[rows, columns]).sum() <= 0.15 * area:
            return _PlacedShape(box=(rows, columns), alpha=alpha, u=u, v=v, radius=float(radius))
    return None


def _box(u: np.ndarray, v: np.ndarray, half_u: float, half_v: float) -> np.ndarray:
    return np.maximum(abs(u) - half_u, abs(v) - half_v)


def _triangle(u: np.ndarray, v: np.ndarray, r: float) -> np.ndarray:
    slanted = abs(u) * np.sqrt(3) / 2 + v / 2
    return np.maximum(slanted, -v) - r / 2


def _thin(fraction: float, r: float) -> float:
    """Half the width of a thin part: a fraction of the radius, never below what one pixel can show."""
    return max(fraction * r, 1.2)


# Signed distance in pixels to the outline, negative inside.
_DISTANCES: dict[str, Distance] = {
    "disc": lambda u, v, r: np.hypot(u, v) - r,
    "square": lambda u, v, r: _box(u, v, 0.85 * r, 0.85 * r),
    "triangle": lambda u, v, r: _triangle(u, v, 1.25 * r),
    "ring": lambda u, v, r: abs(np.hypot(u, v) - 0.8 * r) - _thin(0.25, r),
    "bar": lambda u, v, r: _box(u, v, 1.6 * r, _thin(0.12, r)),
    "cross": lambda u, v, r: np.minimum(_box(u, v, 1.15 * r, _thin(0.2, r)), _box(v, u, 1.15 * r, _thin(0.2, r))),
}
# Area of a whole object of radius 1, roughly.
_AREAS = {"disc": 3.1, "square": 2.9, "triangle": 2.0, "ring": 2.5, "bar": 0.77, "cross": 1.7}
# From the middle of an object of radius 1 to its farthest pixel: the corner of a bar.
LONGEST = 1.61


def _noise(rng: np.random.Generator, size: tuple[int, int], cells: Sequence[int]) -> np.ndarray:
    """Return smooth noise (H, W), mean 0 and about -1..1: random grids of some cells across, coarse ones louder."""
    import cv2  # here: listing records and reading recipes does without

    total = np.zeros(size, np.float32)
    for cell in cells:
        grid = rng.uniform(-1, 1, (cell + 2, cell + 2)).astype(np.float32)
        total += cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC) / np.sqrt(cell)
    return total / np.abs(total).max()


def _ground(rng: np.random.Generator, size: tuple[int, int], color: np.ndarray) -> np.ndarray:
    """Return the ground (H, W, 3) float32 0..1: two near colours mixed by noise, with grain and faint furrows."""
    other = np.clip(color + rng.normal(0, 0.14, 3), 0.05, 0.95)
    mix = 0.5 + 0.5 * _noise(rng, size, (3, 7, 16, 36))[..., None]
    canvas = color * mix + other * (1 - mix)
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
    waves = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + 4 * _noise(rng, size, (3, 5)))
    grain = rng.normal(0, 1, size)
    return (canvas * (1 + 0.08 * waves + 0.05 * grain)[..., None]).astype(np.float32)


def _texture(
    rng: np.random.Generator, placed: _PlacedShape, size: tuple[int, int], kind: int, kinds: int, ground: np.ndarray
) -> np.ndarray:
    """Return an object's surface (h, w, 3) in its box: two colours in a pattern that moves with the object."""
    for _ in range(30):
        # The hue leans to the class, with a spread as wide as the next classes' distance.
        hue = (kind / kinds + rng.normal(0, 0.6 / kinds)) % 1.0
        first = _rgb(hue, rng.uniform(0.3, 0.85), rng.uniform(0.35, 0.95))
        if np.abs(first - ground).max() > 0.22:
            break
    second = np.clip(first * rng.uniform(0.45, 0.8) + rng.normal(0, 0.05, 3), 0, 1)
    style = kind if rng.random() < 0.6 else int(rng.integers(kinds))
    period = max(rng.uniform(0.35, 0.7) * placed.radius, 3.0)
    mix = _PATTERNS[style % len(_PATTERNS)](placed.u / period, placed.v / period)
    mix = np.clip(mix + 0.35 * _noise(rng, size, (9, 21, 40))[placed.box], 0, 1)[..., None]
    return (first * mix + second * (1 - mix)).astype(np.float32)


# Patterns 0..1 over an object's own axes, in periods.
_PATTERNS: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    lambda u, v: 0.5 + 0.5 * np.sin(2 * np.pi * u),  # stripes across
    lambda u, v: (np.sin(np.pi * u) * np.sin(np.pi * v) > 0).astype(np.float32),  # checks
    lambda u, v: (np.hypot((u % 1) - 0.5, (v % 1) - 0.5) > 0.3).astype(np.float32),  # dots
    lambda u, v: 0.5 + 0.5 * np.sin(2 * np.pi * np.hypot(u, v)),  # rings
    lambda u, v: np.clip(0.5 + 0.2 * u, 0, 1),  # a slope
    lambda u, v: 0.5 + 0.5 * np.sin(2 * np.pi * (u + v)) * np.sin(np.pi * (u - v)),  # weave
)


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return RGB 0..1 of hue (turns), saturation and value 0..1."""
    ramp = np.clip(np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    return value * (1 - saturation + saturation * ramp)


def _shadow(alpha: np.ndarray, light: float, radius: float) -> np.ndarray:
    """Return how dark an object's shadow is at each pixel, 0..1, cast away from the light."""
    import cv2  # here: listing records and reading recipes does without

    reach = 0.25 * radius
    move = np.array([[1, 0, -reach * np.cos(light)], [0, 1, -reach * np.sin(light)]], np.float32)
    moved = cv2.warpAffine(alpha.astype(np.float32), move, alpha.shape[::-1])
    return cv2.GaussianBlur(moved, (0, 0), 0.6 + 0.08 * radius)


def _expose(rng: np.random.Generator, canvas: np.ndarray, light: float) -> np.ndarray:
    """Return the image (H, W, 3) uint8 that a camera takes: light falling off, some blur, noise."""
    import cv2  # here: listing records and reading recipes does without

    height, width = canvas.shape[:2]
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    slope = 1 + rng.uniform(0.1, 0.5) * (x * np.cos(light) + y * np.sin(light))
    lit = canvas * (slope * rng.uniform(0.75, 1.1))[..., None]
    blurred = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.3, 0.8))
    noisy = blurred + rng.normal(0, rng.uniform(0.008, 0.03), canvas.shape)
    return np.clip(np.rint(noisy * 255), 0, 255).astype(np.uint8)


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[[Callable[[int], Any], Iterable[int]], Iterable[Any]]]:
    """Give a `map` that goes on in so many processes."""
    if processes < 2:
        yield map
        return
    from concurrent.futures import ProcessPoolExecutor  # here: few sets are that large
    from multiprocessing import get_context

    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=16)


def _write_scene(
    folder: Path,
    index: int,
    *,
    size: tuple[int, int],
    seed: int,
    classes: tuple[str, ...],
    objects: tuple[int, int],
) -> list[dict[str, Any]]:
    """Write the files of one scene below its split; return COCO's description of all segments, masks of objects too."""
    scene = draw_scene(seed, folder.name, index, size, classes, objects)
    file = _file(index)
    for name in ("images", "panoptic"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(folder / "images" / file, compress_level=1)
    write_mask(folder / "masks" / file, scene.classes, [COLORS[name] for name in (GROUND, *classes)])
    write_mask(folder / "instances" / file, scene.instances)
    Image.fromarray(_id_colors(scene)).save(folder / "panoptic" / file)
    ground, *things = _segments(scene)
    return [ground, *({**one, "segmentation": encode_rle(scene.instances == one["id"])} for one in things)]


def _file(index: int) -> str:
    return f"{index:04d}.png"


def _write_annotations(
    root: Path, split: str, size: tuple[int, int], classes: tuple[str, ...], scenes: Iterable[list[dict[str, Any]]]
) -> None:
    """Write COCO's files of a split. scenes: the segments of each, with the masks of objects."""
    names = (GROUND, *classes)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    for index, segments in enumerate(scenes):
        codes = [segment.pop("segmentation", None) for segment in segments]
        images.append({"id": index, "file_name": _file(index), "height": size[0], "width": size[1]})
        panoptic.append({"image_id": index, "file_name": _file(index), "segments_info": segments})
        for segment, code in zip(segments[1:], codes[1:], strict=True):
            objects.append({**segment, "id": len(objects) + 1, "image_id": index, "segmentation": code})
    categories = [{"id": i, "name": name, "isthing": int(i > 0)} for i, name in enumerate(names)]
    things = [{"id": entry["id"], "name": entry["name"]} for entry in categories[1:]]
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / f"instances_{split}.json", {"images": images, "annotations": objects, "categories": things})
    _write_json(
        folder / f"panoptic_{split}.json", {"images": images, "annotations": panoptic, "categories": categories}
    )


def _segments(scene: Scene) -> list[dict[str, Any]]:
    """Return COCO's description of every segment, the ground first. bbox: x, y, width, height in pixels."""
    segments = []
    for instance in np.unique(scene.instances).tolist():
        inside = scene.instances == instance
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        segments.append(
            {
                "id": instance or GROUND_SEGMENT,
                "category_id": instance // 1000,
                "area": int(inside.sum()),
                "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                "iscrowd": 0,
            }
        )
    return segments


def _id_colors(scene: Scene) -> np.ndarray:
    """Return segment ids (H, W, 3) uint8 as COCO's panoptic PNGs hold them."""
    ids = np.where(scene.instances == 0, GROUND_SEGMENT, scene.instances).astype(np.uint32)
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
