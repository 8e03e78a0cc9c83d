"""Losses of networks that find objects beside MMDetection's, in float64:

    python tools/parity_losses.py FOLDER --peers PYTHON

FOLDER is what `ref_models.py KEY` wrote, KEY one of `md.condinst_r50`, `md.mask_rcnn_r50`, `md.panoptic_fpn_r50`,
`md.point_rend_r50` or another form of these. Both networks get its weights and the same generated scenes with their
objects, PYTHON is that of the reference environment (SEGATLAS_SHARED: where `parity/` is). Printed are the parts and
their relative differences. Sides are multiples of 128 pixels: of coarse cells beyond the image MMDetection takes a
loss, and ours does not.

Two-stage networks draw all anchors and proposals there are, so that chance plays no part, and match them by
MMDetection's rule. Of many anchors that hold a whole object rounding decides which overlaps it most, so both compute
them in float64; the second stage sees MMDetection's proposals. Its semantic loss takes every fourth pixel's label by
default and is told to take all, as ours does. Points of a PointRend are drawn among the same ones in every box.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
SIZE, SCENES = (256, 384), 2
ALL = 10**7
"""More than there are anchors."""
CELLS = {"class": "loss_cls", "box": "loss_bbox", "centerness": "loss_centerness", "mask": "loss_mask"}
STAGES = {
    "rpn": "loss_rpn_cls",
    "rpn_box": "loss_rpn_bbox",
    "class": "loss_cls",
    "box": "loss_bbox",
    "mask": "loss_mask",
    "semantic": "loss_seg",
    "points": "loss_point",
}
"""Parts of the losses: ours -> theirs."""


def same_draws(*size: int, **_: Any) -> torch.Tensor:
    """Stand for `torch.rand`: the same numbers (P, 2) for each box, whatever order the boxes are in."""
    boxes, *rest = size
    draw = torch.Generator().manual_seed(rest[0])
    return torch.empty(rest, dtype=torch.float64).uniform_(generator=draw).repeat(boxes, 1, 1)


def write_theirs(key: str, checkpoint: str, given: str, out: str) -> None:
    """In the reference environment: write what MMDetection's losses are of given images and objects."""
    sys.path.insert(0, str(SHARED / "parity"))
    import ref_models

    ref_models.OPTIONS.update(classes=None)
    ref = ref_models.build(key, 0)
    from mmdet.structures.mask import BitmapMasks  # what is not compiled there has a stand-in from here on
    from mmengine.structures import InstanceData, PixelData

    ref.model.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])
    network = ref.model.double().eval()  # norms with their statistics
    if hasattr(network, "roi_head"):
        for sampler in (network.rpn_head.sampler, network.roi_head.bbox_sampler):
            sampler.num = ALL
        if hasattr(network, "semantic_head"):
            network.semantic_head.seg_rescale_factor = 1.0
        anchors = network.rpn_head.prior_generator
        grid = anchors.grid_priors
        anchors.grid_priors = lambda *args, **more: [one.double() for one in grid(*args, **more)]
    else:
        network.bbox_head.train()  # distances in strides, as its losses take them
    plain = torch.Tensor.float  # which it uses in one place, on distances
    torch.Tensor.float = lambda self: self if self.dtype == torch.float64 else plain(self)  # type: ignore[method-assign]
    x, truths = torch.load(given, weights_only=True)
    samples = ref.samples(len(x), SIZE)
    for sample, (masks, boxes, classes, label) in zip(samples, truths, strict=True):
        bitmaps = BitmapMasks(masks.numpy().astype(np.uint8), *SIZE)
        sample.gt_instances = InstanceData(bboxes=boxes.double(), labels=classes, masks=bitmaps)
        sample.gt_sem_seg = PixelData(sem_seg=label[None])
    proposals: list[torch.Tensor] = []
    torch.rand = same_draws
    if hasattr(network, "roi_head"):
        both = network.rpn_head.loss_and_predict

        def tapped(*args: Any, **more: Any) -> Any:
            losses, found = both(*args, **more)
            proposals.extend(one.bboxes.detach() for one in found)
            return losses, found

        network.rpn_head.loss_and_predict = tapped
    found = network.loss(x, samples)
    added = {name: sum(value) if isinstance(value, list) else value for name, value in found.items()}
    torch.save(({name: torch.as_tensor(value).detach() for name, value in added.items()}, proposals), out)


