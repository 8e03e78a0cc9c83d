"""Recipes that train as MMSegmentation does, beside MMSegmentation: settings, and what both compute.

    PYTHONPATH=src:tools PEERS/bin/python tools/beside_mmsegmentation.py settings rates losses draws scores [--seed 0]

PEERS is the environment that `../shared/parity/ref_env.sh` makes. Results are kept in `docs/from-mmsegmentation.json`,
and the tables of `docs/from-mmsegmentation.md` are written from it. Exits 1 where a number is beyond its limit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import warnings
from datetime import date
from pathlib import Path
from typing import Any

from generate_docs import write_between

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
RESULTS, PAGE = ROOT / "docs" / "from-mmsegmentation.json", ROOT / "docs" / "from-mmsegmentation.md"
ENDS = {"ade20k": "4xb4-160k_ade20k-512x512", "cityscapes": "4xb2-80k_cityscapes-512x1024"}
BOTH = {
    "deeplabv3": "deeplabv3/deeplabv3_r50-d8",
    "deeplabv3 mobilenet_v2": "mobilenet_v2/mobilenet-v2-d8_deeplabv3",
    "deeplabv3 resnest101": "resnest/resnest_s101-d8_deeplabv3",
    "deeplabv3plus": "deeplabv3plus/deeplabv3plus_r50-d8",
    "deeplabv3plus mobilenet_v2": "mobilenet_v2/mobilenet-v2-d8_deeplabv3plus",
    "deeplabv3plus resnest101": "resnest/resnest_s101-d8_deeplabv3plus",
    "dnlnet": "dnlnet/dnl_r50-d8",
    "fastfcn": "fastfcn/fastfcn_r50-d32_jpu_psp",
    "fastfcn aspp": "fastfcn/fastfcn_r50-d32_jpu_aspp",
    "fastfcn enc": "fastfcn/fastfcn_r50-d32_jpu_enc",
    "fcn": "fcn/fcn_r50-d8",
    "fcn hr18": "hrnet/fcn_hr18",
    "fcn hr48": "hrnet/fcn_hr48",
    "fcn mobilenet_v2": "mobilenet_v2/mobilenet-v2-d8_fcn",
    "fcn resnest101": "resnest/resnest_s101-d8_fcn",
    "gcnet": "gcnet/gcnet_r50-d8",
    "isanet": "isanet/isanet_r50-d8",
    "nonlocal_net": "nonlocal_net/nonlocal_r50-d8",
    "ocrnet": "ocrnet/ocrnet_hr18",
    "ocrnet hr48": "ocrnet/ocrnet_hr48",
    "pointrend": "point_rend/pointrend_r50",
    "psanet": "psanet/psanet_r50-d8",
    "pspnet": "pspnet/pspnet_r50-d8",
    "pspnet mobilenet_v2": "mobilenet_v2/mobilenet-v2-d8_pspnet",
    "pspnet resnest101": "resnest/resnest_s101-d8_pspnet",
    "semantic_fpn": "sem_fpn/fpn_r50",
    "upernet": "upernet/upernet_r50",
}
"""Folder of recipes and the end of their names -> what the peer's configs for both datasets begin with."""
OTHERS = {
    "bisenetv1_cityscapes": "bisenetv1/bisenetv1_r18-d32-in1k-pre_4xb4-160k_cityscapes-1024x1024",
    "bisenetv2_cityscapes": "bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024",
    "cgnet_cityscapes": "cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024",
    "ddrnet_cityscapes": "ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024",
    "dpt_ade20k": "dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512",
    "erfnet_cityscapes": "erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024",
    "fast_scnn_cityscapes": "fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024",
    "icnet_cityscapes": "icnet/icnet_r50-d8-in1k-pre_4xb2-80k_cityscapes-832x832",
    "knet_ade20k": "knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512",
    "knet_swin_640_ade20k": "knet/knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-640x640",
    "knet_swin_ade20k": "knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512",
    "mask2former_ade20k": "mask2former/mask2former_r50_8xb2-160k_ade20k-512x512",
    "mask2former_cityscapes": "mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024",
    "mask2former_swin_ade20k": "mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512",
    "maskformer_ade20k": "maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512",
    "maskformer_swin_ade20k": "maskformer/maskformer_swin-t_upernet_8xb2-160k_ade20k-512x512",
    "pidnet_cityscapes": "pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes",
    "pspnet_cityscapes_resnest101": "resnest/resnest_s101-d8_pspnet_4xb2-80k_cityscapes512x1024",
    "segformer_ade20k": "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512",
    "segformer_b5_ade20k": "segformer/segformer_mit-b5_8xb2-160k_ade20k-640x640",
    "segformer_cityscapes": "segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024",
    "segmenter_ade20k": "segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512",
    "segmenter_ade20k_l": "segmenter/segmenter_vit-l_mask_8xb1-160k_ade20k-512x512",
    "segnext_ade20k": "segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512",
    "semantic_fpn_poolformer_ade20k": "poolformer/fpn_poolformer_s12_8xb4-40k_ade20k-512x512",
    "semantic_fpn_twins_ade20k": "twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512",
    "setr_ade20k": "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512",
    "setr_ade20k_mla": "setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512",
    "setr_ade20k_pup": "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512",
    "setr_cityscapes": "setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768",
    "setr_cityscapes_mla": "setr/setr_vit-l_mla_8xb1-80k_cityscapes-768x768",
    "setr_cityscapes_pup": "setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768",
    "stdc_cityscapes": "stdc/stdc1_4xb12-80k_cityscapes-512x1024",
    "stdc_cityscapes_stdc2": "stdc/stdc2_4xb12-80k_cityscapes-512x1024",
    "upernet_beit_ade20k": "beit/beit-base_upernet_8xb2-160k_ade20k-640x640",
    "upernet_beit_large_ade20k": "beit/beit-large_upernet_8xb1-amp-160k_ade20k-640x640",
    "upernet_convnext_640_ade20k": "convnext/convnext-base_upernet_8xb2-amp-160k_ade20k-640x640",
    "upernet_convnext_ade20k": "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512",
    "upernet_mae_ade20k": "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512",
    "upernet_swin_ade20k": "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512",
    "upernet_swin_w12_ade20k": "swin/swin-base-patch4-window12-in22k-384x384-pre_upernet_8xb2-160k_ade20k-512x512",
    "upernet_twins_ade20k": "twins/twins_svt-s_uperhead_8xb2-160k_ade20k-512x512",
    "upernet_vit_ade20k": "vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512",
}
PAIRS = {
    f"{key.split()[0]}_{data}{''.join(f'_{word}' for word in key.split()[1:])}": f"{stem}_{end}"
    for key, stem in BOTH.items()
    for data, end in ENDS.items()
} | OTHERS
"""Shipped recipe -> the peer's config."""
ALONE = {
    "lraspp_ade20k": "its LR-ASPP is another network (stride 8, a third branch), trained on Cityscapes only",
    "stdc_ade20k": "it has STDC on Cityscapes only; the recipe takes that training",
    "upernet_vit_adapter_ade20k": "it has no ViT-Adapter; the recipe is the authors'",
    "upernet_vit_adapter_large_ade20k": "it has no ViT-Adapter; the recipe is the authors'",
}
"""Recipes of ADE20K and Cityscapes without a config of the peer, and why."""
REALTIME = (
    *("bisenetv1_cityscapes", "bisenetv2_cityscapes", "cgnet_cityscapes", "ddrnet_cityscapes", "erfnet_cityscapes"),
    *("fast_scnn_cityscapes", "icnet_cityscapes", "pidnet_cityscapes"),
)
RATES = (
    *REALTIME,
    "fcn_ade20k",
    "knet_swin_ade20k",
    "mask2former_ade20k",
    "mask2former_cityscapes",
    "mask2former_swin_ade20k",
    "maskformer_ade20k",
    "maskformer_swin_ade20k",
    "segformer_cityscapes",
    "segnext_ade20k",
    "semantic_fpn_poolformer_ade20k",
    "setr_ade20k_mla",
    "upernet_mae_ade20k",
)
QUERIES = ("mask2former_ade20k", "maskformer_ade20k")
LOSSES = ("fcn_ade20k", "segformer_cityscapes", "ocrnet_ade20k", "stdc_cityscapes", *REALTIME, *QUERIES)
FORMS: dict[str, dict[str, Any]] = {
    "segformer": {"projection_norm": True},
    **{start: {"patch_bias": False} for start in ("dpt", "segmenter", "setr", "upernet_vit")},
}
"""Begin of recipes' names -> fields that make the network of a recipe the peer's; the recipe has its authors'."""
NECK = {"norms", "project", "extract"}
"""Parts of our SETR-MLA's decoder that are the peer's neck."""
ADAM = (0.9, 0.999)
"""Betas that torch takes where a config states none."""
STATISTICS = "mean, deviation"
OWN_SIZE = {"cityscapes": "1024x2048"}
"""Datasets whose images are all of one size: a resize to it changes nothing."""


