"""Make tests/metrics/panoptic_expected.json: what panopticapi counts for the cases of tests/fakes/panoptic_cases.py.

    python tools/panoptic_expected.py --panopticapi FOLDER

FOLDER holds a copy of cocodataset/panopticapi, whose package is run as it is on PNG and JSON files made here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "metrics" / "panoptic_expected.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--panopticapi", type=Path, required=True, help="a copy of cocodataset/panopticapi")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    sys.path[:0] = [str(arguments.panopticapi), str(ROOT / "tests"), str(ROOT / "src")]
    from fakes.panoptic_cases import CASES, CLASSES, THINGS, case
    from panopticapi.evaluation import pq_compute_single_core

    categories = {
        index: {"id": index, "name": name, "isthing": int((*THINGS, False)[index])}
        for index, name in enumerate(CLASSES)
    }
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        pairs = [written(root, number, *case(number)) for number in range(CASES)]
        each = [
            pq_compute_single_core(0, [pair], str(root / "truth"), str(root / "found"), categories) for pair in pairs
        ]
        whole = pq_compute_single_core(0, pairs, str(root / "truth"), str(root / "found"), categories)
    means = {
        kind: whole.pq_average(categories, isthing=chosen)[0]
        for kind, chosen in (("all", None), ("things", True), ("stuff", False))
    }
    expected = {"images": [counts(stat) for stat in each], "whole": counts(whole), "means": means}
    arguments.out.write_text(json.dumps(expected, default=float) + "\n", encoding="utf-8")
    print(f"written: {arguments.out}")
    return 0


def counts(stat: Any) -> dict[str, list[float]]:
    """Return [TP, FP, FN, sum of IoUs] of each class that occurs."""
    return {
        str(kind): [part.tp, part.fp, part.fn, float(part.iou)]
        for kind, part in sorted(stat.pq_per_cat.items())
        if part.tp + part.fp + part.fn
    }


def written(root: Path, number: int, found: Any, truth: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write both PNG files of a case and return its records; row r of the truth has the id r + 1."""
    maps = {"truth": np.asarray(truth.ids) + 1, "found": found.ids}
    for folder, ids in maps.items():
        (root / folder).mkdir(exist_ok=True)
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(colors).save(root / folder / f"{number}.png")
    rows = [
        {"id": row + 1, "category_id": int(kind), "iscrowd": int(crowd), "area": int((maps["truth"] == row + 1).sum())}
        for row, (kind, crowd) in enumerate(zip(truth.classes, truth.crowd, strict=True))
    ]
    segments = [{"id": one.id, "category_id": one.class_index} for one in found.segments]
    name = {"image_id": number, "file_name": f"{number}.png"}
    return {**name, "segments_info": rows}, {**name, "segments_info": segments}


if __name__ == "__main__":
    sys.exit(main())
