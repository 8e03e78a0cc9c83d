"""Files and images of panoptic results, and of objects with their masks."""

import json

import numpy as np
import pytest
from PIL import Image

from segatlas.drawing.maps import LINE
from segatlas.drawing.sheets import panoptic_row
from segatlas.inference import Segmentation
from segatlas.output import all_kinds, ending_of, kinds_of, write
from segatlas.output.options import WriterOptions
from segatlas.structures import Instance, Panoptic, Rle, Segment, SegmentsTarget
from segatlas.tasks import TASKS

IDS = np.zeros((24, 36), np.int32)
IDS[:10], IDS[12:20, 4:12] = 1, 70000
SEGMENTS = (
    Segment(id=1, class_index=0, is_thing=False, score=None, area=360, box=(0, 0, 10, 36)),
    Segment(id=70000, class_index=2, is_thing=True, score=0.875, area=64, box=(12, 4, 20, 12)),
)
PALETTE = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def result(**changes):
    classes = np.array([1, 0, 2])[np.searchsorted([0, 1, 70000], IDS)].astype(np.uint8)
    given = {
        "class_map": classes,
        "objects": (Instance(mask=IDS == 70000, class_index=2, score=0.875, box=(11.5, 4, 20, 12.25)),),
        "segments": Panoptic(ids=IDS, segments=SEGMENTS),
        "size": IDS.shape,
        "classes": ("sky", "road", "car"),
        "palette": PALETTE,
        "source": "street.png",
        "image": np.full((24, 36, 3), 100, np.uint8),
    }
    return Segmentation(**{**given, **changes})


@pytest.mark.parametrize("kind", TASKS["panoptic"].writers)
def test_every_kind_of_file_is_written(kind, tmp_path):
    path = tmp_path / f"a{ending_of(kind)}"
    write("panoptic", kind, result(), path, WriterOptions(model="m"))
    assert path.stat().st_size > 0
    assert kind in all_kinds()
    assert kinds_of("panoptic", None) == ("panoptic", "overlay")


def test_the_map_holds_ids_as_coco_does_and_the_record_lists_them(tmp_path):
    write("panoptic", "panoptic", result(), tmp_path / "a_panoptic.png", WriterOptions())
    write("panoptic", "json", result(), tmp_path / "a.json", WriterOptions(model="m"))
    colors = np.asarray(Image.open(tmp_path / "a_panoptic.png")).astype(np.int64)
    assert np.array_equal(colors @ np.array([1, 256, 65536]), IDS)
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["file_name"] == "a_panoptic.png"
    assert [one["id"] for one in record["segments_info"]] == [1, 70000]
    assert record["segments_info"][1] == {
        "id": 70000,
        "category_id": 2,
        "name": "car",
        "isthing": 1,
        "iscrowd": 0,
        "score": 0.875,
        "area": 64,
        "bbox": [4, 12, 8, 8],
        "measures": {"area_px": 64, "perimeter_px": 30.828, "longest_axis_px": 11.314, "centroid_px": [8.0, 16.0]},
    }
    assert record["segments_info"][0]["score"] is None


def test_objects_are_listed_with_their_masks_in_cocos_form(tmp_path):
    write("instance", "json", result(), tmp_path / "a.json", WriterOptions())
    (one,) = json.loads((tmp_path / "a.json").read_text())["objects"]
    assert np.array_equal(Rle.read(one["segmentation"]).bitmap(), IDS == 70000)
    assert one["box"] == [11.5, 4, 20, 12.25]
    assert one["bbox"] == [4, 11.5, 8.25, 8.5]


def test_segments_are_tinted_with_lines_between_them_and_a_legend():
    drawn = result().overlay()
    assert drawn.shape[0] > 24
    assert drawn[15, 8].tolist() == [50, 50, 175]
    assert drawn[3, 20].tolist() == [175, 50, 50]
    assert drawn[22, 30].tolist() == [100, 100, 100]
    assert (drawn[10:14, 8] == LINE).all(axis=-1).any()


def test_a_row_shows_truth_prediction_and_where_they_differ():
    truth = np.where(IDS == 1, 0, -1)
    truth[12:20, 4:16], truth[20:] = 1, 2
    flags = np.array([False, True, True]), np.array([False, False, True])
    target = SegmentsTarget(truth.astype(np.int32), np.array([0, 2, 1]), *flags)
    image, true, found, error = panoptic_row(result().image, target, result(), PALETTE)
    assert image.shape == true.shape == found.shape == error.shape == (24, 36, 3)
    assert true[15, 10].tolist() == found[15, 8].tolist() == [0, 0, 250]
    right, wrong, crowd = error[15, 8].tolist(), error[15, 14].tolist(), error[22, 10].tolist()
    assert len({tuple(right), tuple(wrong), tuple(crowd)}) == 3