def main() -> int:
    """Run the parts that are named, keep their results and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["settings", "rates", "losses", "draws", "scores", "page"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="recipes of settings, rates and losses, with commas; default: all of the list")
    parser.add_argument("--steps", type=int, default=20, help="of the losses, where a network takes long")
    parser.add_argument("--shims", type=Path, default=SHARED / "parity", help="folder of ref_shims.py")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    good = True
    if args.parts != ["page"]:
        sys.path.insert(0, str(args.shims))
        import ref_shims

        ref_shims.install()
        from mmengine.logging import MMLogger

        MMLogger.get_instance("beside", log_level="ERROR")
        only = args.only.split(",") if args.only else None
        for name, result in results(args.parts, args.seed, only, args.steps):
            print(name, {key: value for key, value in result.items() if key != "rows"}, flush=True)
            good &= bool(result.get("good", True))
            keep(name, result | {"date": str(date.today())})
    write_page(kept_results())
    return 0 if good else 1


def kept_results() -> dict[str, Any]:
    """Return the results of earlier runs, by name."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else {}


def keep(name: str, result: dict[str, Any]) -> None:
    """Put one result beside those of other runs, which may go on at the same time."""
    kept = kept_results() | {name: result}
    written = RESULTS.with_suffix(".new")
    written.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    written.replace(RESULTS)


