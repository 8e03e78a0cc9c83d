"""What is made of queries, and what they cost, beside the peers: `python tools/parity_query_rules.py --peers PYTHON`.

Queries are given, so no network plays a part: noise, and queries as a trained network gives them, made of generated
scenes. PYTHON is that of the reference environment (SEGATLAS_SHARED: where `parity/` is). Printed are, for each peer
and rule, the segments, objects or pixels that differ, compared as pairs of a class and a mask; and in float64, with
points that do not depend on how they are drawn, the parts of the losses and the gradient.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
CLASSES, THINGS, QUERIES, STRIDE = 12, 8, 40, 4
CANVAS, RESULT = (256, 320), (300, 411)
EOMT_SIDE, EOMT_RESULT = 320, (240, 300)
LAYERS, POINTS, IMAGES = 3, 512, 2
FIXED = torch.rand(4 * POINTS, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
"""Points that stand in for whatever is drawn."""


# ---- material
def drawn_queries(kind: str, canvas: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Return classes (N, Q, K + 1) and masks (N, Q, h, w): "noise", or "scenes", as a trained network gives them."""
    draw = torch.Generator().manual_seed(seed)
    size = (canvas[0] // STRIDE, canvas[1] // STRIDE)
    classes = torch.randn(IMAGES, QUERIES, CLASSES + 1, generator=draw) * 3
    masks = torch.randn(IMAGES, QUERIES, *size, generator=draw) * 4
    if kind == "noise":
        small = torch.randn(IMAGES, QUERIES, 6, 7, generator=draw)
        return classes, F.interpolate(small, size=size, mode="bicubic") * 6 - 5
    for index in range(IMAGES):
        for query, (mask, label) in enumerate(scene(canvas, 10 * seed + index)):
            if query >= QUERIES - 2:
                break
            near = F.avg_pool2d(F.interpolate(mask[None, None], size=size, mode="area"), 3, 1, 1)[0, 0]
            masks[index, query] = (near * 2 - 1) * 7 + torch.randn(size, generator=draw) * 0.5
            classes[index, query, label] += 9
    return classes, masks


def scene(canvas: tuple[int, int], seed: int) -> list[tuple[Tensor, int]]:
    """Return masks (H, W) float and classes of the objects of a generated scene, its ground in two halves."""
    from segatlas.data.shapes import draw_scene

    numbers = torch.from_numpy(draw_scene(1, "train", seed, size=canvas).instances.astype(np.int64))
    found = [((numbers == one).float(), int(one) % THINGS) for one in numbers.unique() if one]
    ground = numbers == 0
    half = torch.arange(canvas[1])[None] < canvas[1] // 2
    return [*found, ((ground & half).float(), THINGS), ((ground & ~half).float(), THINGS)]


def truths() -> list[tuple[Tensor, Tensor]]:
    """Return masks (M, H, W) bool and classes (M,) of two scenes."""
    made = [scene(CANVAS, seed) for seed in (3, 4)]
    return [(torch.stack([m for m, _ in one]).bool(), torch.tensor([k for _, k in one])) for one in made]


def no_chance(*sizes: Any, **_: Any) -> Tensor:
    """Stand in for torch's random numbers: of points (R, P, 2) the same P for all R."""
    rows, count, _two = sizes[0] if len(sizes) == 1 else sizes
    return FIXED[:count].expand(rows, -1, -1).clone()


# ---- theirs, in the reference environment
def write_theirs(given: str, out: str) -> None:
    """Write what the peers make of queries, and what theirs cost."""
    sys.path.insert(0, str(SHARED / "parity"))
    import ref_models  # stand-ins for what is not compiled

    material = torch.load(given, weights_only=True)
    ref_models.OPTIONS.update(classes=None)
    ref_models.build("md.mask2former_r50_panoptic", 0)
    torch.save({"results": their_results(material), "losses": their_losses(material)}, out)


def their_results(material: Any) -> dict[str, Any]:
    """Return by peer, kind and task what is made of queries."""
    from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
    from mmengine.config import ConfigDict
    from transformers import EomtImageProcessor, Mask2FormerImageProcessor, MaskFormerImageProcessor
    from transformers.models.eomt.image_processing_eomt import get_size_with_aspect_ratio

    stuff = set(range(THINGS, CLASSES))
    found: dict[str, Any] = {"eomt crop": get_size_with_aspect_ratio(EOMT_RESULT, EOMT_SIDE, EOMT_SIDE)}
    for kind in ("noise", "scenes"):
        classes, masks = material[kind]
        given = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks, patch_offsets=None)
        sizes = [RESULT] * IMAGES
        for name, peer in (
            ("transformers mask2former", Mask2FormerImageProcessor()),
            ("transformers maskformer", MaskFormerImageProcessor()),
        ):
            found[f"{name}, {kind}"] = {
                "panoptic": peer.post_process_panoptic_segmentation(given, label_ids_to_fuse=stuff, target_sizes=sizes),
                "instance": peer.post_process_instance_segmentation(
                    given, target_sizes=sizes, return_binary_maps=True, threshold=0.0
                ),
                "semantic": peer.post_process_semantic_segmentation(given, target_sizes=sizes),
            }
        classes, masks = material[f"{kind}, square"]
        given = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks, patch_offsets=None)
        peer, sizes = EomtImageProcessor(), [EOMT_RESULT] * IMAGES
        side = {"shortest_edge": EOMT_SIDE, "longest_edge": EOMT_SIDE}
        found[f"transformers eomt, {kind}"] = {
            "panoptic": peer.post_process_panoptic_segmentation(given, sizes, stuff_classes=[*stuff], size=side),
            "semantic": peer.post_process_semantic_segmentation(given, sizes, size=side),
        }
        classes, masks = material[kind]
        whole = F.interpolate(F.interpolate(masks, CANVAS, mode="bilinear"), RESULT, mode="bilinear")
        for name, keeps_all in (("mmdet mask2former", False), ("mmdet maskformer", True)):
            settings = ConfigDict(filter_low_score=not keeps_all, max_per_image=100, object_mask_thr=0.8, iou_thr=0.8)
            head = MaskFormerFusionHead(THINGS, CLASSES - THINGS, settings)
            panoptic = [head.panoptic_postprocess(c, m).sem_seg[0] for c, m in zip(classes, whole, strict=True)]
            objects = [head.instance_postprocess(c, m) for c, m in zip(classes, whole, strict=True)]
            found[f"{name}, {kind}"] = {
                "panoptic": panoptic,
                "instance": [{"masks": o.masks, "labels": o.labels, "scores": o.scores} for o in objects],
            }
    return found


