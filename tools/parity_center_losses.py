"""Losses of Panoptic-DeepLab beside Detectron2's own code, in float64, on the same maps and segments:

    python tools/parity_center_losses.py --detectron2 DIR [--packages DIR ...] [--scenes 3]

--detectron2 is a checkout of facebookresearch/detectron2, of which nothing is compiled; --packages folders with what it
imports and this environment lacks (fvcore, iopath, omegaconf, yacs, tabulate, cloudpickle, pycocotools and so on).
Maps are random, at stride 4; segments come from generated scenes with a crowd and an ignored segment. Its target
generator, its heads' `losses` and its cross-entropy of hard pixels make its side, with the settings of its Cityscapes
configs. It draws truths in float32, ours are compared with that. Printed are values and relative differences.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segatlas.data.shapes import SHAPES, draw_scene
from segatlas.losses import LOSSES
from segatlas.structures import CentersAndOffsets, Resample, SegmentsTarget

SIZE, STRIDE = (128, 160), 4
CLASSES = len(SHAPES) + 1
IGNORED = 255
SIGMA, SMALL_AREA, SMALL_WEIGHT, KEPT = 8, 400, 3, 0.2
"""Of its configs, but for the area: objects are smaller here."""


def segments(index: int) -> SegmentsTarget:
    """Return the segments of a scene: the ground is stuff, the second object a crowd, the third one ignored."""
    numbers, ids = np.unique(draw_scene(3, "train", index, SIZE).instances, return_inverse=True)
    ids = ids.reshape(SIZE).astype(np.int32)
    ids[ids == 3] = -1
    crowd = np.arange(len(numbers)) == 2
    return SegmentsTarget(ids, (numbers // 1000).astype(np.int64), numbers > 0, crowd)


def theirs(root: Path, output: CentersAndOffsets, truths: list[SegmentsTarget]) -> dict[str, Tensor]:
    """Return what Detectron2's heads give for these maps, weights left out."""
    sys.path.insert(0, str(root))
    from detectron2.projects.deeplab.loss import DeepLabCE  # type: ignore[import-not-found]
    from detectron2.projects.panoptic_deeplab.panoptic_seg import (  # type: ignore[import-not-found]
        PanopticDeepLabInsEmbedHead,
        PanopticDeepLabSemSegHead,
    )
    from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator  # type: ignore[import-not-found]

    make = PanopticDeepLabTargetGenerator(
        IGNORED,
        range(1, CLASSES),
        sigma=SIGMA,
        ignore_stuff_in_offset=True,
        small_instance_area=SMALL_AREA,
        small_instance_weight=SMALL_WEIGHT,
    )
    made = []
    for truth in truths:
        there = [int(one) for one in np.unique(truth.ids) if one >= 0]
        told = [{"id": one, "category_id": int(truth.classes[one]), "iscrowd": int(truth.crowd[one])} for one in there]
        made.append(make(np.asarray(truth.ids), told))
    wanted = {name: torch.stack([one[name] for one in made]) for name in made[0] if name != "center_points"}
    plain: Any = SimpleNamespace(
        common_stride=STRIDE,
        loss=DeepLabCE(ignore_label=IGNORED, top_k_percent_pixels=KEPT),
        center_loss=nn.MSELoss(reduction="none"),
        offset_loss=nn.L1Loss(reduction="none"),
        loss_weight=1.0,
        center_loss_weight=1.0,
        offset_loss_weight=1.0,
    )
    heads = PanopticDeepLabInsEmbedHead
    found = PanopticDeepLabSemSegHead.losses(
        plain, output.semantic, wanted["sem_seg"], wanted["sem_seg_weights"].double()
    )
    centers = wanted["center"].double()[:, None]
    found |= heads.center_losses(plain, output.centers, centers, wanted["center_weights"].double())
    offsets = wanted["offset"].double()
    found |= heads.offset_losses(plain, output.offsets / STRIDE, offsets, wanted["offset_weights"].double())
    return {
        "hard_pixels": found["loss_sem_seg"],
        "center_mse": found["loss_center"],
        "offset_l1": found["loss_offset"],
    }


def main() -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectron2", type=Path, required=True)
    parser.add_argument("--packages", type=Path, nargs="*", default=[])
    parser.add_argument("--scenes", type=int, default=3)
    asked = parser.parse_args()
    sys.path += [str(folder) for folder in asked.packages]
    draw = torch.Generator().manual_seed(0)
    cells = tuple(side // STRIDE for side in SIZE)
    semantic, centers, offsets = (
        scale * torch.randn(asked.scenes, channels, *cells, generator=draw, dtype=torch.float64)
        for channels, scale in ((CLASSES, 3), (1, 0.3), (2, 20))
    )
    resample = Resample(align_corners=False)
    output = CentersAndOffsets(centers, offsets, None, canvas=SIZE, resample=resample, semantic=semantic)
    truths = [segments(index) for index in range(asked.scenes)]
    own = {
        "hard_pixels": {"kept": KEPT, "small_area": SMALL_AREA, "small_weight": SMALL_WEIGHT, "crowds": True},
        "center_mse": {"spread": SIGMA},
        "offset_l1": {},
    }
    for name, expected in theirs(asked.detectron2, output, truths).items():
        value = float(LOSSES[name](**own[name])(output, truths))
        print(
            f"{name:12s} ours {value:.9f}  theirs {float(expected):.9f}  {abs(value / float(expected) - 1):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
