"""The generated dataset `shapes`: textured objects on textured ground, labels for all three tasks from one seed.

A scene shows 4 to 8 objects that may hide one another: discs, squares and triangles, rings with a hole, thin bars and
crosses, a third of them small. Texture and hue lean towards the class but overlap widely, so that colour alone does
not tell the classes apart. Light falls off across the scene, objects cast soft shadows, and the sensor adds noise.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    Returns:
        The root.

    Raises:
        DataError: the folder is not empty, or cannot be written.
        UsageError: unknown kind of object, or a size below 32.
    """
    unknown = [name for name in classes if name not in SHAPES]
    if unknown or not classes:
        raise UsageError(f"shapes: {unknown[0] if unknown else 'no class'}; expected some of {', '.join(SHAPES)}")
    if min(size) < 32:
        raise UsageError(f"shapes: size {size[0]} x {size[1]}; expected at least 32 x 32")
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError("exists and is not empty; nothing was written", root)
    counts = dict(zip(_SPLITS, (train, val, test), strict=True))
    with whole_folder(root, durable=False) as temporary:
        for split, count in counts.items():
            _write_split(temporary, split, count, size, seed, tuple(classes))
        names = (GROUND, *classes)
        write_classes(temporary / JSON_FILE, names, [COLORS[name] for name in names])
        _write_json(temporary / META_FILE, {"seed": seed, "size": list(size), "classes": list(classes), **counts})
    return root


def draw_scene(
    seed: int, split: str, index: int, size: tuple[int, int] = (128, 160), classes: Sequence[str] = SHAPES
) -> Scene:
    """Draw one scene of (H, W) pixels; the same arguments give the same pixels."""
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    light = rng.uniform(0, 2 * np.pi)
    ground = rng.uniform(0.15, 0.85, 3) * 0.6 + 0.2
    canvas = _ground(rng, size, ground)
    labels, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint16)
    drawn = np.zeros(len(classes), int)
    wanted = rng.permutation(np.resize(rng.permutation(len(classes)), rng.integers(4, 9)))
    for kind in wanted:
        coverage = _place(rng, size, classes[kind], labels > 0)
        if coverage is None:
            continue
        _paint(rng, canvas, coverage, kind, len(classes), ground, light)
        inside = coverage[0] > 0.5
        labels[inside] = kind + 1
        instances[inside] = (kind + 1) * 1000 + drawn[kind]
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
            coverage = _place(rng, size, classes[kind], labels[part] > 0)
            if coverage is not None and not any(side.any() for side in _sides(coverage[0])):
                break
        else:
            continue
        ground = grounds[(top + size[0] // 2) // size[0], (left + size[1] // 2) // size[1]]
        _paint(rng, canvas[part], coverage, kind, len(classes), ground, light)
        inside = coverage[0] > 0.5
        labels[part][inside] = kind + 1
        instances[part][inside] = (kind + 1) * 1000 + drawn[kind]
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


def _paint(
    rng: np.random.Generator,
    canvas: np.ndarray,
    coverage: tuple[np.ndarray, np.ndarray, np.ndarray, float],
    kind: int,
    kinds: int,
    ground: np.ndarray,
    light: float,
) -> None:
    """Lay an object and its shadow over a canvas (H, W, 3) of the ground's colour."""
    alpha, u, v, radius = coverage
    texture = _texture(rng, u, v, radius, kind, kinds, ground)
    shade = 1 + 0.25 * (u * np.cos(light) + v * np.sin(light)) / (abs(u) + abs(v) + radius)
    canvas *= 1 - 0.45 * _shadow(alpha, light, radius)[..., None]
    canvas += alpha[..., None] * (texture * shade[..., None] - canvas)


def _place(
    rng: np.random.Generator, size: tuple[int, int], name: str, taken: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float] | None:
    """Find room for an object: its coverage (H, W) 0..1, its axes u and v, its radius; None where there is no room."""
    height, width = size
    small = rng.random() < 0.33
    for _ in range(20):
        radius = rng.uniform(0.04, 0.065) * min(size) if small else rng.uniform(0.1, 0.22) * min(size)
        radius = max(radius, 4.0)
        angle = rng.uniform(0, 2 * np.pi)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        dy, dx = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5 - np.array([y, x], np.float32)[:, None, None]
        u, v = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
        alpha = np.clip(0.5 - _DISTANCES[name](u, v, radius), 0, 1)
        inside = alpha > 0.5
        area = int(inside.sum())
        # Enough of it in the image, and little of what is there hidden.
        if area >= 0.5 * radius**2 * _AREAS[name] and (inside & taken).sum() <= 0.15 * area:
            return alpha, u, v, float(radius)
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
    rng: np.random.Generator, u: np.ndarray, v: np.ndarray, radius: float, kind: int, kinds: int, ground: np.ndarray
) -> np.ndarray:
    """Return an object's surface (H, W, 3): two colours in a pattern that moves with the object."""
    for _ in range(30):
        # The hue leans to the class, with a spread as wide as the next classes' distance.
        hue = (kind / kinds + rng.normal(0, 0.6 / kinds)) % 1.0
        first = _rgb(hue, rng.uniform(0.3, 0.85), rng.uniform(0.35, 0.95))
        if np.abs(first - ground).max() > 0.22:
            break
    second = np.clip(first * rng.uniform(0.45, 0.8) + rng.normal(0, 0.05, 3), 0, 1)
    style = kind if rng.random() < 0.6 else int(rng.integers(kinds))
    period = max(rng.uniform(0.35, 0.7) * radius, 3.0)
    mix = _PATTERNS[style % len(_PATTERNS)](u / period, v / period)
    mix = np.clip(mix + 0.35 * _noise(rng, (u.shape[0], u.shape[1]), (9, 21, 40)), 0, 1)[..., None]
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


def _write_split(
    root: Path, split: str, count: int, size: tuple[int, int], seed: int, classes: tuple[str, ...]
) -> None:
    names = (GROUND, *classes)
    palette = [COLORS[name] for name in names]
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    panoptic: list[dict[str, Any]] = []
    for index in range(count):
        scene = draw_scene(seed, split, index, size, classes)
        file = f"{index:04d}.png"
        (root / split / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(root / split / "images" / file, compress_level=1)
        write_mask(root / split / "masks" / file, scene.classes, palette)
        write_mask(root / split / "instances" / file, scene.instances)
        segments = _segments(scene)
        (root / split / "panoptic").mkdir(parents=True, exist_ok=True)
        Image.fromarray(_id_colors(scene)).save(root / split / "panoptic" / file)
        images.append({"id": index, "file_name": file, "height": size[0], "width": size[1]})
        panoptic.append({"image_id": index, "file_name": file, "segments_info": segments})
        for segment in segments[1:]:
            code = encode_rle(scene.instances == segment["id"])
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
