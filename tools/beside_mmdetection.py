"""Recipes of networks that find objects beside MMDetection's settings: both sides of each figure as a table.

    PYTHONPATH=src:tools PEERS/bin/python tools/beside_mmdetection.py

PEERS is the environment that `../shared/parity/ref_env.sh` makes. The table is written into
`docs/objects-beside-peers.md`; what is unlike is said there with both figures. Nothing is trained.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from generate_docs import table, write_between

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "objects-beside-peers.md"
MARKS = ("<!-- settings -->", "<!-- end of settings -->")
GPUS = 8
"""Of their configs whose names say none; they state images for one."""
PEERS = {
    "mask_rcnn_coco": "mask_rcnn/mask-rcnn_r50_fpn_1x_coco",
    "panoptic_fpn_coco": "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco",
    "mask_rcnn_cityscapes": "cityscapes/mask-rcnn_r50_fpn_1x_cityscapes",
    "pointrend_instance_coco": "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco",
    "condinst_coco": "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance",
    "mask2former_coco": "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic",
    "mask2former_coco_instance": "mask2former/mask2former_r50_8xb2-lsj-50e_coco",
    "mask2former_swin_coco": "mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic",
    "maskformer_coco": "maskformer/maskformer_r50_ms-16xb1-75e_coco",
}
"""Recipe -> their config."""


def theirs(name: str) -> dict[str, str]:
    """Return the figures of one of their configs."""
    import mmdet
    from mmengine import Config

    config = Config.fromfile(os.path.join(os.path.dirname(mmdet.__file__), ".mim", "configs", f"{name}.py"))
    loader, optimiser = config.train_dataloader, config.optim_wrapper.optimizer
    times = loader.dataset.get("times", 1)
    pipeline = loader.dataset.get("dataset", loader.dataset).pipeline
    schedule = config.param_scheduler
    *warmup, drops = [schedule] if isinstance(schedule, dict) else schedule
    gpus = re.search(r"(\d+)xb\d", name)
    steps = config.train_cfg.get("max_iters")
    epochs = None if steps else times * config.train_cfg.max_epochs
    figures = {
        "images a step": str((int(gpus[1]) if gpus else GPUS) * loader.batch_size),
        "length": f"{steps} steps" if steps else f"{epochs} epochs",
        "rate": f"{optimiser.lr:g}" + _their_factor(config.optim_wrapper),
        "momentum, decay": f"{_numbers(optimiser.get('momentum') or optimiser.betas)}, {optimiser.weight_decay:g}",
        "drops to a tenth behind": ", ".join(str(times * one if epochs else one) for one in drops.milestones),
        "warm-up": f"{warmup[0].end} steps from {warmup[0].start_factor:g}" if warmup else "none",
        "largest gradient": str((config.optim_wrapper.get("clip_grad") or {}).get("max_norm")),
        "sizes": _their_sizes(pipeline),
        "flip": str(next(step.prob for step in pipeline if step.type == "RandomFlip")),
        "frozen stages, norms' statistics, their weights": _their_frozen(config.model.backbone),
    }
    if "panoptic_head" in config.model:
        figures |= _their_queries(config.model)
    return figures | (_their_stages(config.model) if "roi_head" in config.model else {})


def _their_frozen(encoder: Any) -> str:
    weights = not encoder.get("norm_cfg", {}).get("requires_grad", True)
    return f"{encoder.frozen_stages}, {encoder.get('norm_eval', False)}, {weights}"


def _numbers(values: Any) -> str:
    return ", ".join(f"{one:g}" for one in (values if isinstance(values, list | tuple) else [values]))


def _their_factor(wrapper: Any) -> str:
    factor = wrapper.get("paramwise_cfg", {}).get("custom_keys", {}).get("backbone", {}).get("lr_mult", 1)
    return f", encoder x {factor:g}" if factor != 1 else ""


def _their_sizes(pipeline: Any) -> str:
    choice = next((step for step in pipeline if step.type == "RandomChoice"), None)
    if choice is not None:
        return _their_sizes(choice.transforms[0]) + ", half of them cut besides"
    step = next(step for step in pipeline if "Resize" in step.type)
    if step.get("ratio_range"):
        low, high = step.ratio_range
        cut = next((one.crop_size for one in pipeline if one.type == "RandomCrop"), None)
        return f"{_sides(step.scale)} times {low:g} to {high:g}" + (f", cut to {_sides(cut)}" if cut else "")
    scales = step.get("scales", step.get("scale"))
    scales = [scales] if isinstance(scales[0], int) else scales
    short = sorted(min(one) for one in scales)
    between = {"RandomChoiceResize": f" in {len(short)} steps", "RandomResize": ""}.get(step.type, "")
    return f"{short[0]}{f' to {short[-1]}' if len(short) > 1 else ''}{between}, at most {max(map(max, scales))}"


def _their_stages(model: Any) -> dict[str, str]:
    train, test, proposals = model.train_cfg, model.test_cfg.rcnn, model.train_cfg.rpn_proposal
    box = model.roi_head.bbox_head.loss_bbox
    semantic = model.get("semantic_head")
    return {
        "anchors: background, objects, best": _limits(train.rpn.assigner),
        "anchors drawn": _sampled(train.rpn.sampler),
        "proposals": f"{proposals.nms_pre}, {proposals.max_per_img} at {proposals.nms.iou_threshold}",
        "boxes: background, objects, best": _limits(train.rcnn.assigner),
        "boxes drawn": _sampled(train.rcnn.sampler),
        "box loss": f"{'L1' if box.type == 'L1Loss' else f'smooth L1 below {box.beta:g}'}, weight {box.loss_weight:g}",
        "semantic loss": f"weight {semantic.loss_seg.loss_weight:g}" if semantic else "",
        "points: of a box, drawn, uncertain": _their_points(model),
        "detections: score, IoU, most": f"{test.score_thr:g}, {test.nms.iou_threshold:g}, {test.max_per_img}"
        + (", of any class" if test.nms.get("class_agnostic") else ""),
    }


def _their_points(model: Any) -> str:
    head, train = model.roi_head.get("point_head"), model.train_cfg.rcnn
    if head is None:
        return ""
    return _points(train.num_points, train.oversample_ratio, train.importance_sample_ratio, head.loss_point.loss_weight)


def _points(count: int, oversample: int, importance: float, weight: float) -> str:
    return f"{count}, {oversample} times, {importance:g}, weight {weight:g}"


def _sides(size: Any) -> str:
    return "x".join(map(str, sorted(size)))


def _their_queries(model: Any) -> dict[str, str]:
    head, train = model.panoptic_head, model.train_cfg
    costs = [cost.weight for cost in train.assigner.match_costs]
    points = train.get("num_points")
    return {
        "queries": str(head.get("num_queries", 100)),
        "losses: class, mask, Dice": _numbers([loss.loss_weight for loss in _query_losses(head)]),
        "costs": _numbers(costs),
        "a mask is judged": f"at {points} points" if points else _focal(head.loss_mask.alpha, head.loss_mask.gamma),
        "weight of no object": f"{head.loss_cls.class_weight[-1]:g}",
        "void": "background",
    }


def _query_losses(head: Any) -> list[Any]:
    return [head.loss_cls, head.loss_mask, head.loss_dice]


def _focal(alpha: float, gamma: float) -> str:
    return f"whole, focal {alpha:g} {gamma:g}"


def _our_queries(config: Any) -> dict[str, str]:
    (loss,) = config.losses
    points = getattr(loss, "points", None)
    weights = _numbers([loss.class_weight, loss.mask_weight, loss.dice_weight])
    return {
        "queries": str(_network(config).queries),
        "losses: class, mask, Dice": weights,
        "costs": weights,
        "a mask is judged": f"at {points} points" if points else _focal(loss.alpha, loss.gamma),
        "weight of no object": f"{loss.none_weight:g}",
        "void": loss.void,
    }


def _limits(rule: Any) -> str:
    own = ", best ones their own" if rule.match_low_quality else ""
    return f"{rule.neg_iou_thr:g}, {rule.pos_iou_thr:g}, {rule.min_pos_iou:g}{own}"


def _sampled(rule: Any) -> str:
    return f"{rule.num}, {rule.pos_fraction:g} of objects"


def ours(name: str) -> dict[str, str]:
    """Return the figures of a recipe."""
    from segatlas.recipe import Config

    config = Config.load(name)
    train, model, geometry = config.train, config.model, config.transforms
    length = train.steps or train.epochs
    drops = [round(fraction * length) for fraction in train.schedule.milestones]
    fit = str(geometry.resize).removeprefix("fit:")
    least, most = (int(side) for side in fit.split("x"))
    scale = geometry.scale or (1.0, 1.0)
    short = sorted({round(factor * least) for factor in scale})
    sizes = f"{' to '.join(map(str, short))}, at most {most}"
    if geometry.crop:
        sizes = f"{least}x{most} times {scale[0]:g} to {scale[1]:g}, cut to {_sides(geometry.crop)}"
    optimiser = train.optimizer
    factor = f", encoder x {optimiser.encoder_lr_factor:g}" if optimiser.encoder_lr_factor != 1 else ""
    figures = {
        "images a step": str(train.batch * train.accumulate),
        "length": f"{train.steps} steps" if train.steps else f"{train.epochs} epochs",
        "rate": f"{train.lr:g}" + factor,
        "momentum, decay": f"{_numbers(optimiser.momentum if optimiser.name == 'sgd' else optimiser.betas)}, "
        f"{optimiser.weight_decay:g}",
        "drops to a tenth behind": ", ".join(map(str, drops)),
        "warm-up": f"{train.schedule.warmup} steps from {train.schedule.warmup_ratio:g}"
        if train.schedule.warmup
        else "none",
        "largest gradient": str(train.clip),
        "sizes": sizes,
        "flip": str(geometry.flip),
        "frozen stages, norms' statistics, their weights": f"{train.freeze_stages - 1}, {train.freeze_norms}, "
        f"{train.freeze_norm_weights}",
    }
    if model.name.startswith(("mask2former", "maskformer")):
        figures |= _our_queries(config)
    staged = ("mask_rcnn", "panoptic_fpn", "pointrend_instance")
    return figures | (_our_stages(config) if model.name.startswith(staged) else {})


def _network(config: Any) -> Any:
    """Return the settings of a recipe's network."""
    from segatlas.models import find_entry
    from segatlas.models.reading import load_architecture, read_config

    fields = {key: value for key, value in config.model.model_dump().items() if value is not None}
    name = fields.pop("name")
    record = load_architecture(find_entry(name)[0].name)
    known = {key: value for key, value in fields.items() if key in record.config.__dataclass_fields__}
    net, _ = read_config(record, {"num_classes": 80, **known}, variant=name)
    return net