def scenes(things: int, stuff: int) -> tuple[torch.Tensor, list[Any]]:
    """Return generated images (N, 3, H, W) in float64 and their segments: objects, and one class of stuff around."""
    from segatlas.data.shapes import draw_scene
    from segatlas.structures import SegmentsTarget

    draw = np.random.default_rng(0)
    images, truths = [], []
    for index in range(SCENES):
        scene = draw_scene(1, "train", index, size=SIZE)
        numbers, ids = np.unique(scene.instances, return_inverse=True)  # the first is that of the ground
        kinds = draw.integers(0, things, len(numbers))
        kinds[0] = things + index % max(stuff, 1)
        is_thing = np.arange(len(numbers)) > 0
        ids = ids.reshape(scene.instances.shape).astype(np.int32)
        truths.append(SegmentsTarget(ids, kinds, is_thing, np.zeros(len(numbers), bool)))
        images.append(torch.from_numpy(scene.image).permute(2, 0, 1).double() / 255)
    return (torch.stack(images) - 0.45) / 0.225, truths


def ours(net: Any, x: torch.Tensor, truths: list[Any], proposals: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the parts of our losses, in two stages on given proposals (P, 4) of each image."""
    from segatlas.losses import LOSSES

    if hasattr(net, "cells"):
        return LOSSES["dynamic_masks"]().parts(net(x, truths), truths)
    stages, anchors = net.stages, net.stages.anchors
    stages.propose = lambda *_: [(boxes, boxes[:, 0]) for boxes in proposals]
    stages.anchors = lambda maps: [one.double() for one in anchors(maps)]
    stages.config = replace(stages.config, drawn=(ALL, ALL), best_anchor_iou=0.3, best_own=True)
    torch.rand = same_draws
    output = net(x, truths)
    parts = dict(LOSSES["two_stage"]().parts(output, truths))
    if output.semantic is not None:
        parts["semantic"] = 0.5 * LOSSES["semantic_branch"]()(output, truths)  # the weight is in theirs
    if "point_logits" in output.raw:
        parts["points"] = LOSSES["mask_points"]()(output, truths)
    return parts


@torch.no_grad()
def compare(folder: Path, key: str, peers: str) -> None:
    """Print the parts of both, and by how much they differ."""
    from segatlas.conversion.converting import convert_file
    from segatlas.hub.loading import load_pretrained
    from segatlas.ops.matching import semantic_of, things_of, true_objects

    with tempfile.TemporaryDirectory() as place:
        convert_file(folder / "checkpoint.pth", f"{place}/net")
        net, _ = load_pretrained(f"{place}/net")
        stuff = getattr(net.config, "stuff", 0)
        x, segments = scenes(net.config.num_classes - stuff, stuff)
        objects = [true_objects(one, "cpu") for one in segments]
        labels = [semantic_of(one, range(net.config.num_classes + 1), "cpu").int() for one in segments]
        given = [(one.masks, one.boxes, one.classes, label) for one, label in zip(objects, labels, strict=True)]
        torch.save((x.flip(1) if net.config.bgr else x, given), f"{place}/given.pt")  # theirs has no such switch
        words = [
            peers,
            __file__,
            "--theirs",
            key,
            str(folder / "checkpoint.pth"),
            f"{place}/given.pt",
            f"{place}/out.pt",
        ]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        theirs, proposals = torch.load(f"{place}/out.pt", weights_only=True)
    truths = segments if stuff else [things_of(one) for one in segments]
    names = CELLS if hasattr(net, "cells") else STAGES
    for name, value in ours(net.double().eval(), x, truths, proposals).items():
        expected = float(theirs[names[name]])
        print(f"{name:10s} ours {float(value):.9f}  theirs {expected:.9f}  {abs(float(value) / expected - 1):.1e}")


def main() -> None:
    """Compare, or be the part of it that runs in the reference environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--key", help="what ref_models.py was asked for; default: the folder's name")
    parser.add_argument("--peers", help="Python of the reference environment")
    parser.add_argument("--theirs", nargs=4, metavar=("KEY", "CHECKPOINT", "GIVEN", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.theirs:
        write_theirs(*args.theirs)
    elif args.folder and args.peers:
        compare(args.folder, args.key or args.folder.resolve().name, args.peers)
    else:
        parser.error("FOLDER and --peers are needed")


if __name__ == "__main__":
    main()
