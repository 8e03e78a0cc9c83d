"""Average precision of objects and panoptic quality of segments, over small sets in the forms that each side reads."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import PIL.Image

from benchmarks.counting import scratch
from benchmarks.foreign import peer_module
from benchmarks.rows import SEED, Call, Equality, Peer, Row, Target
from segatlas.structures import Instance, InstancesTarget, Panoptic, Result, Rle, Segment, SegmentsTarget

HEIGHT, WIDTH = 480, 640
KINDS, OBJECTS, DETECTIONS = 80, 8, 100
THINGS = 80
ALL_KINDS = 133


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Objects of images. pairs: in our types. truth, results: in COCO's dictionaries."""

    pairs: list[tuple[Result, InstancesTarget]]
    truth: dict[str, Any]
    results: list[dict[str, Any]]


def make_scenes(small: bool) -> Scenes:
    """Return ellipses and detections: three of each object, shifted and not, the others anywhere of any class."""
    random = np.random.default_rng(SEED)
    pool = [_ellipse(random) for _ in range(40)]
    codes = [(Rle.of(mask), Rle.of(np.roll(mask, (2, 3), (0, 1)))) for mask in pool]
    pairs, annotations, results = [], [], []
    for image in range(1, (2 if small else 100) + 1):
        chosen, kinds = random.choice(len(codes), OBJECTS, replace=False), random.integers(0, KINDS, OBJECTS)
        true = tuple(codes[index][0] for index in chosen)
        pairs_found = []
        for number in range(DETECTIONS):
            near = number < 3 * OBJECTS
            code = codes[chosen[number % OBJECTS] if near else random.integers(len(codes))][number % 2]
            kind = int(kinds[number % OBJECTS] if near else random.integers(0, KINDS))
            pairs_found.append((Rle(code.size, code.counts), kind, float(random.random())))
        found = tuple(Instance(mask=code, class_index=kind, score=score) for code, kind, score in pairs_found)
        pairs.append((Result(objects=found), InstancesTarget(true, kinds, np.zeros(OBJECTS, bool))))
        for code, kind in zip(true, kinds.tolist(), strict=True):
            entry = {"id": len(annotations) + 1, "image_id": image, "category_id": kind + 1, "iscrowd": 0}
            box = {"area": code.area, "bbox": [0, 0, 1, 1], "segmentation": code.compressed()}
            annotations.append(entry | box)
        results += [
            {"image_id": image, "category_id": kind + 1, "score": score, "segmentation": code.compressed()}
            for code, kind, score in pairs_found
        ]
    images = [{"id": number, "height": HEIGHT, "width": WIDTH} for number in range(1, len(pairs) + 1)]
    categories = [{"id": kind + 1, "name": str(kind)} for kind in range(KINDS)]
    return Scenes(
        pairs=pairs,
        truth={"images": images, "annotations": annotations, "categories": categories, "info": {}},
        results=results,
    )


def _ellipse(random: np.random.Generator) -> np.ndarray:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    height, width = random.integers(10, 120, 2)
    return ((rows - random.integers(HEIGHT)) / height) ** 2 + ((columns - random.integers(WIDTH)) / width) ** 2 < 1


def make_many_scenes(small: bool) -> Scenes:
    """Return the images of `make_scenes` fifty times over."""
    few, times = make_scenes(small), 2 if small else 50
    count = len(few.pairs)
    shifts = [copy * count for copy in range(times)]
    annotations = [{**one, "image_id": one["image_id"] + shift} for shift in shifts for one in few.truth["annotations"]]
    for number, one in enumerate(annotations, start=1):
        one["id"] = number
    images = [{**one, "id": one["id"] + shift} for shift in shifts for one in few.truth["images"]]
    results = [{**one, "image_id": one["image_id"] + shift} for shift in shifts for one in few.results]
    truth = few.truth | {"images": images, "annotations": annotations}
    return Scenes(pairs=few.pairs * times, truth=truth, results=results)


def our_precision(given: Scenes) -> Call:
    from segatlas.metrics.average_precision import AveragePrecision

    def call() -> np.ndarray:
        counter = AveragePrecision([str(kind) for kind in range(KINDS)], boundary=False, class_agnostic=False)
        for result, target in given.pairs:
            counter.update(result, target)
        return counter.curves()[0]

    return call


def pycocotools_precision(given: Scenes) -> Call:
    return _precision_of(given, peer_module("pycocotools.coco").COCO, peer_module("pycocotools.cocoeval").COCOeval)


def hotcoco_precision(given: Scenes) -> Call:
    module = peer_module("hotcoco")
    return _precision_of(given, module.COCO, module.COCOeval)


def vernier_precision(given: Scenes) -> Call:
    """Let vernier take dictionaries, as hotcoco does; it tells means alone, see `same_precision`."""
    module = peer_module("vernier.instance")
    truth = module.CocoDataset.from_json(json.dumps(given.truth).encode())
    judge = module.Evaluator(iou=module.Segm(), parity_mode="strict")

    def call() -> np.ndarray:
        results = [one | {"bbox": [0.0, 0.0, 1.0, 1.0]} for one in given.results]
        return np.asarray(judge.evaluate(truth, results, num_threads=1).stats[:3])

    return call