def results(parts: list[str], seed: int, only: list[str] | None, steps: int) -> Any:
    """Yield (name, result) of the parts."""
    import torch

    from beside_scores import scores
    from beside_training import draws, losses, rates, real_images, step_by_step

    torch.set_num_threads(1)
    camvid = SHARED / "data" / "camvid"
    if "settings" in parts:
        for recipe in only or PAIRS:
            yield f"settings {recipe}", {"peer": PAIRS[recipe], "rows": settings(recipe, PAIRS[recipe])}
    for recipe in only or RATES if "rates" in parts else ():
        form = next((fields for start, fields in FORMS.items() if recipe.startswith(start)), {})
        yield f"rates {recipe}", rates(recipe, PAIRS[recipe], seed, form)
    for recipe in only or LOSSES if "losses" in parts else ():
        yield f"losses {recipe} float64", (result := losses(recipe, PAIRS[recipe], seed, steps=steps))
        yield f"losses {recipe} float32", losses(recipe, PAIRS[recipe], seed, torch.float32, 1)
        if not result["good"]:
            yield f"losses {recipe}, step by step", step_by_step(recipe, PAIRS[recipe], seed)
    if "draws" in parts:
        yield "draws fcn_ade20k", draws("fcn_ade20k", PAIRS["fcn_ade20k"], seed, real_images(camvid, 8))
    if "scores" in parts:
        peer = PAIRS["segformer_ade20k"]
        yield "scores segformer", scores(peer, seed, camvid, 20)
        yield "scores segformer, own size", scores(peer, seed, camvid, 20, resize=False)
        yield "scores segformer, windows", scores(peer, seed, camvid, 20, window=256)


