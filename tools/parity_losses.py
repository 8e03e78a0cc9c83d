"""The losses of CondInst beside MMDetection's, in float64: `python tools/parity_losses.py FOLDER --peers PYTHON`.

FOLDER is what `ref_models.py md.condinst_r50` wrote. Both networks get its weights and the same generated scenes with
their objects, PYTHON is that of the reference environment (SEGATLAS_SHARED: where `parity/` is). Printed are the four
parts and their relative differences. Sides are multiples of 128 pixels: of coarse cells beyond the image MMDetection
takes a loss, and ours does not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
SIZE, SCENES = (256, 384), 2
PARTS = {"class": "loss_cls", "box": "loss_bbox", "centerness": "loss_centerness", "mask": "loss_mask"}
"""Ours -> theirs."""


def write_theirs(checkpoint: str, given: str, out: str) -> None:
    """In the reference environment: write what MMDetection's losses are of given images and objects."""
    sys.path.insert(0, str(SHARED / "parity"))
    import ref_models

    ref_models.OPTIONS.update(classes=None)
    ref = ref_models.build("md.condinst_r50", 0)
    from mmdet.structures.mask import BitmapMasks  # what is not compiled there has a stand-in from here on
    from mmengine.structures import InstanceData

    ref.model.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])
    network = ref.model.double().eval()  # norms with their statistics
    network.bbox_head.train()  # distances in strides, as its losses take them
    plain = torch.Tensor.float  # which it uses in one place, on distances
    torch.Tensor.float = lambda self: self if self.dtype == torch.float64 else plain(self)  # type: ignore[method-assign]
    x, truths = torch.load(given, weights_only=True)
    samples = ref.samples(len(x), SIZE)
    for sample, (masks, boxes, classes) in zip(samples, truths, strict=True):
        bitmaps = BitmapMasks(masks.numpy().astype(np.uint8), *SIZE)
        sample.gt_instances = InstanceData(bboxes=boxes.double(), labels=classes, masks=bitmaps)
    found = network.loss(x, samples)
    torch.save({name: torch.as_tensor(value).detach() for name, value in found.items()}, out)


def scenes(classes: int) -> tuple[torch.Tensor, list[Any]]:
    """Return generated images (N, 3, H, W) in float64 and their objects, of classes drawn at random."""
    from segatlas.data.shapes import draw_scene
    from segatlas.structures import InstancesTarget

    draw = np.random.default_rng(0)
    images, truths = [], []
    for index in range(SCENES):
        scene = draw_scene(1, "train", index, size=SIZE)
        numbers = [number for number in np.unique(scene.instances) if number]
        masks = np.stack([scene.instances == number for number in numbers])
        truths.append(InstancesTarget(masks, draw.integers(0, classes, len(numbers)), np.zeros(len(numbers), bool)))
        images.append(torch.from_numpy(scene.image).permute(2, 0, 1).double() / 255)
    return (torch.stack(images) - 0.45) / 0.225, truths


@torch.no_grad()
def compare(folder: Path, peers: str) -> None:
    """Print the parts of both, and by how much they differ."""
    from segatlas.conversion.converting import convert_file
    from segatlas.hub.loading import load_pretrained
    from segatlas.losses import LOSSES
    from segatlas.ops.matching import true_objects

    with tempfile.TemporaryDirectory() as place:
        convert_file(folder / "checkpoint.pth", f"{place}/net")
        net, _ = load_pretrained(f"{place}/net")
        x, truths = scenes(net.config.num_classes)
        objects = [true_objects(one, "cpu") for one in truths]
        torch.save((x, [(one.masks, one.boxes, one.classes) for one in objects]), f"{place}/given.pt")
        words = [peers, __file__, "--theirs", str(folder / "checkpoint.pth"), f"{place}/given.pt", f"{place}/out.pt"]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        theirs = torch.load(f"{place}/out.pt", weights_only=True)
    output = net.double().eval()(x, truths)
    for ours, value in LOSSES["dynamic_masks"]().parts(output, truths).items():
        expected = float(theirs[PARTS[ours]])
        print(f"{ours:10s} ours {float(value):.9f}  theirs {expected:.9f}  {abs(float(value) / expected - 1):.1e}")


def main() -> None:
    """Compare, or be the part of it that runs in the reference environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--peers", help="Python of the reference environment")
    parser.add_argument("--theirs", nargs=3, metavar=("CHECKPOINT", "GIVEN", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.theirs:
        write_theirs(*args.theirs)
    elif args.folder and args.peers:
        compare(args.folder, args.peers)
    else:
        parser.error("FOLDER and --peers are needed")


if __name__ == "__main__":
    main()