def _precision_of(given: Scenes, coco: Any, judge: Any) -> Call:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco(_file("truth", given.truth))

    def call() -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = judge(truth, truth.loadRes([dict(one) for one in given.results]), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"])[..., -1]

    return call


def _file(name: str, content: dict[str, Any]) -> str:
    path = scratch() / f"{name}_{len(content['images'])}.json"
    path.write_text(json.dumps(content))
    return str(path)


def same_precision(given: Scenes, own: np.ndarray, other: np.ndarray) -> Equality:
    if other.ndim == 1:
        own = np.array([part[part > -1].mean() for part in (own[..., 0], own[:1, ..., 0], own[5:6, ..., 0])])
    worst = float(np.abs(own - other).max())
    return Equality(holds=worst < 1e-9, text=f"worst difference of a precision {worst:.1e}")


@dataclass(frozen=True, kw_only=True)
class Segments:
    """A folder with truth.json, found.json and the PNG files that they name, and what the JSON files hold."""

    root: Path
    truth: dict[str, Any]
    found: dict[str, Any]


def make_segments(small: bool) -> Segments:
    """Return maps of 20 rectangles each, the found ones shifted by a few pixels; some pixels ignored, some crowds."""
    random = np.random.default_rng(SEED)
    root = scratch() / f"segments_{small}"
    sides: dict[str, list[dict[str, Any]]] = {"truth": [], "found": []}
    for image in range(1, (2 if small else 30) + 1):
        ids = np.zeros((HEIGHT, WIDTH), np.int64)
        for number in range(1, 21):
            top, left = int(random.integers(HEIGHT - 40)), int(random.integers(WIDTH - 40))
            height, width = (int(side) for side in random.integers(20, 240, 2))
            ids[top : top + height, left : left + width] = number * 1000
        kinds = {number * 1000: int(random.integers(ALL_KINDS)) for number in range(1, 21)}
        crowds = {number for number in kinds if kinds[number] < THINGS and random.random() < 0.1}
        shifted = np.roll(ids, (2, 3), (0, 1))
        for side, values in (("truth", ids), ("found", shifted)):
            folder = root / side
            folder.mkdir(parents=True, exist_ok=True)
            colors = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1).astype(np.uint8)
            cv2.imwrite(str(folder / f"{image}.png"), colors)
            numbers, areas = np.unique(values[values > 0], return_counts=True)
            rows = [
                {"id": number, "category_id": kinds[number], "area": area}
                | {"iscrowd": int(side == "truth" and number in crowds), "bbox": [0, 0, 1, 1]}
                for number, area in zip(numbers.tolist(), areas.tolist(), strict=True)
            ]
            sides[side].append({"image_id": image, "file_name": f"{image}.png", "segments_info": rows})
    images = [{"id": one["image_id"], "file_name": one["file_name"]} for one in sides["truth"]]
    images = [{**one, "height": HEIGHT, "width": WIDTH} for one in images]
    categories = [{"id": kind, "name": str(kind), "isthing": int(kind < THINGS)} for kind in range(ALL_KINDS)]
    both = {side: {"images": images, "annotations": rows, "categories": categories} for side, rows in sides.items()}
    for side, content in both.items():
        (root / f"{side}.json").write_text(json.dumps(content))
    return Segments(root=root, truth=both["truth"], found=both["found"])


def our_quality(given: Segments) -> Call:
    from segatlas.metrics.panoptic_quality import PanopticQuality

    pairs = []
    for truth, found in zip(given.truth["annotations"], given.found["annotations"], strict=True):
        result = Result(segments=_found(_ids(given.root / "found" / found["file_name"]), found["segments_info"]))
        target = _target(_ids(given.root / "truth" / truth["file_name"]), truth["segments_info"])
        pairs.append((result, target))

    def call() -> list[float]:
        counter = PanopticQuality([str(kind) for kind in range(ALL_KINDS)])
        for result, target in pairs:
            counter.update(result, target)
        whole = counter.compute().whole
        return [whole[name] for name in ("pq", "sq", "rq")]

    return call


def _ids(path: Path) -> np.ndarray:
    colors = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(cv2.cvtColor(colors, cv2.COLOR_BGR2RGBA)).view(np.int32)[..., 0] & 0xFFFFFF


def _found(ids: np.ndarray, rows: list[dict[str, Any]]) -> Panoptic:
    segments = [
        Segment(
            id=row["id"],
            class_index=row["category_id"],
            is_thing=row["category_id"] < THINGS,
            score=None,
            area=row["area"],
            box=(0, 0, 1, 1),
        )
        for row in rows
    ]
    return Panoptic(ids=ids, segments=tuple(segments))


def _target(ids: np.ndarray, rows: list[dict[str, Any]]) -> SegmentsTarget:
    table = np.full(1 + max((row["id"] for row in rows), default=0), -1, np.int32)
    table[[row["id"] for row in rows]] = np.arange(len(rows))
    kinds = np.array([row["category_id"] for row in rows], np.int64)
    return SegmentsTarget(table[ids], kinds, kinds < THINGS, np.array([row["iscrowd"] for row in rows], bool))