# ---- settings
def settings(recipe: str, peer: str) -> dict[str, tuple[str, str]]:
    """Return key -> (the peer's setting, ours), in the same words where they mean the same."""
    from beside_training import peer_config
    from segatlas.recipe import Config

    config = Config.load(recipe)
    theirs, ours = _theirs(peer, peer_config(peer, weights=True)), our_settings(config)
    ours |= {STATISTICS: _our_statistics(config.model)}
    return {key: (theirs[key], ours[key]) for key in theirs}


def _theirs(name: str, config: Any) -> dict[str, str]:
    wrap, training = config.optim_wrapper, config.train_dataloader.dataset
    steps = (training.dataset if training.type == "RepeatDataset" else training).pipeline
    optimizer, rules = wrap.optimizer, wrap.get("paramwise_cfg") or {}
    pipeline, pre, mode = {step["type"]: step for step in steps}, config.model.data_preprocessor, config.model.test_cfg
    rounds = wrap.get("accumulative_counts", 1)  # steps and warm-up count batches there
    gpus = int(re.search(r"_(\d+)xb\d+", name).group(1))  # type: ignore[union-attr]
    customs = rules.get("custom_keys", {})
    factor = customs.get("head", {}).get("lr_mult", 1.0)
    fall, warm = config.param_scheduler[-1], config.param_scheduler[:-1]
    shown = {step["type"]: step for step in config.test_pipeline}
    multiple = shown["ResizeToMultiple"]["size_divisor"] if "ResizeToMultiple" in shown else None
    resize, scale = _their_scale(pipeline)
    keys = [key for key, rule in customs.items() if rule.get("decay_mult") == 0]
    inner = [key for key in keys if key.startswith("backbone.") and key.endswith("norm")]  # each is named
    spared = ", ".join([key for key in keys if key not in inner] + ["norm (encoder)"] * bool(inner))
    spared = "norms and biases" if rules.get("num_layers") else spared
    spared += ", norms" * (rules.get("norm_decay_mult") == 0)
    stage_wise = rules.get("decay_type") == "stage_wise"  # stages count 1 to 4, what follows num_layers + 1
    return {
        "images a step": str(gpus * config.train_dataloader.batch_size * rounds),
        "batch x accumulated": f"{config.train_dataloader.batch_size} x {gpus} GPUs" + f" x {rounds}" * (rounds > 1),
        "steps": str(config.train_cfg.max_iters // rounds),
        "optimiser": optimizer["type"].lower(),
        "momentum": _numbers([optimizer["momentum"]] if "momentum" in optimizer else optimizer.get("betas", ADAM)),
        "lr": ", ".join(
            [f"{optimizer['lr'] * factor:g}"]
            + [f"{part} x {1 / factor:g}" for part in ("encoder", "neck") if factor != 1 and _has(config.model, part)]
            + [f"encoder x {rule['lr_mult']:g}" for key, rule in customs.items() if _slows_encoder(key, rule)]
            + ([f"encoder x {rules['decay_rate'] ** (rules['num_layers'] - 4):g}"] if stage_wise else [])
        ),
        "layer decay": f"{rules.get('layer_decay_rate', rules.get('decay_rate', 1.0)):g}" + " a stage" * stage_wise,
        "weight decay": f"{optimizer['weight_decay']:g}" + (f", not of: {spared}" if spared else ", of all"),
        "fall": _their_fall(fall),
        "warm-up": f"{warm[0]['end'] // rounds} from {warm[0]['start_factor']:g}" if warm else "none",
        "clip": str(float(wrap.clip_grad["max_norm"])) if wrap.get("clip_grad") else "none",
        "precision": "mixed" if "Amp" in wrap["type"] else "fp32",
        "encoder begins": "trained" if _begins_trained(config.model) else "random",
        "resize": resize,
        "scale": scale,
        "crop": "x".join(map(str, pipeline["RandomCrop"]["crop_size"])),
        "crop rule": f"10 tries, one class < {pipeline['RandomCrop']['cat_max_ratio']:g}",
        "padding": f"right and below, {pre.pad_val:g} / {pre.seg_pad_val}",
        "flip": f"{pipeline['RandomFlip']['prob']:g}",
        "colours": _their_colours(pipeline.get("PhotoMetricDistortion")),
        STATISTICS: f"{_numbers(pre.mean)}; {_numbers(pre.std)}",
        "losses": _their_losses(config.model, config.train_dataloader.batch_size),
        "evaluation": f"{mode['mode']}, fit:{'x'.join(map(str, sorted(shown['Resize']['scale'])))}"
        + (f", stretched to multiples of {multiple}" if multiple else "")
        + (f", {mode['crop_size'][0]} by {mode['stride'][0]}" if mode["mode"] == "slide" else ""),
        "seed": str(config.get("randomness", {}).get("seed", "drawn anew")),
    }


def _slows_encoder(key: str, rule: Any) -> bool:
    return key == "backbone" and rule.get("lr_mult", 1.0) != 1


def _their_scale(pipeline: Any) -> tuple[str, str]:
    """Return to what images are resized before all else, and by what they are scaled then."""
    if "RandomResize" in pipeline:
        size, (low, high) = sorted(pipeline["RandomResize"]["scale"]), pipeline["RandomResize"]["ratio_range"]
        return f"fit:{size[0]}x{size[1]}", f"{low:g} to {high:g}, uniform"
    step = pipeline["RandomChoiceResize"]  # of shorter sides
    sides = sorted(step["scales"])
    base = sides[-1] // 2
    scale = f"{sides[0] / base:g} to 2 in {len(sides)} steps, at most {step['max_size']} pixels"
    return f"short:{base}", scale


def _their_fall(fall: Any) -> str:
    if fall["type"] != "MultiStepLR":
        return f"poly {fall['power']:g} to {fall['eta_min']:g}"
    steps = [fall["begin"] + step for step in fall["milestones"]]
    return f"x {fall.get('gamma', 0.1):g} after {', '.join(map(str, steps))}"


def _our_fall(fall: Any, steps: int, least: float) -> str:
    from segatlas.training.schedule import lr_factor

    if fall.name != "step":
        return f"{fall.name} {fall.power:g} to {least:g}" + ("" if fall.span == "rest" else ", beside the warm-up")
    factors = [lr_factor(fall, step, steps) for step in range(fall.warmup, steps)]
    drops = [fall.warmup + index for index in range(1, len(factors)) if factors[index] != factors[index - 1]]
    return f"x {fall.factor:g} after {', '.join(map(str, drops))}"


def _has(model: Any, part: str) -> bool:
    return part == "encoder" or model.get(part) is not None


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.5g}" for value in values)


