"""Files that list objects: each format gives the masks back, and lengths are said in pixels and in a unit."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segatlas.data.formats.polygons import draw_polygons
from segatlas.errors import UsageError
from segatlas.inference import Segmentation
from segatlas.output import ending_of, write
from segatlas.output.options import PixelSize, WriterOptions
from segatlas.structures import Instance, Panoptic, Rle, Segment

SIZE = (40, 60)
CLASSES = ("sky", "nut, large", "Mutter")
OPTIONS = WriterOptions(model="m", pixel_size=PixelSize(length=0.5, unit="um"))


def masks() -> list[np.ndarray]:
    """Return a ring with an island in it and a part apart, a bar at the border, and an empty mask."""
    found = np.zeros((3, *SIZE), bool)
    found[0, 5:25, 5:25], found[0, 9:21, 9:21], found[0, 13:17, 13:17], found[0, 25:30, 25:30] = 1, 0, 1, 1
    found[1, 30:, 40:50] = 1
    return list(found)


def objects() -> Segmentation:
    found = tuple(
        Instance(mask=mask, class_index=1 + index % 2, score=0.9 - 0.2 * index, box=(1.5, 2, 30, 40.25))
        for index, mask in enumerate(masks())
    )
    return Segmentation(objects=found, size=SIZE, classes=CLASSES, palette=((1, 1, 1),) * 3, source="photos/a.png")


def segments() -> Segmentation:
    ids = np.ones(SIZE, np.int32)
    parts = [Segment(id=1, class_index=0, is_thing=False, score=None, area=0, box=(0, 0, *SIZE))]
    for index, mask in enumerate(masks()[:2]):
        ids[mask] = index + 2
        box = Rle.of(mask).box
        parts.append(Segment(id=index + 2, class_index=1, is_thing=True, score=0.5, area=int(mask.sum()), box=box))
    return Segmentation(
        segments=Panoptic(ids=ids, segments=tuple(parts)),
        class_map=np.zeros(SIZE, np.uint8),
        objects=(),
        size=SIZE,
        classes=CLASSES,
        palette=((1, 1, 1),) * 3,
        source="photos/a.png",
    )


def written(kind: str, folder: Path, result: Segmentation, task: str = "instance") -> str:
    path = folder / f"a{ending_of(kind)}"
    write(task, kind, result, path, OPTIONS)
    return path.read_text(encoding="utf-8")


def test_a_file_of_coco_holds_categories_one_image_and_exact_masks(tmp_path):
    record = json.loads(written("coco", tmp_path, objects()))
    assert record["images"] == [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}]
    assert [one["name"] for one in record["categories"]] == list(CLASSES)
    for one, mask in zip(record["annotations"], masks(), strict=True):
        assert np.array_equal(Rle.read(one["segmentation"]).bitmap(), mask)
        assert one["area"] == mask.sum()
        assert one["category_id"] in (1, 2)
    assert record["annotations"][1]["bbox"] == [40, 30, 10, 10]
    assert [one["score"] for one in record["annotations"]] == [0.9, 0.7, 0.5]


def test_scores_for_an_evaluation_are_not_rounded(tmp_path):
    sure = replace(objects(), objects=(replace(objects().objects[0], score=0.123456789012),))
    assert json.loads(written("coco", tmp_path, sure))["annotations"][0]["score"] == 0.123456789012
    assert json.loads(written("json", tmp_path, sure))["objects"][0]["score"] == 0.123456789012


def test_polygons_of_labelme_give_the_masks_back_and_parts_share_a_group(tmp_path):
    record = json.loads(written("labelme", tmp_path, objects()))
    assert (record["imagePath"], record["imageHeight"], record["imageWidth"]) == ("a.png", 40, 60)
    ring = [shape for shape in record["shapes"] if shape["group_id"] == 1]
    assert len(ring) == 3
    assert np.array_equal(draw_polygons([np.array(shape["points"]) for shape in ring], SIZE), masks()[0])
    (bar,) = [shape for shape in record["shapes"] if shape["group_id"] is None]
    assert (bar["label"], bar["points"]) == ("Mutter", [[40, 30], [50, 30], [50, 40], [40, 40]])
    assert bar["description"] == "score 0.7000"


def test_geojson_says_what_its_coordinates_are_and_has_parts_with_holes(tmp_path):
    record = json.loads(written("geojson", tmp_path, objects()))
    assert record["coordinates_are"].startswith("pixels, x right and y down")
    ring, bar, empty = record["features"]
    assert ring["geometry"]["type"] == "MultiPolygon"
    assert [len(part) for part in ring["geometry"]["coordinates"]] == [2, 1, 1]
    back = np.zeros(SIZE, int)
    for part in ring["geometry"]["coordinates"]:
        for line in part:
            assert line[0] == line[-1]
            back += draw_polygons([np.array(line)], SIZE)
    assert np.array_equal(back % 2 == 1, masks()[0])
    assert bar["geometry"] == {"type": "Polygon", "coordinates": [[[40, 30], [50, 30], [50, 40], [40, 40], [40, 30]]]}
    assert bar["properties"]["class"] == "Mutter"
    assert empty["geometry"] is None


def test_a_table_has_a_line_an_object_and_lengths_in_pixels_and_in_the_unit(tmp_path):
    rows = list(csv.DictReader(written("csv", tmp_path, objects()).splitlines()))
    assert [row["class"] for row in rows] == ["nut, large", "Mutter", "nut, large"]
    bar = rows[1]
    assert [bar[f"{side}_px"] for side in ("left", "top", "right", "bottom")] == ["40", "30", "50", "40"]
    assert (bar["centroid_x_px"], bar["centroid_y_px"]) == ("45.0", "35.0")
    assert (bar["area_px"], bar["area_um2"]) == ("100", "25.0")
    assert float(bar["longest_axis_px"]) == pytest.approx(10 * math.sqrt(2), abs=1e-3)
    assert float(bar["longest_axis_um"]) == pytest.approx(5 * math.sqrt(2), abs=1e-4)
    assert float(bar["perimeter_um"]) == pytest.approx((36 + 4 * math.sqrt(0.5)) / 2, abs=1e-4)


def test_a_table_of_nothing_has_its_head(tmp_path):
    whole = written("csv", tmp_path, objects()).splitlines()[0]
    nothing = Segmentation(objects=(), size=SIZE, classes=CLASSES, palette=((1, 1, 1),) * 3)
    assert written("csv", tmp_path, nothing) == f"{whole}\n"


def test_of_segments_stuff_is_listed_too(tmp_path):
    rows = list(csv.DictReader(written("csv", tmp_path, segments(), "panoptic").splitlines()))
    assert [(row["id"], row["thing"], row["score"]) for row in rows] == [
        ("1", "0", ""),
        ("2", "1", "0.5"),
        ("3", "1", "0.5"),
    ]
    assert int(rows[0]["area_px"]) == 40 * 60 - sum(int(mask.sum()) for mask in masks())
    record = json.loads(written("json", tmp_path, segments(), "panoptic"))
    assert record["segments_info"][2]["measures"]["area_um2"] == 25.0


def test_the_list_of_objects_has_measures(tmp_path):
    record = json.loads(written("json", tmp_path, objects()))
    assert record["objects"][1]["measures"] == {
        "area_px": 100,
        "perimeter_px": 38.828,
        "longest_axis_px": 14.142,
        "centroid_px": [45.0, 35.0],
        "area_um2": 25.0,
        "perimeter_um": 19.4142,
        "longest_axis_um": 7.07107,
    }


@pytest.mark.parametrize("text", ["", "0um", "um", "1", "-1m", "1e400m", "nan m", "1 m2"])
def test_a_size_without_a_number_above_0_and_a_unit_is_refused(text):
    with pytest.raises(UsageError, match=r"expected a number and a unit, such as 0\.5um"):
        PixelSize.read(text)


def test_a_size_is_read_with_and_without_a_space():
    assert PixelSize.read("0.25um") == PixelSize(length=0.25, unit="um")
    assert PixelSize.read(" 1e-3 mm") == PixelSize(length=0.001, unit="mm")