def panopticapi_quality(given: Segments) -> Call:
    module = peer_module("panopticapi.evaluation")
    categories = {one["id"]: one for one in given.truth["categories"]}
    module.Image = PIL.Image

    def call() -> list[float]:
        pairs = [*zip(given.truth["annotations"], given.found["annotations"], strict=True)]
        with contextlib.redirect_stdout(io.StringIO()):
            stat = module.pq_compute_single_core(
                0, pairs, str(given.root / "truth"), str(given.root / "found"), categories
            )
        means = stat.pq_average(categories, isthing=None)[0]
        return [means[name] for name in ("pq", "sq", "rq")]

    return call


def panopticapi_in_memory(given: Segments) -> Call:
    """Let panopticapi find the pixels of its files in memory."""
    files = [given.root / side / one["file_name"] for side in ("truth", "found") for one in given.truth["annotations"]]
    held = {str(file): cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files}
    count, module = panopticapi_quality(given), peer_module("panopticapi.evaluation")

    def call() -> list[float]:
        module.Image = SimpleNamespace(open=held.__getitem__)
        try:
            return list(count())
        finally:
            module.Image = PIL.Image

    return call


def hotcoco_quality(given: Segments) -> Call:
    module = peer_module("hotcoco.panoptic")

    def call() -> list[float]:
        places = {"gt_folder": given.root / "truth", "pred_folder": given.root / "found"}
        judge = module.PanopticEval(given.root / "truth.json", given.root / "found.json", **places)
        judge.evaluate()
        return [float(value) for value in judge.stats[:3]]

    return call


def vernier_quality(given: Segments) -> Call:
    """Let vernier find ids in memory."""
    module = peer_module("vernier.panoptic")
    categories = json.dumps(given.truth["categories"]).encode()
    sides = []
    for side, content in (("truth", given.truth), ("found", given.found)):
        files = {one["image_id"]: given.root / side / one["file_name"] for one in content["annotations"]}
        tables = {str(one["image_id"]): one["segments_info"] for one in content["annotations"]}
        maps = {image: _ids(file).astype(np.uint32) for image, file in files.items()}
        sides.append((maps, json.dumps(tables, default=int).encode()))  # panopticapi puts in its numbers

    def call() -> list[float]:
        truth = module.Dataset.from_arrays(*sides[0], categories)
        found = module.Predictions.from_arrays(*sides[1])
        summary = module.Evaluator(parity_mode="strict").evaluate(truth, found, num_threads=1)
        return [float(value) for value in (summary.pq, summary.sq, summary.rq)]

    return call


def same_quality(given: Segments, own: list[float], other: list[float]) -> Equality:
    worst = max(abs(a - b) for a, b in zip(own, other, strict=True))
    return Equality(holds=bool(worst < 1e-9), text=f"worst difference of PQ, SQ and RQ {worst:.1e}")


ROWS = (
    Row(
        key="average_precision",
        group="objects",
        part="average precision of masks, all IoUs and sizes",
        inputs=f"100 images of {HEIGHT} x {WIDTH} with {OBJECTS} objects and {DETECTIONS} detections of {KINDS} "
        "classes, run-length codes in memory, as each side keeps them",
        material=make_scenes,
        ours=our_precision,
        peers={
            "pycocotools": Peer(make=pycocotools_precision, target=Target(time=1)),
            "hotcoco": Peer(make=hotcoco_precision, target=Target(time=1)),
            "vernier": Peer(make=vernier_precision, target=Target(time=1)),
        },
        equal=same_precision,
        threads=(1,),
    ),
    Row(
        key="average_precision_of_many",
        group="objects",
        part="average precision of masks in a set of COCO's size",
        inputs=f"5,000 images of {HEIGHT} x {WIDTH} with {OBJECTS} objects and {DETECTIONS} detections of {KINDS} "
        "classes: those of the row above fifty times over",
        material=make_many_scenes,
        ours=our_precision,
        peers={
            "hotcoco": Peer(make=hotcoco_precision, target=Target(time=1, memory=1)),
            "vernier": Peer(make=vernier_precision, target=Target(time=1)),
        },
        equal=same_precision,
        threads=(1,),
    ),
    Row(
        key="panoptic_quality",
        group="objects",
        part="panoptic quality",
        inputs=f"30 images of {HEIGHT} x {WIDTH} with 20 segments of {ALL_KINDS} classes, ids in memory; panopticapi "
        "and hotcoco read their PNG files, as they do",
        material=make_segments,
        ours=our_quality,
        peers={
            "panopticapi": Peer(make=panopticapi_quality, target=Target(time=10)),
            "panopticapi, ids in memory": Peer(make=panopticapi_in_memory),
            "hotcoco": Peer(make=hotcoco_quality, target=Target(time=1)),
            "vernier": Peer(make=vernier_quality, target=Target(time=1)),
        },
        equal=same_quality,
        threads=(1,),
    ),
)