def _begins_trained(node: Any) -> bool:
    """Tell whether a part of the peer's network begins with weights of a file."""
    if isinstance(node, dict):
        if node.get("pretrained") or (node.get("init_cfg") or {}).get("type") == "Pretrained":  # type: ignore[union-attr]
            return True
        return any(_begins_trained(child) for child in node.values())
    return isinstance(node, list | tuple) and any(_begins_trained(child) for child in node)


def _their_colours(step: Any) -> str:
    from mmseg.registry import TRANSFORMS

    if step is None:
        return "none"
    made = TRANSFORMS.build(step)
    ranges = [(made.contrast_lower, made.contrast_upper), (made.saturation_lower, made.saturation_upper)]
    return _colours(0.5, made.brightness_delta, *ranges, 2 * made.hue_delta)  # OpenCV counts half degrees


def _colours(probability: float, brightness: float, contrast: Any, saturation: Any, hue: float) -> str:
    ranges = "contrast {:g} to {:g}, saturation {:g} to {:g}".format(*contrast, *saturation)
    return f"each by {probability:g}: brightness {brightness:.4g}, {ranges}, hue {hue:g} degrees"


def _their_ohem(loss: Any, batch: int) -> str:
    """Return a loss over hard pixels in words: of the whole batch of a GPU, divided by how many are kept."""
    kept = f"ohem {loss['thres']:g}, {loss['min_kept'] // batch} an image, over kept pixels"
    return kept + f"{' by class' if loss.get('class_weight') else ''} {loss.get('loss_weight', 1.0):g}"