def _our_stages(config: Any) -> dict[str, str]:
    from segatlas.layers.two_stage import ANCHOR_IOUS, BOX_IOU, BOX_OBJECTS, RPN_OBJECTS

    net = _network(config)
    own = ", best ones their own" if net.best_own else ""
    losses = {one.name: one for one in config.losses}
    box = losses["two_stage"]
    semantic, points = losses.get("semantic_branch"), losses.get("mask_points")
    return {
        "anchors: background, objects, best": f"{ANCHOR_IOUS[0]:g}, {ANCHOR_IOUS[1]:g}, {net.best_anchor_iou:g}{own}",
        "anchors drawn": f"{net.drawn[0]}, {RPN_OBJECTS:g} of objects",
        "proposals": f"{net.train_proposals[0]}, {net.train_proposals[1]} at {net.proposal_iou}",
        "boxes: background, objects, best": f"{BOX_IOU:g}, {BOX_IOU:g}, {BOX_IOU:g}{own}",
        "boxes drawn": f"{net.drawn[1]}, {BOX_OBJECTS:g} of objects",
        "box loss": f"{f'smooth L1 below {box.box_beta:g}' if box.box_beta else 'L1'}, weight {box.box_weight:g}",
        "semantic loss": f"weight {semantic.weight:g}" if semantic else "",
        "points: of a box, drawn, uncertain": _points(net.train_points, net.oversample, net.importance, points.weight)
        if points
        else "",
        "detections: score, IoU, most": f"{net.score_threshold:g}, {net.nms_iou:g}, {net.top}"
        + (", of any class" if net.class_agnostic else ""),
    }


def main() -> int:
    """Write the table."""
    pairs = {recipe: (ours(recipe), theirs(peer)) for recipe, peer in PEERS.items()}
    facts = list(dict.fromkeys(fact for mine, _ in pairs.values() for fact in mine))
    rows = []
    for fact in facts:
        both = [(mine.get(fact, ""), other.get(fact, "")) for mine, other in pairs.values()]
        rows.append([fact, *(one if one == two else f"**{one}** (theirs {two})" for one, two in both)])
    write_between(PAGE, table(["", *(f"`{recipe}`" for recipe in pairs)], rows), MARKS)
    unlike = sum(one.count("**") // 2 for row in rows for one in row)
    print(f"{len(rows)} figures of {len(pairs)} recipes, {unlike} unlike -> {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
