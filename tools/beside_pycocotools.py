"""Average precision of masks by pycocotools, of the files that `segatlas predict --save coco` wrote, beside our own:

    segatlas predict RUN/model DATA/val/images --out FOUND --save coco
    segatlas eval RUN/model --set val --out EVAL.json
    PEERS/bin/python tools/beside_pycocotools.py DATA/val/instances.json FOUND [--ours EVAL.json] [--without CLASS]

Images are paired by the stem of their file's name and classes by their names. An image without a file, a file without
an image and a class that one side lacks are errors: a mean over fewer images would be another number.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PLACES = {"ap": 0, "ap50": 1, "ap75": 2, "ar": 8}
"""Our name of a score -> its place in the list of pycocotools."""


def found_objects(truth: dict[str, Any], folder: Path, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the objects of all files of a folder with the truth's numbers of images and classes.

    without: names of classes that are no objects of the truth, stuff of a panoptic result among them.
    """
    images = {Path(image["file_name"]).stem: image["id"] for image in truth["images"]}
    classes = {kind["name"]: kind["id"] for kind in truth["categories"]}
    files = {path.name.removesuffix("_coco.json"): path for path in sorted(folder.rglob("*_coco.json"))}
    if files.keys() != images.keys():
        sys.exit(f"files and images differ: {sorted(files.keys() ^ images.keys())[:5]}")
    objects = []
    for stem, path in files.items():
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {kind["id"]: kind["name"] for kind in content["categories"]}
        for one in content["annotations"]:
            name = names[one["category_id"]]
            if name in without:
                continue
            if name not in classes:
                sys.exit(f"{path}: the class {name} is none of {sorted(classes)}")
            score = {"image_id": images[stem], "category_id": classes[name]}
            objects.append({**score, "segmentation": one["segmentation"], "score": one["score"]})
    return objects


def peer_scores(truth_file: Path, folder: Path, without: Sequence[str] = ()) -> dict[str, float]:
    """Return what pycocotools counts, by our names, in 0..1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_file))
        judged = COCOeval(truth, truth.loadRes(found_objects(truth.dataset, folder, without)), "segm")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    stats: np.ndarray = judged.stats
    return {name: float(stats[place]) for name, place in PLACES.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path, help="the objects of the images in COCO's form")
    parser.add_argument("found", type=Path, help="the folder that `segatlas predict --save coco` filled")
    parser.add_argument("--ours", type=Path, help="the file that `segatlas eval --out` wrote of the same images")
    parser.add_argument("--without", nargs="*", default=[], metavar="CLASS", help="classes that are no objects: stuff")
    arguments = parser.parse_args()
    theirs = peer_scores(arguments.truth, arguments.found, arguments.without)
    ours = json.loads(arguments.ours.read_text(encoding="utf-8"))["summary"] if arguments.ours else {}
    for name, value in theirs.items():
        mine = f"   ours {100 * ours[name]:8.4f}" if ours.get(name) is not None else ""
        print(f"{name:5s} pycocotools {100 * value:8.4f}{mine}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