def _their_losses(model: Any, batch: int) -> str:
    terms = []
    for part in ("decode_head", "auxiliary_head"):
        heads = model.get(part) or []
        heads = heads if isinstance(heads, list | tuple) else [heads]
        heads = [inner for head in heads for inner in _scored(head)]
        for head in heads:
            if "loss_dice" in head:
                terms.append(_their_query_loss(head))
                continue
            for loss in head["loss_decode"] if isinstance(head["loss_decode"], list | tuple) else [head["loss_decode"]]:
                if loss["type"] == "OhemCrossEntropy":
                    terms.append(_their_ohem(loss, batch))
                    continue
                sampler = head.get("sampler")
                kind = (
                    "edges"
                    if loss["type"] == "BoundaryLoss"
                    else "dice"
                    if "Dice" in loss["type"]
                    else "bce"
                    if loss.get("use_sigmoid")
                    else "ce"
                )
                kind = f"ohem {sampler['thresh']:g}, {sampler['min_kept']} an image," if sampler else kind
                kind += " over labelled pixels" if loss.get("avg_non_ignore") else ""
                kind += " by class" if loss.get("class_weight") else ""
                terms.append(f"{kind} {loss.get('loss_weight', 1.0):g}")
            if head.get("loss_se_decode"):
                terms.append(f"presence {head['loss_se_decode']['loss_weight']:g}")
    return ", ".join(sorted(terms))


def _their_query_loss(head: Any) -> str:
    """Return the loss of queries in words; void is no part of any mask there."""
    of_class, of_mask, dice = head["loss_cls"], head["loss_mask"], head["loss_dice"]
    points = head["train_cfg"].get("num_points")
    where = f"bce at {points} points" if points else f"focal {of_mask['alpha']:g} {of_mask['gamma']:g}"
    costs = [cost["weight"] for cost in head["train_cfg"]["assigner"]["match_costs"]]
    weights = [loss["loss_weight"] for loss in (of_class, of_mask, dice)]
    return _query_loss(weights, costs, of_class["class_weight"][-1], where, "background")


def _query_loss(weights: Any, costs: Any, none: float, where: str, void: str) -> str:
    parts = ", ".join(f"{name} {weight:g}" for name, weight in zip(("class", where, "dice"), weights, strict=True))
    alike = "costs alike" if list(weights) == list(costs) else f"costs {_numbers(costs)}"
    return f"queries: {parts}, {alike}, none {none:g}, void {void}"


def _our_query_loss(term: Any) -> str:
    weights = (term.class_weight, term.mask_weight, term.dice_weight)
    points = getattr(term, "points", None)
    where = f"bce at {points} points" if points else f"focal {term.alpha:g} {term.gamma:g}"
    return _query_loss(weights, weights, term.none_weight, where, term.void)


def _scored(head: Any) -> list[Any]:
    """Return a head once for each of the maps that its losses see: those of a K-Net, its host's and one a stage."""
    host = head.get("kernel_generate_head")
    return [head] if host is None else [host] * (1 + head["num_stages"])