def their_losses(material: Any) -> dict[str, Any]:
    """Return by peer the parts of the loss and the gradient of the last layer's masks."""
    from mmdet.registry import MODELS, TASK_UTILS
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss
    from transformers.models.maskformer import modeling_maskformer as maskformer

    torch.rand = no_chance  # type: ignore[assignment]
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # which it makes of masks
    layers, objects = material["layers"], material["truths"]
    found = {}
    samples = [InstanceData(labels=kinds, masks=masks.long()) for masks, kinds in objects]
    for name in ("mask2former", "maskformer"):
        head = _their_head(name, MODELS, TASK_UTILS)
        classes, masks = _stacked(layers)
        parts = head.loss_by_feat(classes, masks, samples, [DetDataSample().metainfo] * len(samples))
        found[f"mmdet {name}"] = _summed(parts, {"class": "loss_cls", "mask": "loss_mask", "dice": "loss_dice"}, masks)
    settings = SimpleNamespace(
        num_labels=CLASSES,
        no_object_weight=0.1,
        train_num_points=POINTS,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        class_weight=2.0,
        dice_weight=5.0,
        mask_weight=5.0,
    )
    of_all = {"class": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}
    factors = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    matcher = maskformer.MaskFormerHungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)
    for name, loss, weights in (
        ("mask2former", Mask2FormerLoss(settings, factors), factors),
        (
            "maskformer",
            maskformer.MaskFormerLoss(CLASSES, matcher, {}, 0.1),
            {"loss_cross_entropy": 1.0, "loss_mask": 20.0, "loss_dice": 1.0},
        ),
    ):
        classes, masks = _stacked(layers)
        earlier = [{"masks_queries_logits": m, "class_queries_logits": c} for c, m in zip(classes, masks, strict=True)]
        parts = loss.double()(
            masks[-1], classes[-1], [m.double() for m, _ in objects], [k for _, k in objects], earlier[:-1]
        )
        weighted = {
            key: value * next(w for n, w in weights.items() if key.startswith(n)) for key, value in parts.items()
        }
        found[f"transformers {name}"] = _summed(weighted, of_all, masks)
    return found