def our_settings(config: Any) -> dict[str, str]:
    """Return the settings of a recipe in the words of `settings`."""
    train, moves, inputs = config.train, config.transforms, config.model.input
    optimizer, fall = train.optimizer, train.schedule
    spared = list(optimizer.no_decay) + ([] if optimizer.decay_encoder_norms else ["norm (encoder)"])
    spared = spared if optimizer.decay_norms else ["norms and biases", *spared]
    least = fall.min_ratio * train.lr if fall.min_lr is None else fall.min_lr
    resize = moves.resize or f"fit:{OWN_SIZE.get(config.data.name, 'own')}"
    shown = inputs.resize or f"fit:{OWN_SIZE.get(config.data.name, 'own')}"
    decay = f"{optimizer.layer_decay:g}" + " a stage" * ("convnext" in config.model.name)
    factors = {"encoder": optimizer.encoder_lr_factor} if optimizer.encoder_lr_factor != 1 else {}
    of_neck = set(optimizer.lr_factors.values()) if optimizer.lr_factors.keys() == NECK else set()
    factors |= {"neck": min(of_neck)} if len(of_neck) == 1 else optimizer.lr_factors
    return {
        "images a step": str(train.batch * train.accumulate),
        "batch x accumulated": f"{train.batch} x {train.accumulate}",
        "steps": str(train.steps),
        "optimiser": optimizer.name,
        "momentum": _numbers([optimizer.momentum] if optimizer.name == "sgd" else optimizer.betas),
        "lr": ", ".join([f"{train.lr:g}", *(f"{name} x {f:g}" for name, f in factors.items())]),
        "layer decay": decay,
        "weight decay": f"{optimizer.weight_decay:g}" + (f", not of: {', '.join(spared)}" if spared else ", of all"),
        "fall": _our_fall(fall, train.steps, least),
        "warm-up": f"{fall.warmup} from {fall.warmup_ratio:g}" if fall.warmup else "none",
        "clip": "none" if train.clip is None else str(train.clip),
        "precision": "fp32" if train.precision == "fp32" else "mixed",
        "encoder begins": "trained" if config.model.encoder_weights else "random",
        "resize": resize,
        "scale": "{:g} to {:g}, {}".format(*moves.scale, moves.scale_draw),
        "crop": "x".join(map(str, moves.crop)),
        "crop rule": f"10 tries, one class < {moves.class_balance:g}",
        "padding": "right and below, 0 / 255" if moves.crop_padding == "end" else "around, 0 / 255",
        "flip": f"{moves.flip:g}",
        "colours": _our_colours(moves.photometric),
        "losses": _our_losses(config),
        "evaluation": f"{inputs.mode}, {shown}" + (f", {inputs.crop[0]} by {inputs.stride[0]}" if inputs.crop else ""),
        "seed": str(config.seed),
    }


def _our_colours(jitter: Any) -> str:
    if jitter is None or jitter.kind != "steps":
        return "other"
    return _colours(jitter.probability, 255 * jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)


def _our_statistics(model: Any) -> str:
    """Return what a run normalises with: what the recipe states, else what the encoder's first weights want."""
    from segatlas.build.encoder_weights import published_statistics
    from segatlas.build.network import create_model, shapes_only

    with shapes_only():
        net = create_model(model.name, num_classes=2, **model.architecture_fields())
    known = published_statistics(net, model.encoder_weights or "imagenet")
    stated = (model.input.mean or known[0], model.input.std or known[1])
    return "; ".join(_numbers(model.input.max_value * value for value in values) for values in stated)


def _our_losses(config: Any) -> str:
    terms = []
    words = {"cross_entropy": ("ce",), "point_cross_entropy": ("ce",), "detail": ("bce", "dice"), "edge": ("edges",)}
    for term in config.losses:
        if term.name.startswith("query_"):
            terms.append(_our_query_loss(term))
            continue
        kinds = words.get(term.name, ("presence",))
        if term.name in ("ohem", "edge_ohem"):
            kinds = (f"ohem {term.threshold:g}, {term.min_kept // config.train.batch} an image,",)
        over = "" if getattr(term, "count_ignored", True) else " over labelled pixels"
        over = " over kept pixels" if getattr(term, "by_count", False) else over
        by_class = " by class" if getattr(term, "class_weights", None) else ""
        terms += [f"{kind}{over}{by_class} {term.weight:g}" for kind in kinds]
    return ", ".join(sorted(terms))


# ---- the page
def write_page(kept: dict[str, Any]) -> None:
    """Write the tables between the page's marks."""
    for name, lines in {"settings": settings_table(kept), "numbers": numbers_table(kept)}.items():
        write_between(PAGE, "\n".join(lines), (f"<!-- {name} -->", f"<!-- end of {name} -->"))


def settings_table(kept: dict[str, Any]) -> list[str]:
    """Return what is compared, then one line a recipe: how much is the same, and what differs."""
    found = {name.removeprefix("settings "): kept[name] for name in kept if name.startswith("settings ")}
    keys = dict.fromkeys(key for result in found.values() for key in result["rows"])
    lines = [f"The {len(keys)} keys: {', '.join(keys)}.", ""]
    lines += ["| Recipe | Config of MMSegmentation | The same | Differs: theirs / ours |", "| --- | --- | --- | --- |"]
    for recipe, result in found.items():
        rows = result["rows"]
        unlike = [f"{key}: {theirs} / {ours}" for key, (theirs, ours) in rows.items() if theirs != ours]
        same = f"{len(rows) - len(unlike)} of {len(rows)}"
        lines.append(f"| `{recipe}` | `{result['peer']}` | {same} | {'; '.join(unlike)} |")
    return [*lines, *(f"| `{recipe}` | none: {why} | | |" for recipe, why in ALONE.items())]


def numbers_table(kept: dict[str, Any]) -> list[str]:
    """Return the table of what both computed."""
    lines = ["| What | Of | Result | Limit | Holds | Seed, date |", "| --- | --- | --- | --- | --- | --- |"]
    for name, result in kept.items():
        what, _, of = name.partition(" ")
        if what == "settings":
            continue
        where = f"{result['seed']}, {result['date']}"
        holds = "yes" if result["good"] else "**no**"
        if what == "rates":
            text = f"{result['steps']} steps, {result['parameters']} of {result['of']} parameters"
            text += f" (all {result['theirs']} of theirs), " if not result["without_ours"] else ", "
            text += f"{result['rates']} rates: rate {result['rate']:.1e}, decay {result['decay']:.1e}"
            text += "; dropout and drop path alike" if result["dropout"] else "; **dropout differs**"
            text += f"; with {result['form']}" if result.get("form") else ""
            limit = "1e-9"
        elif what == "losses":
            text = f"{result['steps']} steps, {result['from']:.4f} to {result['to']:.4f}: {result['worst']:.1e}"
            text += f", theirs from a start moved by its last bit: {result['itself']:.1e}" if "itself" in result else ""
            text += f"; updated weights: {result['update']:.1e}" if "update" in result else ""
            text += "; no pixel ignored" if result.get("ignored") == 0 else ""
            limit = "1e-6" if result["type"] == "float64" else "1e-5"
        elif what == "draws":
            text = ", ".join(f"{key} p = {number['p']:.2f}" for key, number in result["numbers"].items())
            text, limit = f"{result['draws']} draws, {text}", "p > 0.01"
        else:
            text = f"mIoU of {result['images']} images, {result['classes']} classes predicted: "
            text += f"{result['ours']:.4f} and {result['theirs']:.4f}; IoU of a class: {result['class']:.1e} apart"
            limit = "0.01"
        lines.append(f"| {what} | `{of}` | {text} | {limit} | {holds} | {where} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