def _their_head(name: str, models: Any, utils: Any) -> Any:
    """Return MMDetection's head with nothing in it but what its losses read."""
    from mmdet.models.dense_heads import Mask2FormerHead, MaskFormerHead

    of_points = name == "mask2former"
    head = (Mask2FormerHead if of_points else MaskFormerHead).__new__(Mask2FormerHead if of_points else MaskFormerHead)
    torch.nn.Module.__init__(head)
    weights = (2.0, 5.0, 5.0) if of_points else (1.0, 20.0, 1.0)
    pixel = (
        {"type": "CrossEntropyLossCost", "use_sigmoid": True}
        if of_points
        else {"type": "FocalLossCost", "binary_input": True}
    )
    costs = [
        {"type": "ClassificationCost", "weight": weights[0]},
        {**pixel, "weight": weights[1]},
        {"type": "DiceCost", "weight": weights[2], "pred_act": True, "eps": 1.0},
    ]
    head.assigner = utils.build({"type": "HungarianAssigner", "match_costs": costs})
    head.sampler = utils.build({"type": "MaskPseudoSampler"})
    head.num_classes, head.num_queries, head.class_weight = CLASSES, QUERIES, [1.0] * CLASSES + [0.1]
    head.num_points, head.oversample_ratio, head.importance_sample_ratio = POINTS, 3.0, 0.75
    head.loss_cls = models.build(
        {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weights[0], "class_weight": head.class_weight}
    )
    head.loss_mask = models.build(
        {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": weights[1], "reduction": "mean"}
        if of_points
        else {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": weights[1]}
    )
    head.loss_dice = models.build(
        {
            "type": "DiceLoss",
            "use_sigmoid": True,
            "activate": True,
            "naive_dice": True,
            "eps": 1.0,
            "loss_weight": weights[2],
        }
    )
    return head


def _stacked(layers: Any) -> tuple[Tensor, Tensor]:
    """Return classes and masks (L, N, Q, ...) in float64, of which gradients are taken."""
    classes, masks = (torch.stack([layer[index] for layer in layers]).requires_grad_() for index in (0, 1))
    return classes, masks


def _summed(parts: Any, names: dict[str, str], masks: Tensor) -> dict[str, Tensor]:
    """Return the weighted parts, each summed over layers, and the gradient of all masks."""
    found = {ours: sum(value for key, value in parts.items() if theirs in key) for ours, theirs in names.items()}
    (gradient,) = torch.autograd.grad(sum(found.values()), masks)
    return {**{name: value.detach() for name, value in found.items()}, "gradient": gradient}


# ---- ours
def compare(peers: str) -> None:
    """Print how ours differ."""
    material: dict[str, Any] = {
        **{kind: drawn_queries(kind, CANVAS, 1) for kind in ("noise", "scenes")},
        **{f"{kind}, square": drawn_queries(kind, (EOMT_SIDE, EOMT_SIDE), 2) for kind in ("noise", "scenes")},
        "layers": [tuple(x.double() for x in drawn_queries("scenes", CANVAS, seed)) for seed in range(3, 3 + LAYERS)],
        "truths": truths(),
    }
    with tempfile.TemporaryDirectory() as place:
        torch.save(material, f"{place}/given.pt")
        words = [peers, __file__, "--theirs", f"{place}/given.pt", f"{place}/out.pt"]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        theirs = torch.load(f"{place}/out.pt", weights_only=False)
    compare_results(material, theirs["results"])
    compare_losses(material, theirs["losses"])


def compare_results(material: Any, theirs: Any) -> None:
    """Print for each peer, kind of queries and task what differs."""
    from dataclasses import replace

    from segatlas.config import objects
    from segatlas.postprocess import find
    from segatlas.structures import QueryMasks

    rules = {
        "transformers mask2former": replace(objects.TRANSFORMERS_MASK2FORMER, score=0.0),
        "transformers maskformer": replace(objects.TRANSFORMERS_MASKFORMER, score=0.0),
        "transformers eomt": objects.TRANSFORMERS_EOMT,
        "mmdet mask2former": objects.MASK2FORMER,
        "mmdet maskformer": objects.MMDET_MASKFORMER,
    }
    things = tuple(index < THINGS for index in range(CLASSES))
    for label, results in theirs.items():
        if label == "eomt crop":
            continue
        name, _, kind = label.partition(", ")
        is_eomt = name.endswith("eomt")
        canvas, size = ((EOMT_SIDE, EOMT_SIDE), EOMT_RESULT) if is_eomt else (CANVAS, RESULT)
        output = QueryMasks(*material[f"{kind}, square" if is_eomt else kind], canvas=canvas)
        for task, expected in results.items():
            crop = tuple(theirs["eomt crop"]) if is_eomt and task == "panoptic" else canvas
            rule = objects.CLASS_MAPS_OF_QUERIES if is_eomt and task == "semantic" else rules[name]
            given_things = () if name.startswith("transformers") and task == "instance" else things
            ours = find("QueryMasks", task)(output, size, crop=crop, rule=rule, things=given_things)
            told = [
                DIFFERENCES[task](one, other, name.startswith("transformers"))
                for one, other in zip(ours, expected, strict=True)
            ]
            print(f"{label:34s} {task:9s} {'; '.join(told)}")


def segments_that_differ(ours: Any, theirs: Any, from_transformers: bool) -> str:
    """Compare segments as pairs of a class and a mask."""
    own = [(one.class_index, ours.panoptic.ids == one.id) for one in ours.panoptic.segments]
    if from_transformers:
        numbers = [one["id"] for one in theirs["segments_info"]]
        kinds = {one["id"]: one["label_id"] for one in theirs["segments_info"]}
        ids = theirs["segmentation"].numpy()
        if any(kinds[one["id"]] != one["label_id"] for one in theirs["segments_info"]) or len(set(numbers)) < len(
            kinds
        ):
            return "theirs gives one id twice"
        listed = [(kind, ids == number) for number, kind in kinds.items()]
    else:
        ids = theirs.numpy()
        listed = [(int(number) % 1000, ids == number) for number in np.unique(ids) if number != CLASSES]
    left = [pair for pair in own if not any(pair[0] == k and np.array_equal(pair[1], m) for k, m in listed)]
    pixels = sum(
        min([int((mask != m).sum()) for k, m in listed if k == kind], default=int(mask.sum())) for kind, mask in left
    )
    return f"{len(own)} segments, theirs {len(listed)}; {len(left)} differ, by {pixels} pixels"


def objects_that_differ(ours: Any, theirs: Any, from_transformers: bool) -> str:
    """Compare objects by falling score."""
    own = [(one.class_index, one.score, one.bitmap()) for one in ours.instances]
    if from_transformers:
        maps = theirs["segmentation"].numpy() > 0
        facts = [(one["label_id"], one["score"]) for one in theirs["segments_info"]]
        listed = [(kind, score, mask) for (kind, score), mask in zip(facts, maps, strict=True)]
    else:
        listed = [
            (int(k), float(s), m)
            for k, s, m in zip(theirs["labels"], theirs["scores"], theirs["masks"].numpy(), strict=True)
            if m.any()
        ]
    missing = 0
    for kind, score, mask in own:
        fits = (k == kind and abs(s - score) < 1e-5 and np.array_equal(m, mask) for k, s, m in listed)
        missing += not any(fits)
    return f"{len(own)} objects, theirs {len(listed)}; {missing} differ"


def pixels_that_differ(ours: Any, theirs: Any, _: bool) -> str:
    """Compare class maps."""
    return f"{int((ours.semantic != theirs.numpy()).sum())} of {theirs.numel()} pixels differ"


DIFFERENCES = {"panoptic": segments_that_differ, "instance": objects_that_differ, "semantic": pixels_that_differ}


def compare_losses(material: Any, theirs: Any) -> None:
    """Print for each peer the parts of the loss of both, and by how much parts and gradient differ."""
    from segatlas import criteria
    from segatlas.losses import LOSSES
    from segatlas.structures import InstancesTarget, QueryLayer, QueryMasks

    drawn, torch.rand = torch.rand, no_chance  # type: ignore[assignment]
    targets = [
        InstancesTarget(masks, kinds, torch.zeros(len(kinds), dtype=torch.bool)) for masks, kinds in material["truths"]
    ]
    for label, expected in theirs.items():
        of_points = label.endswith("mask2former")
        term = LOSSES["query_points"](points=POINTS, void="background") if of_points else LOSSES["query_maps"]()
        classes, masks = _stacked(material["layers"])
        layers = [QueryLayer(c, m) for c, m in zip(classes, masks, strict=True)]
        aux = {f"layer_{index}": layer for index, layer in enumerate(layers[:-1])}
        total, parts = criteria.build("QueryMasks", [term])(QueryMasks(*layers[-1], canvas=CANVAS, aux=aux), targets)
        (gradient,) = torch.autograd.grad(total, masks)
        factors = {"class": term.class_weight, "mask": term.mask_weight, "dice": term.dice_weight}
        told = []
        for name, factor in factors.items():
            value, other = factor * float(parts[name]), float(expected[name])
            told.append(f"{name} {value:.9f} theirs {other:.9f} ({abs(value / other - 1):.1e})")
        apart = float((gradient - expected["gradient"]).abs().max() / expected["gradient"].abs().max())
        print(f"{label:26s} {'; '.join(told)}; gradient {apart:.1e}")
    torch.rand = drawn  # type: ignore[assignment]


def main() -> None:
    """Compare, or be the part of it that runs in the reference environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of the reference environment")
    parser.add_argument("--theirs", nargs=2, metavar=("GIVEN", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.theirs:
        write_theirs(*args.theirs)
    elif args.peers:
        compare(args.peers)
    else:
        parser.error("--peers is needed")


if __name__ == "__main__":
    main()
